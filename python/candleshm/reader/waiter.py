"""How coroutines wait: one helper thread sleeps on the block for all of them, and wakes their event loops."""

from __future__ import annotations

import asyncio
import copy
import os
import threading
import weakref
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TypeVar, cast

from candleshm._core import News, check_timeout

__all__ = ["Waiter"]

T = TypeVar("T")

# How many turns of an event loop an outcome takes at most through tasks that wait for each other.
HOPS = 8
# How often a closed event loop is noticed.
HOP_SECONDS = 0.5

Look = Callable[[float | None], object]
"""Return what is waited for, or None; given the seconds that were waited, raise WaitTimeout instead of None."""


class _Group:
    """The futures of all coroutines that wait for the same."""

    def __init__(self, look: Look, news: Callable[..., News]) -> None:
        self.look = look
        self.news = news
        # On behalf of which thread the helper waits.
        self.thread_id = threading.get_native_id()
        self.futures: list[asyncio.Future[object]] = []

    def settle(self, result: object, error: BaseException | None) -> list[asyncio.AbstractEventLoop]:
        """Give the outcome to every future, in the event loop that it belongs to; return these loops."""
        loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[object]]] = {}
        for future in self.futures:
            loops.setdefault(future.get_loop(), []).append(future)
        for loop, futures in loops.items():
            # A loop may close at this moment; then nobody waits there any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, futures, result, error)
        return list(loops)


def _await_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Return once the coroutines that were just given an outcome have run up to what they await next."""
    done = threading.Event()

    def hop(left: int) -> None:
        if left:
            loop.call_soon(hop, left - 1)
        else:
            done.set()

    with suppress(RuntimeError):
        loop.call_soon_threadsafe(hop, HOPS)
        while not done.wait(HOP_SECONDS) and not loop.is_closed():
            pass


def _settle(futures: list[asyncio.Future[object]], result: object, error: BaseException | None) -> None:
    for future in futures:
        if future.done():
            continue  # cancelled meanwhile
        if error is None:
            future.set_result(result)
        else:
            # Each gets its own: raising an exception changes it.
            future.set_exception(copy.copy(error))


class _Waits:
    """All that a thread knows. It holds no feed while nobody waits, so that a feed that was dropped is collected."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.groups: dict[Hashable, _Group] = {}
        self.thread: threading.Thread | None = None
        self.has_ended = False

    def join(self, key: Hashable, look: Look, news: Callable[..., News], future: asyncio.Future[object]) -> bool:
        """Let a future wait, and return whether it is the first of its group."""
        with self.changed:
            group = self.groups.get(key)
            if is_first := group is None:
                group = self.groups[key] = _Group(look, news)
            group.futures.append(future)
            return is_first

    def leave(self, key: Hashable, future: asyncio.Future[object]) -> None:
        with self.changed:
            group = self.groups.get(key)
            if group is not None and future in group.futures:
                group.futures.remove(future)
                if not group.futures:
                    del self.groups[key]

    def start(self) -> None:
        """Let the thread sleep for what joined."""
        with self.changed:
            if self.thread is None:
                thread = threading.Thread(target=self.run, name="candleshm-wait", daemon=True)
                thread.start()
                self.thread = thread
            self.changed.notify()

    def end(self) -> None:
        """Let the thread end, after its sleep of a second at most."""
        with self.changed:
            self.has_ended = True
            self.groups.clear()
            self.changed.notify()

    def run(self) -> None:
        # What was slept on. A replay stands still while it is there: until whoever got something has worked.
        slept: News | None = None
        while True:
            if not self.groups:
                slept = None
            if not self.await_groups():
                return
            with self.changed:
                group = next(iter(self.groups.values()), None)
            if group is None:
                continue
            # Before the look: what is published after it ends the sleep.
            try:
                seen = group.news(group.thread_id)
            except BaseException as error:
                self.settle_all(error)
                continue
            group = None
            loops = self.look()
            if seen.is_lockstep:
                # A replay stands still until those have worked that got something, and all wait that will.
                for loop in {*loops, *self.loops()}:
                    _await_loop(loop)
            if not loops:
                try:
                    seen.sleep(slept)
                except BaseException as error:
                    self.settle_all(error)
                slept = seen
            del seen

    def loops(self) -> set[asyncio.AbstractEventLoop]:
        """Return the event loops in which somebody waits."""
        with self.changed:
            return {future.get_loop() for group in self.groups.values() for future in group.futures}

    def await_groups(self) -> bool:
        """Sleep until somebody waits; return False at the end."""
        with self.changed:
            self.changed.wait_for(lambda: self.groups or self.has_ended)
            # Loops that were closed with coroutines in them.
            for key, group in list(self.groups.items()):
                group.futures = [future for future in group.futures if not future.get_loop().is_closed()]
                if not group.futures:
                    del self.groups[key]
            return not self.has_ended

    def look(self) -> list[asyncio.AbstractEventLoop]:
        """Look once for every group, and settle those whose wait is over; return the event loops that got something."""
        with self.changed:
            groups = list(self.groups.items())
        loops: list[asyncio.AbstractEventLoop] = []
        for key, group in groups:
            try:
                found = group.look(None)
            except BaseException as error:
                loops += self.settle(key, None, error)
            else:
                if found is not None:
                    loops += self.settle(key, found, None)
        return loops

    def settle(self, key: Hashable, result: object, error: BaseException | None) -> list[asyncio.AbstractEventLoop]:
        """End the wait of a group, and return its event loops; whoever joins from here on looks for itself."""
        with self.changed:
            group = self.groups.pop(key, None)
        return [] if group is None else group.settle(result, error)

    def settle_all(self, error: BaseException) -> None:
        with self.changed:
            keys = list(self.groups)
        for key in keys:
            self.settle(key, None, error)


