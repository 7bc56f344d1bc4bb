"""`ReplayedPlans`: the plans of a recorded collector learn once more what they learned, and the planner asks again.

The rows come from the replay, times and failures from the notes of the recording. At each request that was sent the
plan here has to be what it was there, and the planner has to ask for that very request; both differences are counted.
After one the plan goes on as it was recorded, so that each difference counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from candleshm.collector.loading import gives_up, tries_max
from candleshm.collector.merged_response import MergedResponse
from candleshm.collector.planner import next_tasks, request_for
from candleshm.collector.recording import NOTES, plan_of
from candleshm.collector.series_plan import Kind, PollPolicy, SeriesPlan
from candleshm.collector.stream_look import StreamLook
from candleshm.exchanges.base import INTERVAL_MS
from candleshm.exchanges.binance import Binance

if TYPE_CHECKING:
    from candleshm._core import RecordingPlayer

__all__ = ["ReplayedPlans"]

# A task was planned by the bounds of the exchange's clock at that time, which have drifted apart since.
DUE_SLACK_SECONDS = 0.1
# What a plan does not learn from responses and rows: it is as it was recorded.
DECIDED_ELSEWHERE = ("jitter_seconds", "trading", "ended_ms", "quiet_until_ms", "is_streamed", "retry_seconds")
LEARNED = [item.name for item in fields(SeriesPlan) if item.name not in (*DECIDED_ELSEWHERE, "tasks")]


class ReplayedPlans:
    """See the module. A series counts from the start of its plan, or from its first request, in what is recorded."""

    def __init__(self, player: RecordingPlayer) -> None:
        """Follow a recording while `player` plays it."""
        self.requests: Counter[str] = Counter()
        """Requests that were sent, by kind."""
        self.unasked = 0
        """Of these, the ones that the planner does not ask for."""
        self.first_unasked: str | None = None
        """The first of them: when, what, and why not."""
        self.strayed = 0
        """Of all, the ones whose plan came out otherwise here."""
        self.first_strayed: str | None = None
        """The first of them: when, whose plan, and what differs."""
        self._player = player
        self._losses = -1
        self._plans: dict[str, SeriesPlan] = {}
        self._policy: PollPolicy | None = None
        self._exchange = Binance("SPOT")
        self._on_change = False
        self._tries_max = 0
        self._is_followed = False

    def take(self, text: str, run: Mapping[str, Any]) -> None:
        """Take a note in, right after what was recorded before it. Another note than `Recording` writes is left out.

        Raises what reading a note of another version raises: ValueError, TypeError, KeyError, AttributeError.
        """
        note = msgspec.json.decode(text)
        if self._player.losses != self._losses:
            self._losses = self._player.losses
            self._plans.clear()
        if "policy" in note:
            self._begin(PollPolicy(**note["policy"]), run, note.get("notes", 1))
        elif self._policy is None:
            return
        elif "request" in note:
            self._take_request(note["request"], self._policy)
        elif "plan" in note:
            self._take_plan(note["symbol"], note["plan"]["jitter_seconds"])
        elif (plan := self._plans.get(note.get("symbol"))) is not None:
            self._teach(plan, note, self._policy)
            gives_up(plan, self._tries_max)

    def _begin(self, policy: PollPolicy, run: Mapping[str, Any], notes: int) -> None:
        self._policy = policy
        self._exchange = Binance(run["market"], price=run["price"])
        self._on_change = self._exchange.stream_rules(policy.interval).on_change
        self._tries_max = tries_max(self._exchange, policy)
        self._is_followed = notes >= NOTES

    def _take_plan(self, symbol: str, jitter_seconds: float) -> None:
        self._plans.pop(symbol, None)
        state = self._player.state(symbol)
        if state is not None:
            self._plans[symbol] = SeriesPlan.begun(symbol, state, jitter_seconds)

    def _teach(self, plan: SeriesPlan, note: Mapping[str, Any], policy: PollPolicy) -> None:
        """Let a plan learn what it learned. Where the rows are not known here, it waits for its next request."""
        if "response" in note:
            told = note["response"]
            response = MergedResponse(**told | {"kind": Kind(told["kind"])})
            plan.trading, plan.is_streamed = note["trading"], note["is_streamed"]
            ingested = self._player.ingested(plan.symbol)
            if ingested is None:
                del self._plans[plan.symbol]
            elif not response.lacks_all(plan, ingested):
                response.teach(plan, ingested, policy, on_change=self._on_change)
        elif "failure" in note:
            plan.fail(refused=note["failure"]["refused"])
        elif "look" in note:
            look = StreamLook(
                tuple((reason, at_ms) for reason, at_ms in note["look"]["repairs"]), note["look"]["now_ms"]
            )
            state = self._player.state(plan.symbol)
            if state is None:
                del self._plans[plan.symbol]
            else:
                look.teach(plan, state, policy, may_pause=self._on_change)

    def _take_request(self, told: Mapping[str, Any], policy: PollPolicy) -> None:
        self.requests[told["kind"]] += 1
        recorded = plan_of(told["plan"])
        plan = self._plans.get(recorded.symbol) if self._is_followed else None
        if plan is None:
            plan = recorded
        for name in DECIDED_ELSEWHERE:
            setattr(plan, name, getattr(recorded, name))
        differing = [name for name in LEARNED if getattr(plan, name) != getattr(recorded, name)]
        kind, when = Kind(told["kind"]), _utc(told["bounds_ms"][0])
        if differing:
            self.strayed += 1
            name = differing[0]
            here, there = getattr(plan, name), getattr(recorded, name)
            text = f"{when}, plan of {plan.symbol}: {name} is {here} here, and was {there}"
            self.first_strayed = self.first_strayed or text
        reason = self._objection(plan, kind, told, policy)
        if reason is not None:
            self.unasked += 1
            text = f"{when}, {kind.value} of {plan.symbol} ({_window(told)}): {reason}"
            self.first_unasked = self.first_unasked or text
        self._plans[recorded.symbol] = recorded

    def _objection(self, plan: SeriesPlan, kind: Kind, told: Mapping[str, Any], policy: PollPolicy) -> str | None:
        """Return why the planner does not ask for a request that was sent; None where it does."""
        now, (earliest_ms, latest_ms) = told["now_seconds"], told["bounds_ms"]
        if kind is Kind.AUDIT:
            # Which rows are checked is chosen at random.
            return None
        if kind is Kind.HOLE:
            end_ms = told["end_ms"] + 1
            start_ms = end_ms - told["limit"] * INTERVAL_MS[policy.interval]
            holes = (gap for gap in self._player.gaps(plan.symbol) if gap.kind == "hole")
            is_there = any(hole.start_ms < end_ms and start_ms < hole.end_ms for hole in holes)
            return None if is_there else "there is no hole here"
        due_seconds = {task.kind: task.due_seconds for task in next_tasks(plan, policy, now, earliest_ms)}
        if kind not in due_seconds:
            return f"the planner wants {', '.join(other.value for other in due_seconds) or 'nothing'} here"
        if due_seconds[kind] > now + DUE_SLACK_SECONDS:
            return f"it is due {due_seconds[kind] - now:.1f} s later here"
        wanted = request_for(plan, kind, self._exchange, policy, earliest_ms, latest_ms)
        here = {"limit": wanted.limit, "start_ms": wanted.start_ms, "end_ms": wanted.end_ms}
        return None if all(here[name] == told[name] for name in here) else f"the planner asks for {_window(here)} here"


def _window(request: Mapping[str, Any]) -> str:
    """Return which rows were requested, in words."""
    start = "" if request["start_ms"] is None else f" from {request['start_ms']}"
    end = "" if request["end_ms"] is None else f" until {request['end_ms']}"
    return f"{request['limit']} rows{start}{end}"


def _utc(moment_ms: int) -> str:
    return f"{datetime.fromtimestamp(moment_ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}.{moment_ms % 1000:03d} UTC"
