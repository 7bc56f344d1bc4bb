"""When the loop looks next, and the tasks of each series that are due by then."""

from __future__ import annotations

import math

from candleshm.collector.planner import next_tasks
from candleshm.collector.series_plan import PollPolicy, SeriesPlan

__all__ = ["Agenda"]


class Agenda:
    """Spares the loop to look through all series while nothing is due or affordable. Belongs to the loop."""

    def __init__(self, policy: PollPolicy) -> None:
        self.policy = policy
        self.look_seconds = -math.inf
        """Local time of the next look; infinity while only a response or a heartbeat can change anything."""
        self.looked_seconds = -math.inf
        """Local time at which the loop has looked for all that was due, the last time that it did."""

    def look_now(self) -> None:
        """Look at once."""
        self.look_seconds = -math.inf

    def look_by(self, due_seconds: float) -> None:
        """Look at `due_seconds` at the latest.

        While every worker is busy, or weight is waited for, the next response or heartbeat causes a look: to name a
        later moment would postpone that.
        """
        if self.look_seconds < math.inf:
            self.look_seconds = min(self.look_seconds, due_seconds)

    def plan(self, plan: SeriesPlan, now_seconds: float, now_ms: int) -> None:
        """Compute the tasks of a series without a request on its way."""
        plan.tasks = next_tasks(plan, self.policy, now_seconds, now_ms)
        self.look_by(min((task.due_seconds for task in plan.tasks), default=math.inf))
