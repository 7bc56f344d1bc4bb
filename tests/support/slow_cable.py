"""A cable between two network devices of user space on which each packet takes the same time, in either direction."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from contextlib import suppress

__all__ = ["SlowCable"]

PACKET_BYTES = 65536


class SlowCable:
    """Two tap devices, given as descriptors that this object closes, and the thread that carries between them."""

    def __init__(self, first: int, second: int, delay_seconds: float) -> None:
        self._other = {first: second, second: first}
        self._delay_seconds = delay_seconds
        self._travelling: deque[tuple[float, int, bytes]] = deque()
        self._end, self._ending = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="slow cable", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop carrying; both devices are gone."""
        os.close(self._ending)
        self._thread.join()
        for descriptor in (self._end, *self._other):
            os.close(descriptor)

    def _carry(self) -> None:
        waiting = select.poll()
        for descriptor in (self._end, *self._other):
            waiting.register(descriptor, select.POLLIN)
        while True:
            left_ms = None
            if self._travelling:
                left_ms = max(0.0, self._travelling[0][0] - time.monotonic()) * 1000
            for descriptor, _ in waiting.poll(left_ms):
                if descriptor == self._end:
                    return
                self._take(descriptor)
            while self._travelling and self._travelling[0][0] <= time.monotonic():
                _, descriptor, packet = self._travelling.popleft()
                # A device that is down, or full, drops what comes.
                with suppress(OSError):
                    os.write(descriptor, packet)

    def _take(self, descriptor: int) -> None:
        with suppress(BlockingIOError):
            while packet := os.read(descriptor, PACKET_BYTES):
                self._travelling.append((time.monotonic() + self._delay_seconds, self._other[descriptor], packet))
