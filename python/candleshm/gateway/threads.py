"""Threads for what would hold the event loop: so many at a time, so many that wait, and the rest is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from candleshm.gateway.refusals import Refused

__all__ = ["Threads"]

T = TypeVar("T")


class Threads:
    """A few threads of one purpose, started with the first work. `run` is called in the event loop only.

    They are daemons, unlike those of ThreadPoolExecutor: the end of the process does not wait for the exchange.
    """

    def __init__(self, name: str, count: int, waiting_max: int) -> None:
        """`name` is that of the threads; `waiting_max` is how much may wait for one of them."""
        self._name = name
        self._count = count
        self._most = count + waiting_max
        self._begun = 0
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do some work in a thread. Raises Refused when too much waits already."""
        if self._begun >= self._most:
            raise Refused(503, -1001, f"too many requests wait for the threads of {self._name}; try again later", 1.0)
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, name=f"gateway-{self._name}-{number}", daemon=True)
                for number in range(self._count)
            ]
            for thread in self._threads:
                thread.start()
        done: Future[T] = Future()
        result = asyncio.wrap_future(done)
        self._begun += 1
        result.add_done_callback(self._end)
        self._work.put((done, work))
        return result

    def close(self) -> None:
        """End the threads, each after what it is doing; wait for nothing."""
        for _ in self._threads:
            self._work.put(None)

    def _end(self, _: asyncio.Future[Any]) -> None:
        self._begun -= 1

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            done, work = item
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(work())
                except Exception as error:
                    done.set_exception(error)
