"""The blocks of this machine by market, price and interval: attached by name as any reader does it, and followed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from types import TracebackType
from typing import Self

from candleshm import _core
from candleshm._core import INTERVAL_MS
from candleshm.errors import BlockError, BlockNotFound, ConfigError
from candleshm.exchanges.base import Market, Price
from candleshm.reader.feed import Feed, attach
from candleshm.reader.figures import kind_of
from candleshm.system.log_text import counted

__all__ = ["BlockDirectory", "divides", "replay_flags"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
DAY_MS = 86_400_000
# A request for what is not there has the directory look again, but not more often than this.
LOOK_SECONDS_MIN = 0.1


class BlockDirectory:
    """The feeds of all blocks, or of those that are named. `with` starts the thread that looks for new and gone ones.

    Every method may be called from any thread. Feeds have no `max_age`: whether data is too old is up to who reads it.
    """

    def __init__(self, names: Sequence[str] | None = None, exchanges: Mapping[Market, str] | None = None) -> None:
        """`names` are the blocks to use; None means all of this machine. They may appear later.

        Of blocks that are not named only those are used that have the candles of the market's exchange in `exchanges`,
        where it is given: a simulated exchange may have blocks beside the real one's. Of those that are named, all of a
        market are of one exchange: that one if a block has it, else the first by name.
        """
        self._names = None if names is None else frozenset(names)
        self._exchanges = exchanges or {}
        self._foreign: set[str] = set()
        self._feeds: dict[str, Feed] = {}
        self._found: dict[tuple[str, str, str], list[Feed]] = {}
        self._derived: frozenset[str] = frozenset()
        self._faults: dict[str, str] = {}
        self._looking = threading.Lock()
        self._looked_seconds = -LOOK_SECONDS_MIN
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.look()
        self._thread = threading.Thread(target=self._run, name="gateway-directory", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and the use of all feeds."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        with self._looking:
            feeds, self._feeds, self._found = self._feeds, {}, {}
            for feed in feeds.values():
                feed.close()

    def find(self, market: str, symbol: str, interval: str, price: Price = "trade") -> list[Feed]:
        """Return the feeds that carry a series, the best first: fetched before derived, then the longer window.

        No system call, no lock. A feed may lose the symbol, or be closed, before it is read.
        """
        found = self._found.get((market, price, interval))
        return [feed for feed in found if symbol in feed] if found else []

    def intervals(self, market: str, price: Price = "trade") -> list[str]:
        """Return the intervals that a market has blocks of, longest first."""
        return [interval for interval in reversed(INTERVAL_MS) if (market, price, interval) in self._found]

    def of_market(self, market: str, price: Price = "trade") -> list[Feed]:
        """Return all feeds of a market's intervals, those of short intervals first."""
        found = self._found
        return [feed for interval in INTERVAL_MS for feed in found.get((market, price, interval), ())]

    def clocks_of(self, market: str) -> list[Feed]:
        """Return all feeds of a market, whatever their prices are: each knows the exchange's time."""
        return [feed for (of, _, _), feeds in self._found.items() if of == market for feed in feeds]

    def has_symbol(self, market: str, symbol: str, price: Price = "trade") -> bool:
        """Return whether a block of the market carries the symbol, or of an index the pair, in any interval."""
        return any(symbol in feed for feed in self.of_market(market, price))

    def left_out(self, market: str, symbol: str) -> Feed | None:
        """Return a feed that carries a symbol with the candles of another exchange."""
        foreign = (feed for name, feed in sorted(dict(self._feeds).items()) if name in self._foreign)
        return next((feed for feed in foreign if symbol in feed and feed.market == market), None)

    def why_left_out(self, name: str) -> str:
        """Return why no request is answered from a block of this machine; an empty text when it is used."""
        feed = dict(self._feeds).get(name)
        if feed is None or name not in self._foreign:
            return ""
        if _is_replay(feed):
            return f"it is a replay, of another time than now; a gateway with `{replay_flags(feed)}` answers from it"
        whose = _exchange_of(feed, feed.market) or "an unknown exchange"
        return f"its candles are those of {whose}, requests are answered for {self._wanted(feed.market)}"

    def is_derived(self, feed: Feed) -> bool:
        """Return whether the block was made of the candles of another one."""
        return feed.name in self._derived

    @property
    def feeds(self) -> Mapping[str, Feed]:
        """All feeds by the name of their block, those of a zone's days as well. A snapshot."""
        return dict(self._feeds)

    @property
    def used(self) -> Mapping[str, Feed]:
        """The feeds that requests may be answered from: not those of another exchange. A snapshot."""
        return {name: feed for name, feed in dict(self._feeds).items() if name not in self._foreign}

    def look(self) -> None:
        """Attach to blocks that are new, and leave those that are gone. A call soon after the last one does nothing."""
        with self._looking:
            now_seconds = time.monotonic()
            if self._stopping.is_set() or now_seconds < self._looked_seconds + LOOK_SECONDS_MIN:
                return
            self._looked_seconds = now_seconds
            # A block that a collector restarts may lack its name for a moment; its feed follows once it has one again.
            names = {name for name in _core.block_names() if self._names is None or name in self._names}
            for name in [name for name, feed in self._feeds.items() if name not in names and _has_ended(feed)]:
                logger.info("block %s is gone", name)
                self._feeds.pop(name).close()
            for name in names - self._feeds.keys():
                if (feed := self._attached(name)) is not None:
                    logger.info("block %s: %s %s, %s", name, kind_of(feed), feed.interval, counted(len(feed), "symbol"))
                    self._feeds[name] = feed
            self._derived = _derived(self._feeds, _core.block_names())
            self._found = self._by_interval()

    def _attached(self, name: str) -> Feed | None:
        try:
            feed = attach(name)
        except BlockNotFound:
            return None
        except (BlockError, ConfigError) as error:
            # Other programs keep their shared memory in the same place. What was named is expected to be a block.
            if self._names is not None and self._faults.get(name) != str(error):
                logger.warning("%s", error)
            self._faults[name] = str(error)
            return None
        self._faults.pop(name, None)
        return feed

    def _by_interval(self) -> dict[tuple[str, str, str], list[Feed]]:
        """Return feeds by market, price and interval, the best first. Days of a zone are no such interval."""
        found: dict[tuple[str, str, str], list[Feed]] = {}
        for feed in sorted(self._feeds.values(), key=lambda feed: (self.is_derived(feed), -feed.length, feed.name)):
            if not self._is_foreign(feed) and feed.interval in INTERVAL_MS:
                found.setdefault((feed.market, feed.price, feed.interval), []).append(feed)
        return found

    def _is_foreign(self, feed: Feed) -> bool:
        """Whether a block has the candles of another exchange now; logged once."""
        try:
            there, wanted = feed.exchange, self._wanted(feed.market)
        except BlockError:
            return True
        if wanted is None or there == wanted or (self._names is not None and not there):
            self._foreign.discard(feed.name)
            return False
        if feed.name not in self._foreign:
            self._foreign.add(feed.name)
            text = "block %s is left out: its candles are those of %s, and requests are answered for %s"
            whose = "a replay" if _is_replay(feed) else there or "an unknown exchange"
            logger.info(text, feed.name, whose, wanted)
        return True

    def _wanted(self, market: str) -> str | None:
        """Return whose candles answer requests of a market; None: anybody's."""
        wanted = next((exchange for of, exchange in self._exchanges.items() if of == market), None)
        if self._names is None:
            return wanted
        named = {_exchange_of(feed, market) for feed in self._feeds.values()} - {""}
        return wanted if wanted in named else min(named, default=None)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                logger.exception("the blocks of this machine cannot be listed; the gateway goes on with those it has")


