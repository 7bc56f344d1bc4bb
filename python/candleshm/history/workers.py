"""Threads that work through what there is to do, until nothing is left, one of them fails, or a stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from candleshm.system.clock import Clock

__all__ = ["LOOK_SECONDS", "Workers"]

LOOK_SECONDS = 0.2

T = TypeVar("T")


class Workers:
    """Runs a function in several threads. `changed` guards what they share, and wakes those that wait for a change.

    A stop waits for files that are being written, and for nothing else: a thread that waits for a response is left
    behind, and what it brings is dropped.
    """

    def __init__(self, clock: Clock, stopping: threading.Event, progress: Callable[[float], object]) -> None:
        """`progress` is called several times a second during `run`, with the seconds since its last call."""
        self.changed = threading.Condition()
        self._clock = clock
        self._stopping = stopping
        self._progress = progress
        self._failure: BaseException | None = None
        self._storing = 0  # threads that take in a result
        self._is_closed = False  # nothing is taken in any more

    @property
    def is_over(self) -> bool:
        """Whether to begin nothing more: after a stop or a failure."""
        return self._failure is not None or self._stopping.is_set()

    def pause(self, seconds: float) -> bool:
        """Wait for so many seconds, or a shorter time; return whether to go on."""
        self._stopping.wait(min(seconds, LOOK_SECONDS))
        return not self.is_over

    def run(self, take: Callable[[], T | None], work: Callable[[T], object], threads: int) -> None:
        """Call `work` with what `take` returns, until that is None, in so many threads.

        Returns when all have ended, or after a stop. Raises what one of them raised.
        """

        def loop() -> None:
            try:
                while not self.is_over and (item := take()) is not None:
                    work(item)
            except BaseException as error:  # Raised again below: in a thread nobody would see it.
                with self.changed:
                    self._failure = self._failure or error
                    self.changed.notify_all()

        before_seconds = self._clock.monotonic_seconds()
        running = [
            threading.Thread(target=loop, name=f"candleshm-history-{number}", daemon=True) for number in range(threads)
        ]
        for thread in running:
            thread.start()
        for thread in running:
            while thread.is_alive() and not self._has_stopped():
                thread.join(LOOK_SECONDS)
                now_seconds = self._clock.monotonic_seconds()
                self._progress(now_seconds - before_seconds)
                before_seconds = now_seconds
        if self._failure is not None:
            raise self._failure

    def run_each(self, items: Iterable[T], work: Callable[[T], object], threads_max: int) -> None:
        """Call `work` with each of the items, the first ones first. Returns and raises as `run`."""
        waiting = list(items)[::-1]

        def take() -> T | None:
            with self.changed:
                return waiting.pop() if waiting else None

        self.run(take, work, min(threads_max, len(waiting)))

    @contextmanager
    def storing(self) -> Iterator[bool]:
        """Take in a result and write its files: a stop waits for the end of the block. False after a stop."""
        with self.changed:
            is_open = not self._is_closed
            self._storing += is_open
        try:
            yield is_open
        finally:
            with self.changed:
                self._storing -= is_open
                self.changed.notify_all()

    def _has_stopped(self) -> bool:
        with self.changed:
            self._is_closed = self.is_over
            while self._is_closed and self._storing:
                self.changed.wait()
            return self._is_closed
