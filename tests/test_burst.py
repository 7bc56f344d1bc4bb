"""A start spends most of a window at once: never more than the budget, and a third is left for everything else."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from candleshm.ratelimit.budget import PrivateMemory, WeightBudget

LIMIT, SHARE = 6000, 0.75
BUDGET = 4500
# What the accounts can hold is spent or not, whatever the clock shows.
SAVED = 150


@dataclass
class Sender:
    """An owner that sends whatever it may, from `starts` to `ends`, with so many requests on their way."""

    budget: WeightBudget
    weights: tuple[int, ...]
    loading: bool = False
    closing: bool = False
    starts: float = 0.0
    ends: float = math.inf
    workers: int = 8
    latency: float = 0.05
    spans: list[tuple[float, float, int]] = field(default_factory=list)
    waited: float = 0.0
    wanted: int | None = None
    """Weight that it has to send; None for more and more."""

    def weight_between(self, start: float, end: float) -> int:
        return sum(weight for sent, _, weight in self.spans if start <= sent < end)


def run(senders: Iterable[Sender], until_seconds: float, random: Random) -> None:
    """Let them send until then, each as the loop of a collector does: it claims again after the wait, at most 0.5 s."""
    events: list[tuple[float, int, str, Sender, tuple[int, float, int]]] = []
    numbers = itertools.count()
    senders = list(senders)
    idle = {id(sender): sender.workers for sender in senders}
    due_weight = {id(sender): random.choice(sender.weights) for sender in senders}

    def plan(at: float, what: str, sender: Sender, request: tuple[int, float, int] = (0, 0.0, 0)) -> None:
        heapq.heappush(events, (at, next(numbers), what, sender, request))

    for sender in senders:
        plan(sender.starts, "look", sender)
    while events and events[0][0] < until_seconds:
        now, _, what, sender, (ticket, sent, weight) = heapq.heappop(events)
        if what == "end":
            sender.budget.finished(ticket, now)
            sender.spans.append((sent, now, weight))
            idle[id(sender)] += 1
        while idle[id(sender)] and now < sender.ends and (sender.wanted is None or sender.wanted > 0):
            weight = due_weight[id(sender)]
            ticket, wait = sender.budget.claim(weight, now, closing=sender.closing, loading=sender.loading)
            if not ticket:
                sender.waited += min(wait, 0.5)
                plan(now + min(wait, 0.5) + random.uniform(0.0, 0.005), "look", sender)
                break
            if sender.wanted is not None:
                sender.wanted -= weight
            idle[id(sender)] -= 1
            due_weight[id(sender)] = random.choice(sender.weights)
            plan(now + sender.latency * random.uniform(0.5, 2.0), "end", sender, (ticket, now, weight))


def assert_within(budget: int, senders: Iterable[Sender]) -> None:
    """No 60 s hold more than the budget, where a request counts from its sending until 60 s after its response."""
    changes = []
    for sender in senders:
        for sent, ended, weight in sender.spans:
            changes += [(sent, 1, weight), (ended + 60.0, 0, -weight)]
    counted = 0
    for _, _, change in sorted(changes):
        counted += change
        assert counted <= budget


def owners(count: int, limit: int = LIMIT) -> list[WeightBudget]:
    memory = PrivateMemory()
    return [WeightBudget(limit, SHARE, memory=memory, now_seconds=0.0) for _ in range(count)]


def spent_at_once(budget: WeightBudget, now: float, weight: int = 2) -> int:
    """Send requests that load, each finished at once, until one has to wait; return their weight."""
    spent = 0
    while (ticket := budget.claim(weight, now, loading=True)[0]) != 0:
        budget.finished(ticket, now)
        spent += weight
    return spent


def test_two_thirds_of_the_budget_may_be_spent_at_once_and_again_a_window_later() -> None:
    budget = WeightBudget(LIMIT, SHARE)
    assert not budget.is_burst_spent(0.0)

    assert 3000 <= spent_at_once(budget, 0.0) <= 3000 + SAVED / 2
    assert budget.is_burst_spent(0.0)
    # Half of what the account saved is left to everything else, which has it at once.
    assert budget.claim(2, 0.0)[0]
    assert budget.is_burst_spent(59.9)
    assert spent_at_once(budget, 59.9) <= BUDGET / 3
    assert not budget.is_burst_spent(60.1)
    assert spent_at_once(budget, 60.1) > 2000


def test_a_request_that_does_not_load_is_never_part_of_a_burst() -> None:
    budget = WeightBudget(LIMIT, SHARE)
    spent = sum(2 for _ in itertools.takewhile(bool, (budget.claim(2, 0.0)[0] for _ in range(3000))))
    assert spent == SAVED


def test_for_one_window_after_a_stop_nothing_bursts() -> None:
    budget = WeightBudget(LIMIT, SHARE)
    assert spent_at_once(budget, 0.0) >= 3000
    budget.stop(100.0, 1.0)
    assert spent_at_once(budget, 100.9) == 0
    assert spent_at_once(budget, 102.0) <= SAVED
    budget.reserve(800, 110.0)
    assert spent_at_once(budget, 160.0) <= SAVED
    assert spent_at_once(budget, 161.1) > 2000


def test_strangers_at_this_address_leave_less_for_a_burst() -> None:
    budget = WeightBudget(LIMIT, SHARE)
    budget.finished(budget.sent(1, 0.0), 0.0, reported=3000)
    assert 1000 <= spent_at_once(budget, 0.0) <= 1500


def test_a_third_flows_evenly_to_others_while_those_who_load_take_what_they_can() -> None:
    first, second, other = owners(3)
    loaders = [Sender(first, (2,), loading=True), Sender(second, (2,), loading=True)]
    steady = Sender(other, (1, 2, 5), starts=12.0)
    run([*loaders, steady], 140.0, Random(1))

    assert_within(BUDGET, [*loaders, steady])
    # Everything that it can want of any window is a third; it never stands still for long.
    for start in (15, 30, 60, 75):
        assert steady.weight_between(start, start + 60) >= BUDGET / 3 * 0.9
    sent = sorted(at for at, _, _ in steady.spans)
    assert max(later - earlier for earlier, later in itertools.pairwise(sent)) < 2.0
    # Both loaders had the same speed and the same share.
    shares = [loader.weight_between(0.0, 120.0) for loader in loaders]
    assert min(shares) > 0.8 * max(shares)


def test_those_who_load_take_what_nobody_else_wants() -> None:
    (budget,) = owners(1)
    loader = Sender(budget, (2,), loading=True)
    run([loader], 150.0, Random(2))

    assert_within(BUDGET, [loader])
    assert loader.weight_between(0.0, 14.0) >= 3000
    assert loader.weight_between(0.0, 136.0) >= 2 * BUDGET * 0.9


def test_two_that_start_at_once_share_the_burst() -> None:
    loaders = [Sender(budget, (2,), loading=True) for budget in owners(2)]
    run(loaders, 20.0, Random(3))
    shares = [loader.weight_between(0.0, 20.0) for loader in loaders]
    assert sum(shares) >= 3000
    assert min(shares) > 0.9 * max(shares)


def test_closing_candles_of_series_that_are_loaded_never_wait_for_a_burst() -> None:
    loading, loaded = owners(2)
    loader = Sender(loading, (2,), loading=True)
    tails = Sender(loaded, (2,), starts=5.0)
    loaded.reserve(800, 5.0)
    rounds = [Sender(loaded, (2,), closing=True, starts=start, wanted=800) for start in (12.0, 72.0, 132.0)]
    run([loader, tails, *rounds], 145.0, Random(4))

    assert_within(BUDGET, [loader, tails, *rounds])
    for number, one in enumerate(rounds):
        # Eight at a time and 0.06 s each: three seconds for four hundred.
        assert one.weight_between(one.starts, one.starts + 6.0) == 800, number
    assert tails.weight_between(10.0, 70.0) >= 0.8 * (BUDGET / 3 - 800)


def test_a_pool_that_is_busy_is_shared_by_turns_as_without_a_burst() -> None:
    live, starting = owners(2)
    tails = Sender(live, (2,))
    loader = Sender(starting, (10,), loading=True, starts=70.0)
    run([tails, loader], 131.0, Random(5))

    assert_within(BUDGET, [tails, loader])
    assert loader.weight_between(70.0, 130.0) > 1000
    assert tails.weight_between(70.0, 130.0) > BUDGET / 3 * 0.9


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(
    st.integers(0, 2**32),
    st.sampled_from([(200, (1, 2)), (2400, (1, 2, 5, 10)), (6000, (2,))]),
    st.integers(1, 3),
    st.floats(0.0, 50.0),
    st.sampled_from([0.01, 0.05, 0.5, 3.0]),
)
def test_whoever_starts_when_no_window_exceeds_the_budget_and_a_third_is_left(
    seed: int, kind: tuple[int, tuple[int, ...]], loaders: int, other_starts: float, latency: float
) -> None:
    limit, weights = kind
    random = Random(seed)
    *starting, other, live = owners(loaders + 2, limit)
    budget = other.budget
    closing = random.choice([0, limit // 40, limit // 12])
    live.reserve(closing, 0.0)
    senders = [
        Sender(one, weights, loading=True, starts=random.uniform(0, 80), latency=latency, ends=random.choice([90, 250]))
        for one in starting
    ]
    steady = Sender(other, weights[:2], starts=other_starts, latency=latency)
    rounds = [
        Sender(live, weights[:1], closing=True, starts=at, latency=latency, wanted=closing - max(weights))
        for at in (30.0, 90.0)
    ]
    run([*senders, steady, *rounds], 150.0, random)
    assert_within(budget, [*senders, steady, *rounds])
    for start in range(math.ceil(other_starts) + 5, 90, 10):
        left = budget / 3 - closing
        # Where its few workers could send so much.
        possible = 8 / (latency * 1.25) * sum(weights[:2]) / len(weights[:2]) * 60
        assert steady.weight_between(start, start + 60) >= min(left, possible) * 0.5 - 20, start