class Waiter:
    """Waits for coroutines of any number of event loops, with one daemon thread that starts with the first wait.

    The thread sleeps on the block until something is published, one second at the longest, and then looks once for
    all coroutines that wait for the same. So the number of coroutines costs nothing while nothing happens, and a
    collector that died or was replaced is noticed within a second.
    """

    def __init__(self) -> None:
        self._waits = _Waits()
        self._finalizer = weakref.finalize(self, self._waits.end)
        self._finalizer.atexit = False
        _waiters.add(self)

    async def wait(
        self,
        key: Hashable,
        look: Callable[[float | None], T | None],
        news: Callable[..., News],
        timeout: float | None = None,
    ) -> T:
        """Await what `look` returns once it is not None.

        Args:
            key: Equal for waits that have the same outcome; one look serves them all.
            look: Called with None, in this thread or the helper's. After a timeout called with the seconds waited:
                then it raises WaitTimeout.
            news: Return what is announced now, for a wait of the thread of a native id, none for the caller's. It is
                called before `look`, and slept on.
            timeout: Seconds; None waits for ever.

        Raises:
            ConfigError: The timeout is not a duration.
            WaitTimeout, StaleData, BlockNotFound, ...: What `look` raises.
        """
        check_timeout(timeout)
        # Before the look: from here on a replay stands still.
        news()
        waits = self._waits
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        try:
            if waits.join(key, look, news, future):
                # It may be there already. Coroutines that joined meanwhile rely on this look.
                try:
                    found = look(None)
                except BaseException as error:
                    waits.leave(key, future)
                    waits.settle(key, None, error)
                    raise
                if found is not None:
                    waits.leave(key, future)
                    waits.settle(key, found, None)
                    return found
                waits.start()
            try:
                async with asyncio.timeout(timeout):
                    return cast("T", await future)
            except TimeoutError:
                if future.done() and not future.cancelled():
                    raise
                # One last look, for the text and the missing symbols as they are now.
                found = look(timeout)
                assert found is not None
                return found
        finally:
            waits.leave(key, future)
            # An outcome may be on its way to it. The loop may be closed, when the coroutine was left behind there.
            with suppress(RuntimeError):
                future.cancel()

    def close(self) -> None:
        """Settle every wait as it stands now, and end the thread. What is waited for later is looked for anew."""
        self._waits.look()
        self._waits.end()
        self._start_over()

    def _start_over(self) -> None:
        self._finalizer.detach()
        self._waits = _Waits()
        self._finalizer = weakref.finalize(self, self._waits.end)
        self._finalizer.atexit = False


_waiters: weakref.WeakSet[Waiter] = weakref.WeakSet()


def _forget_threads() -> None:
    """Start over in a forked child, which has the waiters but not their threads; a lock may be held for ever."""
    for waiter in _waiters:
        waiter._start_over()


os.register_at_fork(after_in_child=_forget_threads)