def replay_flags(feed: Feed) -> str:
    """Return the flags of a gateway that answers from a replay, which may show a change only once in a candle."""
    seconds = 2 * INTERVAL_MS.get(feed.interval, DAY_MS) // 1000
    return f"--block {feed.name} --max-age {seconds}"


def _exchange_of(feed: Feed, market: str) -> str:
    """Return whose candles a block of a market has; nothing where it is not known, and for other markets."""
    try:
        return feed.exchange if feed.market == market else ""
    except BlockError:
        return ""


def _is_replay(feed: Feed) -> bool:
    try:
        return feed.health.replayed_at is not None
    except BlockError:
        return False


def _has_ended(feed: Feed) -> bool:
    try:
        return feed.health.state in {"closed", "dead"}
    except BlockError:
        return True


def _derived(feeds: Mapping[str, Feed], names: Collection[str]) -> frozenset[str]:
    """Return which blocks have the name that a collector gives to one that it derives from another of `names`.

    A collector names it after its feed's `name`, or `candleshm-{market}` or `candleshm-{market}-{price}` without one.
    Where both intervals are fetched under such names, the longer one counts as derived, which is only the more careful
    judgement.
    """
    found = set()
    for name, feed in feeds.items():
        stem = name.removesuffix(f"-{feed.interval}")
        of_price = "" if feed.price == "trade" else f"-{feed.price}"
        if stem == f"candleshm-{feed.market.lower()}{of_price}":
            sources = [f"{stem}-{interval}" for interval in INTERVAL_MS if divides(interval, feed.interval)]
        else:
            source = feeds.get(stem, feed)
            is_alike = (source.market, source.price) == (feed.market, feed.price)
            sources = [stem] if stem != name and is_alike else []
        if any(source in names for source in sources):
            found.add(name)
    return frozenset(found)


@cache
def divides(source: str, target: str) -> bool:
    """Return whether candles of one interval can be made of those of another, shorter one.

    >>> divides("5m", "1h"), divides("1h", "1h"), divides("2h", "3h")
    (True, False, False)
    """
    try:
        return source != target and _core.derivation_parts(source, target) > 1
    except ConfigError:
        return False
