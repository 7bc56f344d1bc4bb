"""Closes one by one, for `for` and for `async for`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn, Self

from candleshm.errors import ClosesMissed, ConfigError
from candleshm.reader.waiter import Waiter

if TYPE_CHECKING:
    from candleshm._core import Closed, Feed

__all__ = ["Closes", "Wanted", "names_of"]


def names_of(symbols: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the symbols that a wait is about, None for all. Raises ConfigError for a single text."""
    if isinstance(symbols, str):
        raise ConfigError(f"symbols cannot be the text `{symbols}`; allowed: a list such as ['BTCUSDT']")
    return None if symbols is None else tuple(symbols)


class Wanted:
    """One close that is waited for: that of `open_time_ms`, or of the next candle once it is known which that is.

    With `is_earliest` it is the first one from there on that exists: symbols may be listed only later.
    """

    def __init__(
        self,
        feed: Feed,
        open_time_ms: int | None,
        symbols: tuple[str, ...] | None,
        quorum: float,
        *,
        is_earliest: bool = False,
    ) -> None:
        self.open_time_ms = open_time_ms
        self._is_earliest = is_earliest
        self._feed = feed
        self._symbols = symbols
        self._quorum = quorum

    @property
    def key(self) -> Hashable:
        """Equal for waits that end with the same close."""
        return (
            self
            if self.open_time_ms is None
            else (
                self.open_time_ms,
                self._symbols,
                self._quorum,
                self._is_earliest,
            )
        )

    def look(self, waited: float | None) -> tuple[Closed, int, int] | None:
        """Return the close, the open time of the next one, and how many have closed from this one on."""
        if self.open_time_ms is None:
            self.open_time_ms = self._feed._next_close_ms(self._symbols, self._quorum)
        if self._is_earliest and self.open_time_ms is not None:
            self.open_time_ms = self._feed._listed_ms(self.open_time_ms, self._symbols)
        return self._feed._look_closed(self.open_time_ms, self._symbols, self._quorum, waited)


class Closes(Iterator["Closed"], AsyncIterator["Closed"]):
    """The closes of a feed one by one, from the next one after its making on; see `Feed.closes`.

    No close is left out while the caller works: what closed meanwhile comes at once, in order. Each step raises as
    `Feed.wait_closed` does, and may be repeated after that. ClosesMissed means that the caller fell behind by more than
    the window: the iterator goes on with the oldest close whose rows are still there.
    """

    def __init__(self, feed: Feed, waiter: Waiter, symbols: Sequence[str] | None, quorum: float) -> None:
        self._feed = feed
        self._waiter = waiter
        self._symbols = names_of(symbols)
        self._quorum = quorum
        # Named once: while the caller works, or between two looks, a close must not turn into the next.
        self._target_ms = self._next_ms()

    @property
    def lag(self) -> int:
        """How many closes have come and were not handed out yet: 0 for a caller that keeps up."""
        if self._target_ms is None:
            return 0
        return self._feed._closed_since(self._target_ms, self._symbols, self._quorum)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Closed:
        if self._target_ms is None:
            self._target_ms = self._next_ms()
        closed, later_ms, lag = self._feed._wait_closed_from(self._target_ms, self._symbols, self._quorum)
        if closed is None:
            self._missed(lag)
        self._target_ms = later_ms
        return closed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Closed:
        wanted = Wanted(self._feed, self._target_ms, self._symbols, self._quorum, is_earliest=True)
        try:
            closed, later_ms, lag = await self._waiter.wait(wanted.key, wanted.look, self._feed._news)
        finally:
            # Also of a wait that was cancelled: the close that it waited for is still to be handed out.
            self._target_ms = wanted.open_time_ms
        if lag > self._feed.length:
            self._missed(lag)
        self._target_ms = later_ms
        return closed

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"the loop over the closes of block `{self._feed.name}` cannot be pickled or copied: it waits in this "
            f"process; pass the Feed, and call closes() there"
        )

    def _next_ms(self) -> int | None:
        return self._feed._next_close_ms(self._symbols, self._quorum)

    def _missed(self, lag: int) -> NoReturn:
        """Go on with the oldest close whose rows are there, and raise ClosesMissed."""
        missed = lag - self._feed.length
        start_ms = self._feed._listed_ms(self._target_ms or 0, self._symbols)
        self._target_ms = self._feed._later_open_ms(start_ms, missed, self._symbols)
        raise ClosesMissed(self._feed.name, start_ms, self._target_ms, missed)
