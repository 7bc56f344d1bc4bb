"""Closes for asyncio: the feed's waits, run by one helper thread and handed over to event loops."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from candleshm.errors import WaitTimeout

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


async def closes(feed: Feed, waiter: Waiter, symbols: Sequence[str] | None, quorum: float) -> AsyncIterator[Closed]:
    """Yield one Closed per open time, from the next close on; none is left out while the caller works."""
    target_ms: int | None = None

    def wait(timeout: float) -> Closed:
        nonlocal target_ms
        if target_ms is None:
            # Named once: between two slices of waiting a close must not turn into the one after it.
            target_ms = feed._next_close_ms(symbols, quorum)
        return feed.wait_closed(target_ms, symbols=symbols, quorum=quorum, timeout=timeout)

    while True:
        closed = await waiter.ask(wait, None)
        target_ms = feed._next_open_ms(closed.open_time_ms)
        yield closed
