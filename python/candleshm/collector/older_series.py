"""A series of a derived block whose older rows are requested, and the request for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from candleshm._core import derivation_parts
from candleshm.collector.planner import page_between
from candleshm.config import DerivedBlock
from candleshm.errors import ConfigError
from candleshm.exchanges.base import INTERVAL_MS, Exchange, KlineRequest

if TYPE_CHECKING:
    from candleshm._core import Older

__all__ = ["FetchedBlock", "OlderSeries", "fetched_blocks", "part_of_days"]

# Of these a day of a time zone is made, where the exchange has no candles of that day: the largest that fit.
PARTS_OF_DAYS = ("1h", "30m", "15m")
LONGEST_DAY_MS = INTERVAL_MS["1d"] + INTERVAL_MS["1h"]
# A page has rows beside those that are requested: the one below shows that pages join, the one above that the response
# is newer than they are.
MARGIN = 2
# So many rows that were derived as well are requested with the first page at least; more where the page has room.
SEAM_ROWS = 2
PAUSE_SECONDS_MAX = 3600.0


class FetchedBlock(NamedTuple):
    """A derived block, and the interval of which the exchange has candles for its older rows."""

    name: str
    interval: str
    below_ms: int = 0
    """How far below a candle its request begins: where it is made of smaller ones, at the next one below."""


@dataclass(slots=True)
class OlderSeries:
    """What is to be requested of one derived series. Local seconds, except names in _ms, which are exchange time."""

    block: FetchedBlock
    symbol: str
    older: Older | None = None
    """None while nothing is to be requested."""
    filled: bool = False
    """Whether it has had all its rows, or proof that there are none."""
    given_up: bool = False
    in_flight: bool = False
    failures: int = 0  # failed requests in a row
    no_progress: int = 0  # responses in a row that brought nothing
    due_seconds: float = -math.inf

    @property
    def rows(self) -> int:
        """Rows to be requested."""
        return 0 if self.older is None else self.older.rows

    def pause(self, now: float) -> None:
        """Have the next request wait, the longer the more of them were in vain."""
        in_vain = self.failures + self.no_progress
        self.due_seconds = now + min(PAUSE_SECONDS_MAX, 2.0 ** min(in_vain, 16)) if in_vain else now

    def wait_seconds(self, now: float, now_ms: int) -> float:
        """Return when the next request is due, infinity for none."""
        older = self.older
        if older is None or self.in_flight:
            return math.inf
        if older.missing_ms is not None or older.suspect_ms is not None:
            return self.due_seconds
        if older.unconfirmed_ms is not None:
            return max(self.due_seconds, now + (older.confirm_from_ms - now_ms) / 1000)
        return math.inf

    def request(self, exchange: Exchange, now_ms: int) -> KlineRequest | None:
        """Return the next request; exchange time has surely reached `now_ms`. None when there is none any more."""
        older = self.older
        if older is None:
            return None
        range_ms = older.suspect_ms
        if range_ms is None and older.missing_ms is not None:
            range_ms = self._with_seam(older.missing_ms, older.seam_end_ms, exchange)
        if range_ms is None:
            range_ms = older.unconfirmed_ms
        if range_ms is None:
            return None
        start_ms, end_ms = range_ms
        return page_between(
            self.symbol, self.block.interval, (start_ms - self.block.below_ms, end_ms), exchange, now_ms
        )

    def _with_seam(self, missing_ms: tuple[int, int], seam_end_ms: int, exchange: Exchange) -> tuple[int, int]:
        """Return a range of missing rows, and of those above it as many as its last page has room for."""
        start_ms, end_ms = missing_ms
        length_ms = INTERVAL_MS[self.block.interval]
        page_rows = exchange.page_slots(self.block.interval) - MARGIN
        room = -math.ceil((end_ms - start_ms) / length_ms) % page_rows
        rows = min(max(room, min(SEAM_ROWS, page_rows // 2)), (seam_end_ms - end_ms) // length_ms)
        return start_ms, end_ms + max(0, rows) * length_ms


def fetched_blocks(blocks: Sequence[DerivedBlock], intervals: Sequence[str]) -> list[FetchedBlock]:
    """Return the derived blocks whose older rows a market with these intervals has, in the given order."""
    found = []
    for block in blocks:
        if block.interval in intervals:
            found.append(FetchedBlock(block.name, block.interval))
        elif (interval := part_of_days(block.interval, intervals)) is not None:
            found.append(FetchedBlock(block.name, interval, LONGEST_DAY_MS))
    return found


def part_of_days(target: str, intervals: Sequence[str]) -> str | None:
    """Return the largest of `intervals` whose candles make up the days of a time zone."""
    for interval in PARTS_OF_DAYS:
        try:
            if interval in intervals and derivation_parts(interval, target) > 1:
                return interval
        except ConfigError:
            continue
    return None
