"""The command `replay`: stored days as a block, for strategies in other processes."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from candleshm.commands.progress import ProgressLine
from candleshm.commands.streams import say
from candleshm.errors import ConfigError
from candleshm.replaying.replay import CONSUMERS_MAX, Replay
from candleshm.replaying.replay import replay as begin

__all__ = ["replay"]

LOOK_SECONDS = 0.1


def replay(given: Mapping[str, Any], *, as_json: bool) -> None:
    """Replay as the arguments of `candleshm.replay` say, and print where readers attach, then a sum.

    Time waits for `consumers` readers, with 0 for none. A signal stops it; what was replayed until then is the sum.
    Raises as `candleshm.replay`, ConfigError for what is not given.
    """
    if absent := [name for name in ("market", "start", "end") if given.get(name) is None]:
        raise ConfigError(f"{absent[0]} is missing; a replay of daily files needs --market, --start and --end")
    consumers = given["consumers"]
    if not 0 <= consumers <= CONSUMERS_MAX:
        raise ConfigError(f"consumers cannot be `{consumers}`; allowed: a whole number, 0 to {CONSUMERS_MAX}")
    stopped = _interrupted_by_signals()
    with begin(**{**given, "consumers": max(1, consumers)}) as run:
        names = [run.name, *(feed.name for feed in run.derived.values())]
        told = sys.stderr if as_json else sys.stdout
        for name in names:
            say(f'replaying {name}: candleshm.attach("{name}")\n', told)
        for symbol in run.left_out:
            say(f"candleshm: {symbol} does not trade in these days, as its files show\n", sys.stderr)
        began_seconds = time.monotonic()
        try:
            with ProgressLine("replaying") as line:
                if consumers == 0 and not stopped.is_set():
                    run.run()
                else:
                    began_seconds = _watch(run, line, consumers, began_seconds, stopped)
        except KeyboardInterrupt:
            say(f"stopped at {_utc(run.now_ms)} of {_utc(run.end_ms)} UTC\n", sys.stderr)
        facts = _facts(run, time.monotonic() - began_seconds)
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        say(_sum(facts), sys.stderr)


def _interrupted_by_signals() -> threading.Event:
    """Let each stop signal raise KeyboardInterrupt, and set what is returned.

    An error that is raised while a library is imported, or an object deleted, may end there.
    """
    stopped = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    return stopped


def _watch(run: Replay, line: ProgressLine, consumers: int, began_seconds: float, stopped: threading.Event) -> float:
    """Show how far it is until it ends; return when its first moment came, on the monotonic clock."""
    while not run.is_over:
        if stopped.is_set():
            raise KeyboardInterrupt
        if run.now_ms <= run.start_ms:
            began_seconds = time.monotonic()
            line.show(None, run.held_up or f"waiting for {consumers} {'reader' if consumers == 1 else 'readers'}")
        else:
            facts = _facts(run, time.monotonic() - began_seconds)
            share = (run.now_ms - run.start_ms) / (run.end_ms - run.start_ms)
            pace = f"stands still: {run.held_up}" if run.held_up else f"{facts['closes_per_second']:,} closes/s"
            line.show(share, f"{_utc(run.now_ms)} UTC, {pace}")
        time.sleep(LOOK_SECONDS)
    run.run()  # What went wrong while files were read comes out here.
    return began_seconds


def _facts(run: Replay, seconds: float) -> dict[str, Any]:
    closes = (run.now_ms - run.start_ms) // run.length_ms
    return {
        "name": run.name,
        "start_ms": run.start_ms,
        "end_ms": run.end_ms,
        "now_ms": run.now_ms,
        "complete": run.now_ms >= run.end_ms,
        "symbols": list(run.symbols),
        "left_out": list(run.left_out),
        "closes": closes,
        "seconds": round(seconds, 3),
        "closes_per_second": round(closes / max(seconds, 1e-3)),
        "missing": run.missing,
    }


def _sum(facts: Mapping[str, Any]) -> str:
    symbols = len(facts["symbols"])
    return (
        f"replayed {_utc(facts['start_ms'])} to {_utc(facts['now_ms'])} UTC: {symbols} "
        f"{'symbol' if symbols == 1 else 'symbols'}, {facts['closes']:,} closes in {facts['seconds']:.1f} s, "
        f"{facts['missing']:,} candles missing in the files\n"
    )


def _utc(moment_ms: int) -> str:
    return f"{datetime.fromtimestamp(moment_ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"
