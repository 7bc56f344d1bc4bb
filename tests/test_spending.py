"""One request and its budget: how long it waits, and what a refusal stops."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from candleshm.errors import RateLimited
from candleshm.exchanges.base import Response
from candleshm.exchanges.binance import Binance
from candleshm.ratelimit.budget import WeightBudget
from candleshm.ratelimit.spending import LOOK_SECONDS, claim, refusal_of
from candleshm.rest.client import Client


@dataclass
class HandClock:
    """A clock that moves when somebody waits."""

    seconds: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def monotonic_seconds(self) -> float:
        return self.seconds

    def epoch_ms(self) -> int:
        return 1_800_000_000_000 + round(self.seconds * 1000)

    def sleep_seconds(self, until_seconds: float) -> float:
        return max(0.0, until_seconds - self.seconds)

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.seconds += seconds
        return True


def response_of(status: int, headers: dict[str, str], clock: HandClock) -> Response:
    return Response("http://exchange/time", status, headers, b"{}", clock.seconds, clock.seconds, None)


def test_a_claim_waits_for_room_in_short_pauses() -> None:
    clock, budget = HandClock(), WeightBudget(100, 1.0)
    budget.stop(3.2, clock.seconds)
    assert claim(budget, clock, 2, clock.pause) == (1, 0.0)
    assert clock.seconds >= 1003.2
    assert max(clock.pauses) == LOOK_SECONDS


def test_a_claim_ends_at_its_deadline_and_at_once_when_the_pool_is_stopped_for_longer() -> None:
    clock, budget = HandClock(), WeightBudget(100, 1.0)
    budget.stop(60.0, clock.seconds)
    number, wait_seconds = claim(budget, clock, 2, clock.pause, deadline_seconds=clock.seconds + 5)
    assert (number, clock.pauses) == (0, [])
    assert wait_seconds > 0
    number, _ = claim(budget, clock, 2, lambda _: False)
    assert number == 0


def test_a_refusal_stops_the_pool_before_its_request_counts_as_over() -> None:
    clock, budget = HandClock(), WeightBudget(100, 1.0)
    error = refusal_of(response_of(429, {"retry-after": "7"}, clock), budget, Binance("SPOT"), clock)
    assert isinstance(error, RateLimited)
    assert budget.blocked_until_seconds == clock.seconds + 7
    assert refusal_of(response_of(200, {}, clock), budget, Binance("SPOT"), clock) is None


def test_nobody_can_leave_between_a_refusal_and_the_end_of_its_request() -> None:
    clock, budget = HandClock(), WeightBudget(100, 1.0)
    blocked_at_end: list[float] = []

    class Refusing:
        def fetch(self, url: str) -> Response:
            return response_of(429, {"retry-after": "7"}, clock)

    ended = budget.finished

    def watch(ticket: int, now_seconds: float, reported: int | None = None) -> None:
        blocked_at_end.append(budget.blocked_until_seconds)
        ended(ticket, now_seconds, reported)

    budget.finished = watch  # type: ignore[method-assign]
    client = Client(Binance("SPOT"), Refusing(), clock, budget, 30.0)
    with pytest.raises(RateLimited) as refused:
        client.fetch("http://exchange/time", 2, clock.pause, lambda: None)
    assert refused.value.retry_after == 7
    assert blocked_at_end == [clock.seconds + 7]
