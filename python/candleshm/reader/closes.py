"""Closes one by one; for asyncio the feed's waits are run by one helper thread and handed over to event loops."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self, TypeVar

from candleshm._core import check_timeout
from candleshm.errors import ClosesMissed, WaitTimeout

if TYPE_CHECKING:
    from candleshm._core import Closed, Feed

T = TypeVar("T")

# A wait that nobody awaits any more ends after this long, so that the thread can serve others.
SLICE_SECONDS = 0.25


class Waiter:
    """One daemon thread that sleeps for coroutines. It starts with the first wait, and anew after a fork.

    Waits take turns in slices: each is asked for a moment, then the next. So any number of coroutines shares the
    thread, and one that was cancelled is dropped at its next turn. The thread holds nothing but the turns, so a feed
    that is dropped without `close` is collected, and ends it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._turns: SimpleQueue[tuple[Callable[[float], object], Future[object]]] = SimpleQueue()

    async def ask(self, wait: Callable[[float], T], timeout: float | None) -> T:
        """Await `wait(timeout_seconds)`, which raises WaitTimeout as long as it has nothing to say."""
        check_timeout(timeout)
        future: Future[object] = Future()
        with self._lock:
            # A forked child has the object but not the thread.
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._turns = SimpleQueue()
                weakref.finalize(self, _end_thread, self._turns).atexit = False
                threading.Thread(target=self._serve, args=(self._turns,), name="candleshm-wait", daemon=True).start()
            self._turns.put((wait, future))
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(future)  # type: ignore[arg-type]
        except TimeoutError as error:
            future.cancel()
            if isinstance(error, WaitTimeout):
                raise
            # One last look, for the text and the missing symbols as they are now.
            return wait(0.0)

    def close(self) -> None:
        """End the thread once its waits are over."""
        with self._lock:
            if self._pid == os.getpid():
                self._pid = 0
                _end_thread(self._turns)

    @staticmethod
    def _serve(turns: SimpleQueue[tuple[Callable[[float], object], Future[object]]]) -> None:
        while True:
            # What was awaited last refers to its feed, and must not keep it alive while nobody waits.
            wait = future = answer = None
            wait, future = turns.get()
            if wait is _end:
                return
            if future.cancelled():
                continue
            try:
                answer = wait(SLICE_SECONDS if turns.empty() else SLICE_SECONDS / 25)
            except WaitTimeout:
                turns.put((wait, future))
            except BaseException as error:
                _settle(future, error=error)
            else:
                _settle(future, answer=answer)


def _end(_: float) -> None:
    """Stand for the end of the thread."""


def _end_thread(turns: SimpleQueue[tuple[Callable[[float], object], Future[object]]]) -> None:
    ended: Future[object] = Future()
    ended.cancel()
    turns.put((_end, ended))


def _settle(future: Future[object], *, answer: object = None, error: BaseException | None = None) -> None:
    # It may be cancelled at this very moment.
    if future.set_running_or_notify_cancel():
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)


class Closes(Iterator["Closed"], AsyncIterator["Closed"]):
    """The closes of a feed one by one, for `for` and for `async for`, from the next one after its making on.

    None is left out while the caller works: what closed meanwhile comes at once, in order. Each step raises as
    `wait_closed` does, and may be repeated after that. ClosesMissed says that the caller fell behind by more than the
    window: the iterator goes on with the oldest close whose rows are still there.
    """

    def __init__(self, feed: Feed, waiter: Waiter, symbols: Sequence[str] | None, quorum: float) -> None:
        self._feed = feed
        self._waiter = waiter
        self._symbols = symbols
        self._quorum = quorum
        # Named once: while the caller works, or between two slices of waiting, a close must not turn into the next.
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
        self._refuse_missed()
        return self._took(self._wait(None))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Closed:
        self._refuse_missed()
        return self._took(await self._waiter.ask(self._wait, None))

    def _wait(self, timeout: float | None) -> Closed:
        if self._target_ms is None:
            self._target_ms = self._next_ms()
        return self._feed.wait_closed(self._target_ms, symbols=self._symbols, quorum=self._quorum, timeout=timeout)

    def _took(self, closed: Closed) -> Closed:
        self._target_ms = self._feed._later_open_ms(closed.open_time_ms, 1, self._symbols)
        return closed

    def _next_ms(self) -> int | None:
        return self._feed._next_close_ms(self._symbols, self._quorum)

    def _refuse_missed(self) -> None:
        missed = self.lag - self._feed.length
        if missed > 0 and self._target_ms is not None:
            start_ms = self._target_ms
            self._target_ms = self._feed._later_open_ms(start_ms, missed, self._symbols)
            raise ClosesMissed(self._feed.name, start_ms, self._target_ms, missed)
