"""`StreamLook`: a look at what the stream of a series brought, and what it teaches the plan of the series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from candleshm.collector.series_plan import PollPolicy, SeriesPlan

if TYPE_CHECKING:
    from candleshm._core import SeriesState

__all__ = ["StreamLook"]


@dataclass(frozen=True, slots=True)
class StreamLook:
    """What a plan learns from beside the rows. A recording has it, see `recording`."""

    repairs: tuple[tuple[str, int], ...]
    """Repairs that the stream wishes: reason (see `Pushed.repair_requests`) and open time."""
    now_ms: int
    """Exchange time that had surely been reached."""

    def teach(self, plan: SeriesPlan, state: SeriesState, policy: PollPolicy, *, may_pause: bool) -> None:
        """Let the plan take in where events have brought the series. `may_pause`: where streams send changes only."""
        for reason, open_ms in self.repairs:
            if reason == "rows":
                plan.no_progress = 0
            elif reason == "suspect":
                # What was traded shows in REST a moment later.
                plan.mark_suspect(open_ms, self.now_ms + policy.settle_ms)
        if state.last_event_seconds > plan.last_event_seconds:
            plan.last_event_seconds = state.last_event_seconds
            plan.idle_responses = 0
        plan.stream_pause_seconds = state.stream_pause_seconds if may_pause else 0.0
        plan.follow(state)
        plan.note_missing(state)
