"""What `serve` and `mirror` tell the service manager: progress of the start, how the feeds do, and signs of life."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from candleshm import _core
from candleshm.errors import BlockError
from candleshm.reader.figures import age
from candleshm.reader.freshness import SILENT_SECONDS
from candleshm.reader.health import health_of
from candleshm.system.service_manager import ServiceManager

__all__ = ["ServiceReports"]

REPORT_SECONDS = 5.0
# A start may take as long as the request weight makes it take, as long as it goes on.
EXTENSION_MICROSECONDS = 60_000_000


class Served(Protocol):
    """What is told of a block that this process keeps."""

    @property
    def symbols(self) -> int: ...
    @property
    def loaded(self) -> int: ...
    @property
    def stale(self) -> int: ...
    @property
    def oldest_age(self) -> float: ...


Statuses = Callable[[], Mapping[str, Served | None]]


class ServiceReports:
    """Reports until it is closed, in a thread of its own; a context manager. Without a manager it does nothing.

    A sign of life is given while every collector has a heartbeat, which comes from the loop that does its work: one
    loop that hangs is enough for the manager to restart the service.
    """

    def __init__(self, manager: ServiceManager, statuses: Statuses, *, awaited: str = "the exchange") -> None:
        """`statuses` is asked at every report; what has none there waits for what is `awaited`."""
        self._manager = manager
        self._awaited = awaited
        self._statuses = statuses
        self._is_up = False
        self._ending = threading.Event()
        seconds = REPORT_SECONDS if manager.watchdog_seconds is None else manager.watchdog_seconds / 3
        self._report_seconds = min(seconds, REPORT_SECONDS)
        self._thread = threading.Thread(target=self._report, name="candleshm-service", daemon=True)
        if manager.listens:
            self._thread.start()

    def up(self) -> None:
        """Every symbol is loaded: what starts after this service may start."""
        self._is_up = True
        self._manager.tell(READY=1, STATUS=self._status())

    def close(self) -> None:
        """The service stops."""
        self._ending.set()
        self._manager.tell(STOPPING=1, STATUS="stopping")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _report(self) -> None:
        while not self._ending.wait(self._report_seconds):
            fields: dict[str, object] = {"STATUS": self._status()}
            if self._is_alive():
                fields["WATCHDOG"] = 1
            if not self._is_up:
                fields["EXTEND_TIMEOUT_USEC"] = EXTENSION_MICROSECONDS
            self._manager.tell(**fields)

    def _status(self) -> str:
        statuses = self._statuses()
        known = [status for status in statuses.values() if status is not None]
        symbols, loaded = sum(status.symbols for status in known), sum(status.loaded for status in known)
        if len(known) < len(statuses):
            return f"waiting for {self._awaited}"
        if not self._is_up:
            return f"loading: {loaded} of {symbols} symbols"
        oldest_seconds, stale = max(status.oldest_age for status in known), sum(status.stale for status in known)
        return f"{symbols} symbols, {stale} stale, oldest data {age(oldest_seconds)} old"

    def _is_alive(self) -> bool:
        """Whether no collector that has a block lacks a heartbeat."""
        for name in self._statuses():
            # Its start may still wait for the exchange; a block whose name was removed gets it back within moments.
            with suppress(BlockError):
                if health_of(_core.Feed(name)).heartbeat_age > SILENT_SECONDS:
                    return False
        return True
