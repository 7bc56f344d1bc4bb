"""What the members of a feed were told differently, logged once: the number of shards, the candles, the symbols."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from candleshm.cluster.presence import Presence
from candleshm.cluster.served import OwnFeed, enumerated
from candleshm.system.block_log import BlockLog
from candleshm.system.log_text import counted

if TYPE_CHECKING:
    from candleshm.cluster.shard_leases import ShardLeases

__all__ = ["Disagreements"]

logger = logging.getLogger(__name__)

# Hosts do not see a listing, or a file that was read again, at the same moment.
UNSERVED_SECONDS = 10.0


class Disagreements:
    """Belongs to the member's thread."""

    def __init__(self, feed: str, leases: ShardLeases, own: OwnFeed, *, block_name: str, shards: int) -> None:
        """Compare what this member serves, `own`, with what the `leases` of a feed say."""
        self._feed = feed
        self._leases = leases
        self._own = own
        self._shards = shards
        self._log = BlockLog(logger, block_name)
        self._otherwise = self._objection = ""
        self._unserved: frozenset[str] = frozenset()
        self._unserved_seconds = math.inf

    def compare_shards(self, present: Iterable[Presence]) -> str:
        """Return who divides the feed otherwise and leads it, in words, and log it once; '' for nobody.

        This member leads nothing then, and can take nothing from who leads.
        """
        other = next((each for each in present if each.epochs and each.shards != self._shards), None)
        if other is None:
            return ""
        why = f"{other.host} has {counted(other.shards, 'shard')} and this collector {self._shards}"
        if other.member != self._otherwise:
            self._otherwise = other.member
            text = "cluster feed %s: %s, so it leads none, and collects for its own host; give all the same number"
            self._log.error(text, self._feed, why)
        return why

    def compare_served(self) -> None:
        """Log why this member takes no lease, if what it serves is not what leaders serve."""
        objection = self._leases.objection or ""
        if objection and objection != self._objection:
            self._log.error("cluster feed %s: this collector takes no lease: %s", self._feed, objection)
        self._objection = objection

    def compare_symbols(self, now: float, *, is_alone: bool) -> None:
        """Log which symbols have no rows: the leader of their shard does not serve them, and this member does.

        `now` is seconds of the boot clock.
        """
        leases, others = self._leases, dict[str, str]()
        for shard in () if is_alone else range(self._shards):
            served = leases.served(shard)
            if shard not in leases.epochs and leases.holder(shard) and served is not None:
                others |= dict.fromkeys(self._own.unserved(shard, served), served.where)
        unserved = frozenset(others)
        if unserved <= self._unserved:
            self._unserved, self._unserved_seconds = unserved, math.inf
        elif self._unserved_seconds == math.inf:
            self._unserved_seconds = now
        elif now - self._unserved_seconds > UNSERVED_SECONDS:
            text = "cluster feed %s: no rows of %s: %s leads them and does not serve them; give it the same symbols"
            shown, where = enumerated(sorted(unserved - self._unserved)), " ".join(sorted(set(others.values())))
            self._log.warning(text, self._feed, shown, where)
            self._unserved, self._unserved_seconds = unserved, math.inf
