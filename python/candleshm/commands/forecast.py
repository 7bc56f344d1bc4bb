"""`serve --check`: what a configuration would take (memory, weight, time), and what is in its way; nothing is made."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from candleshm import _core
from candleshm.collector.shared_memory import MIB, SharedMemory, free_bytes
from candleshm.collector.supervisor import Supervisor
from candleshm.commands.streams import say
from candleshm.commands.table import aligned
from candleshm.config import CollectorConfig
from candleshm.errors import BlockError, BlockInUse, BlockNotFound, CandleShmError, ExchangeUnavailable
from candleshm.ratelimit.pools import pool_of
from candleshm.reader.feed import attach
from candleshm.reader.figures import kind_of
from candleshm.rest.client import MarketAccess
from candleshm.system.log_text import counted
from candleshm.universe import Universe

__all__ = ["forecast"]

HEADS = ("BLOCK", "MARKET", "INTERVAL", "SYMBOLS", "LENGTH", "MEMORY", "BY", "NOW")
LEFT = ("BLOCK", "MARKET", "BY", "NOW")


@dataclass(frozen=True)
class _Feed:
    """What one feed would take."""

    config: CollectorConfig
    symbols: int
    considered: int
    """Symbols that were named, or that trade, before any filter."""
    memory: SharedMemory
    load_weight: int
    """Of the requests that load everything, without what caches and daily files have."""
    load_seconds: float
    """Until so much weight may have been spent, when nobody else spends any."""
    minute_weight: int
    """In each minute after that, while all candles come by requests."""
    minute_budget: int


def forecast(feeds: Sequence[CollectorConfig]) -> None:
    """Print what the feeds would take. Raises as `Supervisor.start`, for what would keep them from starting."""
    Supervisor(feeds)
    pools: Counter[tuple[str, ...]] = Counter()
    found = []
    for config in feeds:
        feed = _look(config, pools[pool_of(config)])
        pools[pool_of(config)] += feed.load_weight
        found.append(feed)
    faults: list[CandleShmError] = []
    rows = []
    for feed in found:
        intervals = {feed.config.block_name: (feed.config.interval, feed.config.length)}
        intervals |= {block.name: (block.interval, block.length) for block in feed.config.derived}
        for name, size in feed.memory.bytes_of.items():
            now, fault = _standing(name)
            faults += [] if fault is None else [fault]
            interval, length = intervals[name]
            way = "derived" if name != feed.config.block_name else _way(feed.config)
            cells = (str(feed.symbols), str(length), f"{-(-size // MIB)} MiB", way, now)
            rows.append((name, kind_of(feed.config), interval, *cells))
    say(aligned(HEADS, rows, left=LEFT))
    together = SharedMemory({name: size for feed in found for name, size in feed.memory.bytes_of.items()})
    say(f"memory: {-(-together.total_bytes // MIB)} MiB in all, {free_bytes() // MIB} MiB free in /dev/shm\n")
    for feed in found:
        if feed.symbols < feed.considered:
            of = "that trade" if feed.config.symbols == "all" else "named"
            are = f"{feed.symbols} of {counted(feed.considered, 'symbol')} {of}"
            say(f"{feed.config.block_name}: {are} {'passes' if feed.symbols == 1 else 'pass'}, see the filters\n")
        streams = "" if _way(feed.config) == "requests" else "; next to nothing while streams flow"
        say(
            f"{feed.config.block_name}: weight {feed.load_weight:,} to load everything, {_duration(feed.load_seconds)} "
            f"at least; then {feed.minute_weight:,} a minute by requests{streams}; all feeds may spend "
            f"{feed.minute_budget:,} a minute\n"
        )
    for fault in faults:
        raise fault
    together.check()


def _look(config: CollectorConfig, weight_before: int) -> _Feed:
    """Ask the exchange which symbols there are. `weight_before` is what others of the pool spend first."""
    access = MarketAccess(config)
    exchange, clock = access.exchange, access.clock
    with access.client() as client:
        connected = client.connect(threading.Event())
        if connected is None:
            raise ExchangeUnavailable(f"no response from the exchange for {config.block_name}")
        info = connected[1]
        now_seconds = clock.monotonic_seconds()
        if info.weight_limit is not None:
            client.budget.set_limit(info.weight_limit, info.window_seconds, now_seconds)
        universe = Universe(config)
        symbols = len(universe.at_start(info))
        named = config.symbols
        considered = sum(map(info.is_trading, info.statuses)) if named == "all" else len(named)
        page = exchange.newest("", config.interval, exchange.page_limit)
        load_weight = symbols * math.ceil(config.length / page.limit) * page.weight
        minutes = 60 / client.budget.window_seconds
        return _Feed(
            config,
            symbols,
            considered,
            SharedMemory.of(config, symbols + universe.spare_places(info)),
            load_weight,
            client.budget.wait_seconds(weight_before + load_weight, now_seconds),
            round(symbols * exchange.newest("", config.interval, 1).weight * 60 / config.update_interval_seconds),
            round(client.budget.budget * minutes),
        )


def _standing(name: str) -> tuple[str, CandleShmError | None]:
    """Return what stands under the name of a block now, and the error if it is in the way."""
    try:
        is_owned = _core.is_owned(name)
        with attach(name) as feed:
            pid = feed.health.pid
    except BlockNotFound:
        return "free", None
    except BlockError as error:
        return "cannot be used", error
    if is_owned:
        return f"served by process {pid}", BlockInUse(name, pid)
    return "left behind; it is taken over", None


def _way(config: CollectorConfig) -> str:
    return "requests" if config.live == "rest" or config.stream_hindrance is not None else "streams"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
