"""Whether the time of a replay stands still: that is said, because long work and a hang cannot be told apart."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from datetime import UTC, datetime

from candleshm import _core

__all__ = ["StandstillWatch"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
FIRST_SECONDS = 5.0
"""How long time stands still before that is said; each time it takes twice as long until it is said again."""
PAUSE_MAX_SECONDS = 600.0


class StandstillWatch:
    """Looks now and then whether time moves on, and warns at growing intervals where it does not.

    >>> watch = StandstillWatch(core)  # doctest: +SKIP
    >>> watch.start()  # doctest: +SKIP
    """

    def __init__(self, core: _core.Replay) -> None:
        self.text: str | None = None
        """Why time has stood still since some seconds, None while it moves on."""
        self._core = core
        self._now_ms = core.now_ms
        self._since_seconds: float | None = None
        self._due_seconds = 0.0
        self._pause_seconds = FIRST_SECONDS
        self._is_over = threading.Event()

    def look(self, seconds: float) -> bool:
        """Look at `seconds` of a monotonic clock, and warn if it is time to; return whether it did."""
        now_ms, held_up = self._core.now_ms, self._core.held_up
        if held_up is None or now_ms != self._now_ms or self._since_seconds is None:
            self._now_ms, self.text = now_ms, None
            self._since_seconds = None if held_up is None else seconds
            self._due_seconds = seconds + self._pause_seconds
            return False
        stood_seconds = seconds - self._since_seconds
        self.text = held_up if stood_seconds >= FIRST_SECONDS else None
        if seconds < self._due_seconds:
            return False
        self._pause_seconds = min(2 * self._pause_seconds, PAUSE_MAX_SECONDS)
        self._due_seconds = seconds + self._pause_seconds
        moment = f"{datetime.fromtimestamp(now_ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"
        name = self._core.name
        logger.warning("replay %s has stood still for %.0f s at %s UTC: %s", name, stood_seconds, moment, held_up)
        return True

    def start(self) -> None:
        """Look from a thread of its own, until this object is gone or stopped."""
        arguments = (weakref.ref(self), self._is_over)
        threading.Thread(target=_watch, args=arguments, name="candleshm-standstill", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._is_over.set()


def _watch(watch: weakref.ref[StandstillWatch], is_over: threading.Event) -> None:
    while not is_over.wait(LOOK_SECONDS):
        there = watch()
        if there is None:
            return
        there.look(time.monotonic())
        del there
