"""Attaching to blocks: what a strategy imports."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from candleshm import _core
from candleshm._core import Closed, Series
from candleshm.errors import BlockError, BlockInUse, BlockNotFound, ConfigError, WaitTimeout
from candleshm.reader.closes import Closes, Wanted, names_of
from candleshm.reader.contracts import Contract, contracts_of
from candleshm.reader.figures import kind_of
from candleshm.reader.health import Health, health_of
from candleshm.reader.moments import MomentLike, MomentsLike, moment_of, moments_of
from candleshm.reader.notebook import feed_html
from candleshm.reader.panel import Panel
from candleshm.reader.sessions import Session, sessions_of
from candleshm.reader.waiter import Waiter
from candleshm.system.log_text import counted

# How often a wait for a block, or for its data, looks again.
LOOK_SECONDS = 0.05


class Feed(_core.Feed, Mapping[str, Series]):
    """The candles of one named block, read in place; see `attach`.

    A read-only mapping from symbols to `Series`: `keys`, `values`, `items`, `get` and `in` are those of a dict; the
    symbols may grow while the feed is used. Feeds are compared by identity. A feed is pickled, and copied, as its name
    and `max_age`: the copy attaches anew. So do its series.

    >>> {symbol: series.last_close for symbol, series in feed.items()}  # doctest: +SKIP
    """

    # Two feeds are two ways to read, whatever they carry; a Mapping would compare, and have no hash.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self, name: str, max_age: float | None = None) -> None:
        self._close_waiter = Waiter()
        self._row_waiter = Waiter()

    @property
    def health(self) -> Health:
        """The block and its collector at this moment, see `Health`."""
        return health_of(self)

    @property
    def contracts(self) -> Mapping[str, Contract]:
        """What each continuous contract, such as BTCUSDT:CURRENT_QUARTER, stands for now, and since when.

        >>> {name: contract.rolled_at for name, contract in feed.contracts.items()}  # doctest: +SKIP
        """
        return contracts_of(self)

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The present session of the market behind each TradFi perpetual, and when it ends.

        >>> [name for name, session in feed.sessions.items() if session.trades]  # doctest: +SKIP
        """
        return sessions_of(self)

    def wait_ready(self, timeout: float | None = None) -> Health:
        """Sleep until every symbol was loaded and the data is current (`Health.ready`), and return the health.

        A collector that just started, or is about to take a block over, is waited for. In asyncio use
        `await asyncio.to_thread(feed.wait_ready, timeout)`.

        Args:
            timeout: Seconds; None waits for ever, 0 looks once.

        Raises:
            WaitTimeout: With `.missing`, the symbols that have no data yet.
            BlockNotFound: The feed was closed.
            ConfigError: A timeout that is not a duration.

        >>> feed = candleshm.attach("candleshm-spot-1m", max_age=60.0, timeout=60.0)  # doctest: +SKIP
        >>> feed.wait_ready(timeout=300.0).symbols  # doctest: +SKIP
        """
        deadline_seconds = _deadline_seconds(timeout)
        while not (health := self.health).ready:
            if not _slept(deadline_seconds):
                missing = tuple(symbol for symbol in self if math.isinf(self[symbol].age))
                raise WaitTimeout(
                    f"block `{self.name}` is not ready after {timeout} s: it is {health.condition}; {len(missing)} of "
                    f"{health.symbols} symbols have no data yet, {health.stale} are stale",
                    missing,
                )
        return health

    def panel(
        self,
        field: str | None = None,
        n: int | None = None,
        symbols: Sequence[str] | None = None,
        *,
        live: bool = False,
        fields: Sequence[str] | None = None,
        out: npt.NDArray[np.float64] | None = None,
    ) -> Panel:
        """Return one field (n, S), or several (n, S, F), of many symbols aligned on open time; NaN without a row.

        It ends at the newest open time that every requested trading symbol has final.

        Args:
            field: A column, such as "close".
            n: Newest time slots. None: LENGTH of the block.
            symbols: The order of the columns; None means all that trade and have candles.
            live: End at the newest open time that any of the symbols has, with the values of the moment.
            fields: Several columns, in place of `field`.
            out: Becomes the panel's array: writable, float64, Fortran-ordered, of exactly the panel's shape.

        Raises:
            StaleData, UnknownSymbol: As `Series.candles`; with None only symbols that trade can be stale.
            ConfigError: A field, `n` or `out` cannot be used, or the 3d candles of the symbols open on different days.

        >>> closes = feed.panel("close", n=100)  # doctest: +SKIP
        """
        if isinstance(fields, str):
            raise ConfigError(f"fields cannot be the text `{fields}`; allowed: a list such as ['open', 'close']")
        if not isinstance(field, str | None):
            raise ConfigError(f"field cannot be `{field}`; allowed: one name, as in panel('close'), or fields=[...]")
        if fields is not None and field is None:
            names = tuple(fields)
        elif field is not None and fields is None:
            names = (field,)
        else:
            raise ConfigError("panel needs either one field, as in panel('close'), or fields=[...]")
        if out is not None and not (out.flags.f_contiguous and out.ndim == (2 if fields is None else 3)):
            raise ConfigError("out must be a Fortran-ordered float64 array of the panel's shape")
        flat = None if out is None else out.T.reshape(-1)
        values, open_time_ms, found = self._panel(names, n, symbols, live, flat)
        shape = (len(names), len(found), len(open_time_ms))
        array = (values.reshape(shape[1:]) if fields is None else values.reshape(shape)).T
        if out is not None and out.shape != array.shape:
            raise ConfigError(f"out must be of the panel's shape {array.shape}: `{out.shape}`")
        end_ms = _core.candle_end_ms(self.interval, int(open_time_ms[-1])) if len(open_time_ms) else 0
        return Panel(array if out is None else out, open_time_ms, found, names, end_ms)

    def asof(
        self, field: str, moments_ms: MomentsLike, symbols: Sequence[str] | None = None
    ) -> npt.NDArray[np.float64]:
        """Return the value of the newest candle of each symbol that had closed by each moment: float64 (m, S).

        Nothing from the future gets in: a candle counts from its end on. NaN before the window.

        Args:
            field: A column, such as "close".
            moments_ms: Whole epoch ms (int64 or a list), datetimes with a time zone, datetime64 in UTC, or a pandas
                DatetimeIndex; (m,), or one of them.
            symbols: The order of the columns; None means all that trade and have candles.

        Raises:
            StaleData, UnknownSymbol: As `panel`.
            ConfigError: The field, or moments in another unit or of another type.

        >>> five_minutes.asof("close", minutes.open_time_ms + 60_000)  # doctest: +SKIP
        """
        moments = moments_of(moments_ms)
        values, found = self._asof(field, moments, symbols)
        return values.reshape(len(found), len(moments)).T

    def closes(self, *, symbols: Sequence[str] | None = None, quorum: float = 1.0) -> Closes:
        """Iterate, with `for` or `async for`, over the closes from the next one on: one Closed per open time.

        No close is left out when the work in the loop takes longer than a candle; `wait_closed()` in a loop would wait
        for the next close from then on. `lag` of the iterator counts the closes that are due already. One helper thread
        sleeps for all coroutines of a feed.

        Args:
            symbols, quorum: As in `wait_closed`.

        Raises:
            ClosesMissed: The loop fell behind by more than the window.
            StaleData, UnknownSymbol, ConfigError: As `wait_closed`.

        >>> for closed in feed.closes():  # doctest: +SKIP
        ...     print(closed.open_time_ms, feed["BTCUSDT"].candles(100, closed_only=True)[-1])
        """
        return Closes(self, self._close_waiter, symbols, quorum)

    async def wait_closed_async(
        self,
        open_time_ms: MomentLike | None = None,
        *,
        symbols: Sequence[str] | None = None,
        quorum: float = 1.0,
        timeout: float | None = None,
    ) -> Closed:
        """Await what `wait_closed` waits for, without blocking the event loop. Arguments and errors are the same."""
        wanted = names_of(symbols)
        target_ms = self._next_close_ms(wanted, quorum) if open_time_ms is None else moment_of(open_time_ms)
        close = Wanted(self, target_ms, wanted, quorum, is_earliest=open_time_ms is None)
        closed, _, _ = await self._close_waiter.wait(close.key, close.look, self._news, timeout)
        return closed

    async def wait_async(
        self, symbol: str, after_open_time_ms: MomentLike | None = None, *, timeout: float | None = None
    ) -> int:
        """Await what `Series.wait` of a `symbol` waits for, without blocking the event loop, with the same errors."""
        series = self[symbol]
        end = series._end_of(after_open_time_ms)
        return await self._row_waiter.wait(
            (symbol, end), lambda waited: series._look_newer(end, waited), series._news, timeout
        )

    def close(self) -> None:
        """End the use of the feed. Arrays and views already handed out stay readable: each keeps the block mapped."""
        super().close()
        # Whoever waits learns that the feed was closed.
        self._close_waiter.close()
        self._row_waiter.close()

    def __repr__(self) -> str:
        try:
            health = self.health
        except BlockError:
            return f"<Feed {self.name}: closed>"
        age = f"data {health.oldest_age:.1f} s old at most" if math.isfinite(health.oldest_age) else "no data yet"
        return (
            f"<Feed {kind_of(health)} {health.interval} of {self.name}: {counted(health.symbols, 'symbol')}, {age}, "
            f"{health.condition}>"
        )

    def _repr_html_(self) -> str:
        """Return the first symbols, as Jupyter shows them."""
        return feed_html(self)

    def _ipython_key_completions_(self) -> list[str]:
        """Return what IPython and Jupyter offer for `feed["` and Tab."""
        return list(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def attach(name: str, max_age: float | None = None, *, timeout: float | None = 0.0) -> Feed:
    """Attach to a block, read-only, and return its feed.

    When a collector replaces the block by one of another shape, the feed follows by itself.

    Args:
        name: The block's name, see `candleshm ls`.
        max_age: Bounds the age of data that is handed out, seconds: reading an older series raises StaleData. None
            never raises it.
        timeout: How long to wait for a block that does not exist yet, seconds; None waits for ever. Its data may come
            later still: see `Feed.wait_ready`.

    Raises:
        BlockNotFound: There is none, after `timeout`.
        BlockIncompatible, BlockCorrupt: It is of another version, or is not a whole block.
        BlockUnavailable: The system refuses it: another user's, for example.
        ConfigError: An argument cannot be used.

    >>> feed = attach("candleshm-spot-1m", max_age=60.0)  # doctest: +SKIP
    >>> feed["BTCUSDT"].candles(100)[-1, candleshm.CLOSE]  # doctest: +SKIP
    """
    deadline_seconds = _deadline_seconds(timeout)
    while True:
        try:
            return Feed(name, max_age)
        except BlockNotFound:
            if not _slept(deadline_seconds):
                raise


def _deadline_seconds(timeout: float | None) -> float:
    """Return when a wait that begins now is over, by the monotonic clock. Raises ConfigError."""
    _core.check_timeout(timeout)
    return math.inf if timeout is None else time.monotonic() + timeout


def _slept(deadline_seconds: float) -> bool:
    """Sleep until it is time to look again; return False, without a sleep, once the wait is over."""
    left_seconds = deadline_seconds - time.monotonic()
    time.sleep(min(LOOK_SECONDS, max(0.0, left_seconds)))
    return left_seconds > 0


def attach_series(name: str, max_age: float | None, symbol: str) -> Series:
    """Return a series of a block attached for it alone: what a pickled series becomes."""
    return Feed(name, max_age)[symbol]


def blocks() -> list[Health]:
    """Return the health of every block on this machine that can be read, sorted by name.

    >>> [health.name for health in candleshm.blocks() if not health.ready]  # doctest: +SKIP
    """
    found = []
    for name in _core.block_names():
        try:
            found.append(health_of(_core.Feed(name)))
        except BlockError:
            # Other programs keep their shared memory in the same place.
            continue
    return found


def unlink(name: str) -> None:
    """Remove the block ``name`` that a dead collector left behind. Readers that are attached keep it.

    Raises:
        BlockNotFound: There is none.
        BlockInUse: A live collector serves it.
        BlockCorrupt: It is not a candleshm block.

    >>> candleshm.unlink("no-such-block")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    candleshm.errors.BlockNotFound: block `no-such-block` was not found
    """
    try:
        _core.unlink(name)
    except BlockInUse as error:
        raise BlockInUse(error.name, error.pid, to_remove=True) from None
