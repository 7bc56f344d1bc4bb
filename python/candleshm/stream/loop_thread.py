"""A thread with an event loop of its own, which works in ticks until it is stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

__all__ = ["LoopThread"]

TICK_SECONDS = 0.2
STOP_SECONDS = 0.5


class LoopThread:
    """Calls `tick` several times a second and after `rouse`, then `end`. Methods may be called from any thread."""

    def __init__(
        self, name: str, tick: Callable[[], None], end: Callable[[], Awaitable[None]], failed: Callable[[], None]
    ) -> None:
        """`failed` is called in an exception handler when `tick` or `end` raised."""
        self._tick = tick
        self._end = end
        self._failed = failed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.is_stopping = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def rouse(self) -> None:
        """Let the next tick come at once."""
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with suppress(RuntimeError):  # The loop has ended.
                loop.call_soon_threadsafe(wake.set)

    def stop(self) -> None:
        """End the thread within moments."""
        self.is_stopping = True
        self.rouse()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        try:
            # The embedding program may have made other event loops the default ones.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._work())
        except Exception:
            self._failed()

    async def _work(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        while not self.is_stopping:
            self._tick()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_SECONDS)
            self._wake.clear()
        await self._end()
