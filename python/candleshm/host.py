"""Several feeds in one process: one collector each, one weight budget for each pool they share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from candleshm.clock import Clock, SystemClock
from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError
from candleshm.exchanges.binance import MARKETS
from candleshm.ratelimit import WeightBudget
from candleshm.server import Collector
from candleshm.status import CollectorStatus
from candleshm.transport import Transport

__all__ = ["Host", "pool_of"]

LOOK_SECONDS = 0.5


class Host:
    """Serves several feeds: `start` .. `stop`, or `with Host(feeds) as host`, or the blocking `run`.

    They start and end together: a feed that cannot start, or that ends by a fault, ends the others. Every method may
    be called from any thread.
    """

    def __init__(
        self, feeds: Sequence[CollectorConfig], *, transport: Transport | None = None, clock: Clock | None = None
    ) -> None:
        """Check the configurations as far as that needs no network. Raises ConfigError."""
        if not feeds:
            raise ConfigError("feeds cannot be empty; give at least one")
        names = [name for config in feeds for name in (config.segment_name, *dict(config.derived))]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two blocks have the name `{twice}`; give one of them another")
        self._clock = clock or SystemClock()
        self._stopping = threading.Event()
        pools: dict[tuple[str, ...], list[CollectorConfig]] = {}
        for config in feeds:
            pools.setdefault(pool_of(config), []).append(config)
        # Of the shares that the feeds of a pool name the smallest counts for all: none is promised more.
        budgets = {
            pool: WeightBudget(MARKETS[sharers[0].market].weight_limit, min(feed.server_weight for feed in sharers))
            for pool, sharers in pools.items()
        }
        self.collectors: Mapping[str, Collector] = {
            config.segment_name: Collector(config, transport=transport, clock=clock, budget=budgets[pool_of(config)])
            for config in feeds
        }

    def start(self) -> None:
        """Start every feed; return once readers can attach to all. Raises as `Collector.start`, with nothing left."""
        try:
            for collector in self.collectors.values():
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
        for collector in self.collectors.values():
            collector.raise_failure()

    def statuses(self) -> dict[str, CollectorStatus | None]:
        """Return where each feed stands, by the name of its block; None before it has one."""
        return {name: collector.status() for name, collector in self.collectors.items()}

    def stop(self) -> None:
        """End all feeds at the same time and remove their blocks. May be called repeatedly."""
        self._stopping.set()
        stops = [threading.Thread(target=collector.stop) for collector in self.collectors.values()]
        for thread in stops:
            thread.start()
        for thread in stops:
            thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def pool_of(config: CollectorConfig) -> tuple[str, ...]:
    """Return what identifies the weight pool that a feed spends from: way out, host, and family of markets.

    The exchange counts by the address that asks: spot for itself, USD-M and COIN-M together. Another host than its own
    counts for itself, by the same families.
    """
    way_out = "environment" if config.trust_env else "direct"
    if config.proxies:
        way_out = " ".join(f"{scheme}={proxy}" for scheme, proxy in sorted(config.proxies.items()))
    family = "SPOT" if config.market == "SPOT" else "FUTURES"
    return way_out, config.proxy_host or "", config.base_url or "", family
