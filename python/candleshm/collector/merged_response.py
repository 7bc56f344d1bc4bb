"""`MergedResponse`: a response about candles that was merged, and what it teaches the plan of its series."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from candleshm.collector.series_plan import IDLE_RESPONSES_MAX, Kind, PollPolicy, SeriesPlan
from candleshm.exchanges.base import INTERVAL_MS

if TYPE_CHECKING:
    from candleshm._core import Ingested

__all__ = ["MergedResponse"]


@dataclass(frozen=True, slots=True)
class MergedResponse:
    """What was requested, and when: all that a plan learns from beside the rows. Recordings have it (`recording`)."""

    kind: Kind
    limit: int
    """Rows requested."""
    end_ms: int | None
    """Open time of the last row requested; None for the newest."""
    sent_seconds: float
    """Local time at which the request left."""
    sent_ms: int
    """Exchange time that had surely been reached by then."""
    received_ms: int
    """Exchange time that had surely not been passed when the response was there."""
    now_seconds: float
    """Local time at which the loop takes the response in."""
    now_ms: int
    """Exchange time that had surely been reached by then."""

    @property
    def reaches_now(self) -> bool:
        """Whether the newest rows were requested."""
        return self.kind in (Kind.TAIL, Kind.CLOSING)

    def lacks_all(self, plan: SeriesPlan, ingested: Ingested) -> bool:
        """Return whether the response has no rows of a series that had some: it cannot be used.

        Rows older than a listing are requested by backfills and audits, and do not exist.
        """
        return not ingested.rows and plan.trading and not plan.is_empty and self.reaches_now

    def teach(self, plan: SeriesPlan, ingested: Ingested, policy: PollPolicy, *, on_change: bool) -> bool:
        """Let the plan take in what the response changed.

        `on_change` is that of the exchange's `StreamRules`. Returns whether the response had something newer than a
        stream that is open.
        """
        is_ahead = self._judge_stream(plan, ingested, on_change=on_change)
        self._settle_suspicion(plan, policy)
        plan.learn(
            ingested,
            sent_seconds=self.sent_seconds,
            sent_ms=self.sent_ms,
            now_seconds=self.now_seconds,
            kind=self.kind,
        )
        if ingested.suspect_open_ms is not None:
            # What was traded shows in REST a moment later.
            plan.mark_suspect(ingested.suspect_open_ms, self.now_ms + policy.settle_ms)
        plan.note_missing(ingested)
        return is_ahead

    def _judge_stream(self, plan: SeriesPlan, ingested: Ingested, *, on_change: bool) -> bool:
        """Distinguish an idle stream from a stalled one: a response had something newer that was not streamed."""
        if self.kind is not Kind.TAIL or not plan.is_streamed or not plan.loaded:
            return False
        if ingested.changed:
            plan.idle_responses = 0
            return True
        if on_change and plan.last_event_seconds > -math.inf:
            plan.idle_responses = min(IDLE_RESPONSES_MAX, plan.idle_responses + 1)
        return False

    def _settle_suspicion(self, plan: SeriesPlan, policy: PollPolicy) -> None:
        """End the suspicion of rows that are in the response to a request that was sent late enough."""
        if plan.suspect_ms is None or self.sent_ms < plan.suspect_since_ms:
            return
        if self.end_ms is not None:
            newest_ms = latest_ms = self.end_ms
        else:
            # The response ended somewhere between these two.
            newest_ms, latest_ms = self.sent_ms, self.received_ms
        oldest_ms = latest_ms - (self.limit - 1) * INTERVAL_MS[policy.interval]
        if oldest_ms <= plan.suspect_ms <= newest_ms:
            plan.suspect_ms = None
