"""`replay`: stored days as a block that lives through them again."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Sequence
from numbers import Integral, Real
from types import TracebackType
from typing import Literal, Self

from candleshm import _core
from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError, ReplayEnded
from candleshm.exchanges.base import Price
from candleshm.history.day import DayLike
from candleshm.history.store import ParquetStore
from candleshm.reader.feed import attach
from candleshm.replaying.day_rows import DayRows
from candleshm.replaying.lives import Absent, lives_of
from candleshm.replaying.source import Source
from candleshm.replaying.span import Span
from candleshm.replaying.standstill import StandstillWatch

__all__ = ["INSIDE_SECONDS", "INSIDE_STEPS", "LENGTH", "Replay", "replay"]

INSIDE_STEPS, INSIDE_SECONDS = "open,high,low,close", "1s"
LENGTH = 2880
"""Candles kept of every symbol unless said otherwise, as of a collector."""
CONSUMERS_MAX = 64

StrPath = str | os.PathLike[str]


class Replay:
    """A replay under way, see `replay`; a context manager that ends it and removes its blocks.

    `feed` is its block, attached, `derived` are the feeds of the derived blocks by interval; other processes attach by
    `name`. It goes from `start_ms` to `end_ms` (epoch ms, excluded), with `symbols`; `left_out` are those that do not
    trade in that range. When it is over, or was closed, every wait raises `ReplayEnded`; rows can be read until it is
    closed.

    >>> with candleshm.replay("candles", "SPOT", "BTCUSDT", "1m", "2026-11-01", "2026-11-27") as replay:
    ...     replay.run()
    ...     print(replay.feed["BTCUSDT"].last_close)  # doctest: +SKIP
    """

    def __init__(
        self,
        core: _core.Replay,
        config: CollectorConfig,
        span: Span,
        source: Source,
        symbols: Sequence[str],
        left_out: Sequence[str],
    ) -> None:
        self.name = config.block_name
        """The name of the block of the interval that is replayed."""
        self.start_ms, self.end_ms = span.start_ms, span.end_ms
        """From when to when it goes, epoch ms; the end is excluded."""
        self.length_ms = span.length_ms
        """How long a candle of its interval lasts."""
        self.symbols = tuple(symbols)
        """The symbols that trade in that range, also those that are listed later."""
        self.left_out = tuple(left_out)
        """Symbols that, as their files show, do not trade in that range."""
        self._core = core
        self._source = source
        self._watch = StandstillWatch(core)
        self.feed = attach(self.name)
        """The block, attached: what `candleshm.attach(name)` returns."""
        self.derived = {block.interval: attach(block.name) for block in config.derived}
        """The derived blocks, attached, by their intervals."""
        self._watch.start()

    @property
    def now_ms(self) -> int:
        """The replayed time, epoch ms: nothing that closed later can be read."""
        return self._core.now_ms

    @property
    def is_over(self) -> bool:
        """Whether no later moment comes: the range is over, or the replay was stopped."""
        return self.now_ms >= self.end_ms or self.feed.health.state != "replay"

    @property
    def held_up(self) -> str | None:
        """Whom time awaits, once it has stood still for seconds although somebody waits; None while it moves on.

        It is text for people. The log has it too, as a warning at growing intervals.
        """
        return self._watch.text

    @property
    def missing(self) -> int:
        """How many candles, of the days read so far, may exist and are not in the files: their rows are missing."""
        return self._source.base.missing

    def step(self) -> bool:
        """Let the next moment come without waiting for any reader; False at the end."""
        return self._core.step()

    def run(self) -> None:
        """Go on to the end, in lockstep with the readers that wait in other threads and processes.

        Without any it goes through at once. Ctrl-C ends it, and the replay with it.
        """
        self._core.run()

    def close(self) -> None:
        """End the replay and remove its blocks; may be called twice. Waits of others raise ReplayEnded."""
        self._watch.stop()
        for feed in (self.feed, *self.derived.values()):
            feed.close()
        self._core.close()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._source.failure is not None and (error is None or isinstance(error, ReplayEnded)):
            raise self._source.failure from None

    def __repr__(self) -> str:
        return (
            f"<Replay {self.name}: {len(self.symbols)} symbols, at {self.now_ms} of {self.start_ms} to {self.end_ms}>"
        )


def replay(
    candle_dir: StrPath,
    market: str,
    symbols: str | Sequence[str] | None,
    interval: str,
    start: DayLike,
    end: DayLike,
    *,
    derive: Sequence[str] = (),
    length: int | None = None,
    warm: int | None = None,
    speed: float | Literal["max"] = "max",
    inside: str | None = None,
    timezone: str = "UTC",
    name: str | None = None,
    price: Price = "trade",
    consumers: int = 1,
    absent: Absent = "raise",
) -> Replay:
    """Publish stored days into a block as if they happened now, and return the `Replay`; it is a context manager.

    The block is one like a collector's: the same names, states, waits, panels and derived blocks. What was not known at
    a moment cannot be read at that moment. With `speed="max"` time moves on when every reader that waits has asked for
    what comes next, so a run is the same whatever the machine does, and as fast as its readers; see docs/replay.md.

    Args:
        candle_dir: the directory with the daily files, of `interval`.
        market: 'SPOT', 'UM' or 'CM', in any case.
        symbols: one or several; None means all that have files.
        interval: one that has files, 1s to 1d.
        start: the first day, or the moment at which the first candle opens. Naive datetimes are local to `timezone`.
        end: the last day, included; or the moment at which the last candle ends.
        derive: further intervals, each in a block of its own: `["5m", "1h:400"]`, as of a collector.
        length: candles kept of every symbol, the live one included. None: 2880.
        warm: how many rows before `start` are there from the beginning. None: none.
        speed: "max" for lockstep, or how many times faster than the clock: 60 is a minute in each second.
        inside: None publishes closed candles only; "open,high,low,close" shows each candle in four steps first, "1s"
            second by second, from files of 1s.
        timezone: whose days the files hold.
        name: of the block. None: one that nobody else uses.
        price: what the prices are: "trade", for UM and CM also "mark", "index" or "premium".
        consumers: how many readers are awaited before time begins to move; `run` awaits none.
        absent: days without a file, and days with missing candles, are an error ("raise"). With "accept" days before
            the first and after the newest stored one of a symbol count as days without trading, and candles that are
            missing in the files stay missing: a close of all symbols then needs a `quorum` below 1.

    Raises:
        DayNotFound: days are not stored; it names symbols, days and the command that brings them.
        DayDamaged, DayIncomplete, StoreUnavailable, MissingExtra: a file cannot be used, or not without pyarrow. Days
            are read while time goes on: then it comes out of `run` and `step`, or at the end of the `with` block.
        ConfigError: an argument cannot be used.
        BlockInUse, BlockUnavailable: another process serves the name; /dev/shm is full.

    >>> with candleshm.replay("candles", "SPOT", "BTCUSDT", "1m", "2026-11-01", "2026-11-27") as replay:
    ...     for closed in replay.feed.closes():  # until ReplayEnded
    ...         print(closed.open_time_ms, replay.feed["BTCUSDT"].last_close)  # doctest: +SKIP
    """
    span = Span.of(start, end, interval, timezone)
    warm_rows = 0 if warm is None else _whole("warm", warm, 0, 100_000)
    awaited = _whole("consumers", consumers, 1, CONSUMERS_MAX)
    times = _times(speed)
    _check_directory(candle_dir)
    store = ParquetStore(candle_dir, market, interval, span.zone, price)
    names = _symbols(store, symbols)
    config = CollectorConfig(
        market=store.market,
        price=store.price,
        interval=interval,
        symbols=names,
        length=LENGTH if length is None else length,
        derive=list(derive),
        name=_private_name() if name is None else name,
    )
    if warm_rows >= config.length:
        raise ConfigError(f"warm cannot be `{warm_rows}` with length `{config.length}`; allowed: a smaller number")
    days = span.days(warm_rows)
    first_ms = span.start_ms - warm_rows * span.length_ms
    lives = lives_of(store, names, days, absent)
    trading = {symbol: life for symbol, life in lives.items() if life.trades_in(first_ms, span.end_ms)}
    if not trading:
        raise ConfigError(f"symbols: none of {', '.join(names)} trades from `{start}` to `{end}`, as their files show")
    rows = DayRows(store, trading, days, (first_ms, span.end_ms), absent)
    seconds: DayRows | None = None
    if inside == INSIDE_SECONDS:
        seconds = _seconds(store, span, list(trading), absent)
    elif inside not in (None, INSIDE_STEPS):
        raise ConfigError(f"inside cannot be `{inside}`; allowed: {INSIDE_STEPS} | {INSIDE_SECONDS}")

    source = Source(rows, seconds)
    core = _core.Replay(
        config.block_name,
        market=store.market,
        price=store.price,
        interval=interval,
        length=config.length,
        symbols=list(trading),
        derived=[(block.name, block.interval, block.length) for block in config.derived],
        start_ms=span.start_ms,
        end_ms=span.end_ms,
        inside=None if inside is None else "1s" if seconds is not None else "steps",
        speed=times,
        consumers=awaited,
        more=lambda moment_ms: source.more(core, moment_ms),
    )
    try:
        for symbol, life in trading.items():
            core.set_life(symbol, life.listed_ms, life.ended_ms)
        core.begin(warm_rows)
        left_out = [symbol for symbol in names if symbol not in trading]
        return Replay(core, config, span, source, list(trading), left_out)
    except BaseException:
        core.close()
        source.close()
        raise


def _seconds(store: ParquetStore, span: Span, symbols: Sequence[str], absent: Absent) -> DayRows:
    """Return the 1s candles of the span. Raises DayNotFound, ConfigError."""
    if store.interval == INSIDE_SECONDS:
        raise ConfigError(f"inside cannot be `{INSIDE_SECONDS}` with interval `{store.interval}`; allowed: none")
    files = ParquetStore(store.tree.parents[2], store.market, INSIDE_SECONDS, store.zone, store.price)
    inside = span.inside(INSIDE_SECONDS)
    days = inside.days()
    return DayRows(files, lives_of(files, symbols, days, absent), days, (span.start_ms, span.end_ms), absent)


def _check_directory(candle_dir: StrPath) -> None:
    path = os.fspath(candle_dir)
    if not path:
        raise ConfigError("candle_dir is empty; allowed: the directory with the daily files, `.` for the current one")
    if not os.path.isdir(path):
        what = "it is no directory" if os.path.exists(path) else "there is no such directory"
        raise ConfigError(f"candle_dir cannot be `{path}`: {what}; `candleshm download --candle-dir DIR` fills one")


def _symbols(store: ParquetStore, symbols: str | Sequence[str] | None) -> list[str]:
    """Return the symbols that are meant, each once. Raises ConfigError."""
    names = store.symbols() if symbols is None else [symbols] if isinstance(symbols, str) else list(symbols)
    if not names:
        where = f"{store.tree} has files of none" if symbols is None else "the list is empty"
        raise ConfigError(f"symbols: at least one is needed, and {where}")
    return list(dict.fromkeys(names))


def _times(speed: float | str) -> float | None:
    """Return how many times faster than the clock time goes, None for lockstep. Raises ConfigError."""
    if speed == "max":
        return None
    if isinstance(speed, Real) and not isinstance(speed, bool) and 0 < speed < math.inf:
        return float(speed)
    raise ConfigError(f"speed cannot be `{speed}`; allowed: max, or a number above 0 such as 60")


def _whole(field: str, value: object, least: int, most: int) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most:
        return int(value)
    raise ConfigError(f"{field} cannot be `{value}`; allowed: a whole number, {least} to {most}")


def _private_name() -> str:
    return f"candleshm-replay-{os.getpid()}-{secrets.token_hex(4)}"
