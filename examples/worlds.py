"""The worlds in which a strategy of these examples runs: live, in a replay, over history. Each gives the same signals.

    python examples/momentum.py --live candleshm-spot-1m
    python examples/momentum.py --replay candles --symbols BTCUSDT,ETHUSDT --start 2026-11-02 --end 2026-11-27
    python examples/momentum.py --history candles --symbols BTCUSDT,ETHUSDT --start 2026-11-02 --end 2026-11-27

The last two need the day before `--start` as well: a strategy looks back from its first close.
"""

import argparse
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

import candleshm

WARM = 300
"""Rows that a replay has before its first moment: more than any of the strategies looks back."""
LATE = 60
"""How many closes a live loop may be late, and still see what it would have seen in time."""
MINUTE_MS = 60_000

Signals = Iterator[tuple[int, str, str]]
"""Open time of the candle that closed, symbol or pair, signal."""


def closes_until(feed: candleshm.Feed, open_time_ms: int, n: int) -> npt.NDArray[np.float64]:
    """Return (n, S): the final closes up to the candle that opened then, also when the loop is late."""
    panel = feed.panel("close", n=n + LATE, symbols=feed.symbols)
    end = int(np.searchsorted(panel.open_time_ms, open_time_ms, side="right"))
    return panel.array[end - n : end]


def run(
    description: str,
    on_closes: Callable[[Sequence[candleshm.Feed]], Signals],
    on_history: Callable[[Sequence[candleshm.Panel]], Signals],
    derive: Sequence[str] = (),
) -> None:
    """Run a strategy in the world that the command line names, and print its signals.

    `on_closes` gets the feed of 1m and those of `derive`, `on_history` the closes of the same intervals as panels.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    world = parser.add_mutually_exclusive_group(required=True)
    world.add_argument("--live", nargs="+", metavar="NAME", help="blocks of collectors: of 1m, then the derived ones")
    world.add_argument("--replay", metavar="DIR", help="daily files to replay")
    world.add_argument("--history", metavar="DIR", help="daily files to compute over")
    parser.add_argument("--market", default="SPOT")
    parser.add_argument("--symbols", default="BTCUSDT,ETHUSDT", help="of files; a block has its own")
    parser.add_argument("--start", metavar="DAY")
    parser.add_argument("--end", metavar="DAY")
    parser.add_argument("--closes", type=int, help="stop after so many")
    options = parser.parse_args()
    symbols = options.symbols.split(",")

    if options.live:
        with contextlib.ExitStack() as stack:
            feeds = [stack.enter_context(candleshm.attach(name)) for name in options.live]
            show(on_closes(feeds), options.closes)
    elif options.replay:
        span = {"start": options.start, "end": options.end, "warm": WARM, "derive": derive}
        with (
            candleshm.replay(options.replay, options.market, symbols, "1m", **span) as replay,
            contextlib.suppress(candleshm.ReplayEnded),
        ):
            show(on_closes([replay.feed, *replay.derived.values()]), options.closes)
    else:
        start = datetime.fromisoformat(options.start).replace(tzinfo=UTC)
        panels = [
            candleshm.history.panel(
                *(options.market, symbols, "close", start - timedelta(days=1), options.end),
                interval=interval,
                base_dir=options.history,
            )
            for interval in ("1m", *derive)
        ]
        start_ms = int(start.timestamp() * 1000)
        show((signal for signal in on_history(panels) if signal[0] >= start_ms), options.closes)


def show(signals: Signals, closes: int | None) -> None:
    """Print a line for each signal, of so many closes."""
    grouped = itertools.groupby(signals, key=lambda signal: signal[0])
    for open_time_ms, of_close in itertools.islice(grouped, closes):
        for _, symbol, signal in of_close:
            print(open_time_ms, symbol, signal, flush=True)
