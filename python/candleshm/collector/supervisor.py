"""Several feeds in one process: one collector each; those of a pool share its weight, as processes do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from candleshm.collector.collector import Collector
from candleshm.collector.selection import Membership
from candleshm.collector.status import CollectorStatus
from candleshm.config import CollectorConfig
from candleshm.errors import CandleShmError, ConfigError
from candleshm.rest.transport import Transport
from candleshm.system.clock import Clock, SystemClock

__all__ = ["Supervisor"]

LOOK_SECONDS = 0.5


class Supervisor:
    """Serves several feeds: `start` .. `stop`, or `with Supervisor(feeds) as supervisor`, or the blocking `run`.

    They start and end together: a feed that cannot start, or that ends by a fault, ends the others. Every method may
    be called from any thread.
    """

    def __init__(
        self,
        feeds: Sequence[CollectorConfig],
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
        memberships: Mapping[str, Membership] | None = None,
    ) -> None:
        """Check the configurations as far as that needs no network. Raises ConfigError.

        `memberships`, by the name of the block, make collectors part of a cluster.
        """
        if not feeds:
            raise ConfigError("feeds cannot be empty; give at least one")
        names = [name for config in feeds for name in config.block_names]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two blocks have the name `{twice}`; give one of them another")
        self._clock = clock or SystemClock()
        self._stopping = threading.Event()
        self.collectors: Mapping[str, Collector] = {
            config.block_name: Collector(
                config, transport=transport, clock=clock, membership=(memberships or {}).get(config.block_name)
            )
            for config in feeds
        }

    def start(self) -> None:
        """Start every feed; return once readers can attach to all. Raises as `Collector.start`, with nothing left."""
        try:
            for name, collector in self.collectors.items():
                with self._naming(name):
                    collector.start()
        except BaseException:
            self.stop()
            raise

    def wait_loaded(
        self,
        timeout_seconds: float | None = None,
        progress: Callable[[Mapping[str, CollectorStatus | None]], object] | None = None,
    ) -> bool:
        """As `Collector.wait_loaded`, for all feeds; `progress` gets `statuses()`."""
        deadline_seconds = None if timeout_seconds is None else self._clock.monotonic_seconds() + timeout_seconds
        waiting = list(self.collectors.values())
        while waiting and not self._stopping.is_set():
            left_seconds = LOOK_SECONDS
            if deadline_seconds is not None:
                left_seconds = min(left_seconds, deadline_seconds - self._clock.monotonic_seconds())
            if waiting[0].wait_loaded(max(0.0, left_seconds)):
                waiting.pop(0)
            elif left_seconds <= 0 or waiting[0].has_ended:
                break
            if progress is not None:
                progress(self.statuses())
        return not waiting

    def run(
        self,
        until: threading.Event | None = None,
        progress: Callable[[Mapping[str, CollectorStatus | None]], object] | None = None,
    ) -> None:
        """Serve until `until` is set, `stop` is called or a feed fails; then end all in order. Raises as `start`."""
        until = until or self._stopping
        try:
            self.start()
            while not until.wait(LOOK_SECONDS) and not any(feed.has_ended for feed in self.collectors.values()):
                if progress is not None and self.wait_loaded(0.0, progress):
                    progress = None
        finally:
            self.stop()
        for name, collector in self.collectors.items():
            with self._naming(name):
                collector.raise_failure()

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Have an error say which of several feeds it is about."""
        try:
            yield
        except CandleShmError as error:
            if len(self.collectors) > 1 and name not in str(error) and not hasattr(error, "__notes__"):
                error.add_note(f"feed {name}")
            raise

    def statuses(self) -> dict[str, CollectorStatus | None]:
        """Return where each feed stands, by the name of its block; None before it has one."""
        return {name: collector.status() for name, collector in self.collectors.items()}

    def stop(self) -> None:
        """End all feeds at the same time and remove their blocks. May be called repeatedly."""
        self._stopping.set()
        stops = []
        for collector in self.collectors.values():
            thread = threading.Thread(target=collector.stop)
            try:
                thread.start()
            except RuntimeError:  # The system gives no more threads; then they end one after the other.
                collector.stop()
            else:
                stops.append(thread)
        for thread in stops:
            thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
