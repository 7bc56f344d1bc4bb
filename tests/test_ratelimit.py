"""The weight account: never more than the share in any window, even pace, stops without a burst after them."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candleshm.ratelimit.budget import HELD_SECONDS_MAX, PROBE_SECONDS, PrivateMemory, WeightBudget


def spend(budget: WeightBudget, until_seconds: float, weight: int, *, closing: bool = False) -> list[float]:
    """Send as fast as the budget allows, each finished at once, and return when."""
    now, sent = 0.0, []
    while now < until_seconds:
        delay = budget.delay_seconds(weight, now, closing=closing)
        if delay > 0:
            now += delay
            continue
        budget.finished(budget.sent(weight, now, closing=closing), now)
        sent.append(now)
    return sent


@pytest.mark.parametrize("seed", range(5))
def test_no_window_holds_more_than_the_share_of_the_limit(seed: int) -> None:
    random = Random(seed)
    limit, share = random.choice([50, 1200, 6000]), random.choice([0.1, 0.75, 1.0])
    budget = WeightBudget(limit, share)
    budget.reserve(random.choice([0, limit // 10, limit]), 0.0)
    now = 0.0
    on_their_way: list[tuple[float, int, int, float]] = []
    spans: list[tuple[float, float, int]] = []
    while now < 300:
        while on_their_way and on_their_way[0][0] <= now:
            answered_at, ticket, weight, sent_at = heapq.heappop(on_their_way)
            budget.finished(ticket, answered_at)
            spans.append((sent_at, answered_at, weight))
        weight, closing = random.choice([1, 2, 2, 5]), random.random() < 0.3
        delay = budget.delay_seconds(weight, now, closing=closing)
        if delay == 0 and len(on_their_way) < 8:
            ticket = budget.sent(weight, now, closing=closing)
            heapq.heappush(on_their_way, (now + random.uniform(0.01, 12.0), ticket, weight, now))
        else:
            next_answer = on_their_way[0][0] if on_their_way else math.inf
            now = min(next_answer, now + max(delay, 0.001) if delay < math.inf else math.inf)
    # A request counts from its sending until a window after its response; the worst moment is right after a sending.
    for moment, _, _ in spans:
        counted = sum(weight for sent_at, answered_at, weight in spans if sent_at <= moment < answered_at + 60)
        assert counted <= limit * share
    assert sum(weight for _, _, weight in spans) > 0


def test_nearly_the_whole_budget_is_used_and_evenly() -> None:
    budget = WeightBudget(6000, 0.75)

    sent = spend(budget, 600.0, 2)

    assert len(sent) * 2 / 600 == pytest.approx(4500 / 60, rel=0.05)
    # Two seconds' worth may leave at once, everything after that is paced: no minute with a burst and a standstill.
    assert sum(moment == 0.0 for moment in sent) * 2 == pytest.approx(150, abs=2)
    assert max(later - earlier for earlier, later in itertools.pairwise(sent)) < 0.1


def test_a_round_of_closing_candles_leaves_at_once_every_minute_and_the_rest_stays_even() -> None:
    budget = WeightBudget(6000, 0.75)
    budget.reserve(800, 0.0)
    now, others, waited = 0.0, [], []
    for minute in range(1, 6):
        while now < minute * 60:
            delay = budget.delay_seconds(2, now)
            if delay == 0:
                budget.finished(budget.sent(2, now), now)
                others.append(now)
            now += min(delay, minute * 60 - now)
        for _ in range(400):
            delay = budget.delay_seconds(2, now, closing=True)
            now += delay
            waited.append(delay)
            budget.finished(budget.sent(2, now, closing=True), now)

    # The first minute's round waits for the account to fill; from then on none does.
    assert sum(waited[400:]) < 1.0
    assert len(others) * 2 / now == pytest.approx((4500 - 800) / 60, rel=0.06)
    assert max(later - earlier for earlier, later in itertools.pairwise(others)) < 1.0


def test_closing_candles_beyond_what_is_reserved_take_part_in_the_common_pace() -> None:
    budget = WeightBudget(6000, 0.75)
    budget.reserve(100_000, 0.0)

    sent = spend(budget, 600.0, 2, closing=True)

    assert len(sent) * 2 / 600 == pytest.approx(4500 / 60, rel=0.1)
    assert budget.delay_seconds(2, 600.0) < 1.0


def test_after_a_ban_nothing_bursts_not_even_closing_candles() -> None:
    budget = WeightBudget(6000, 0.75)
    budget.stop(30.0, 0.0)

    assert budget.delay_seconds(1, 10.0, closing=True) >= 20.0
    assert budget.blocked_until_seconds == 30.0
    sent = spend(budget, 40.0, 2, closing=True)
    assert min(sent) >= 30.0
    assert len(sent) * 2 <= 10.0 * 75 + 2
    assert sum(moment < 31.0 for moment in sent) * 2 <= 75 + 2


def test_a_shorter_stop_does_not_end_a_longer_one() -> None:
    budget = WeightBudget(6000, 0.75)
    budget.stop(100.0, 0.0)
    budget.stop(5.0, 1.0)

    assert budget.blocked_until_seconds == 100.0


def test_other_programs_at_this_address_are_respected() -> None:
    budget = WeightBudget(1000, 0.75)
    budget.finished(budget.sent(1, 0.0), 0.0, reported=760)

    assert budget.used(0.0) == 760
    assert budget.delay_seconds(1, 0.0) == PROBE_SECONDS
    # One probe, then nothing until its response shows the used weight.
    probe = budget.sent(1, PROBE_SECONDS)
    assert budget.delay_seconds(1, PROBE_SECONDS) == math.inf
    budget.finished(probe, PROBE_SECONDS, reported=5)
    assert budget.delay_seconds(1, PROBE_SECONDS) == 0


def test_an_old_report_no_longer_counts() -> None:
    budget = WeightBudget(1000, 0.75)
    budget.finished(budget.sent(1, 0.0), 0.0, reported=900)

    assert budget.used(61.0) == 0
    assert budget.delay_seconds(1, 61.0) == 0


def test_a_request_without_a_response_counts_for_as_long_as_it_is_out() -> None:
    budget = WeightBudget(100, 0.5)
    ticket = budget.sent(50, 0.0)

    assert budget.delay_seconds(1, 1000.0, closing=True) == math.inf
    budget.finished(ticket, 1000.0)
    assert budget.delay_seconds(1, 1000.0, closing=True) == 60.0
    assert budget.used(1060.0) == 0


def test_a_request_dearer_than_the_budget_leaves_when_nothing_else_counts() -> None:
    budget = WeightBudget(10, 0.5)

    assert budget.delay_seconds(20, 0.0, closing=True) == 0
    budget.finished(budget.sent(20, 0.0), 0.0)
    assert 0 < budget.delay_seconds(20, 1.0, closing=True) < math.inf


def test_the_stated_limit_replaces_the_assumed_one() -> None:
    budget = WeightBudget(6000, 0.5)
    budget.set_limit(100, 60.0, 0.0)

    assert (budget.limit, budget.budget) == (100, 50)
    sent = spend(budget, 59.0, 1)
    assert len(sent) <= 50


def test_a_dear_request_finds_room_between_cheap_ones_of_another_feed() -> None:
    budget = WeightBudget(150, 0.75)
    spend(budget, 20.0, 2)
    now, left = 20.0, False
    while not left and now < 60.0:
        # The cheap one always claims first, and is refused while the expensive one waits.
        ticket, _ = budget.claim(2, now)
        if ticket:
            budget.finished(ticket, now)
        ticket, delay = budget.claim(20, now, closing=True, urgent=True)
        if ticket:
            budget.finished(ticket, now)
            left = True
        else:
            refused, wait = budget.claim(2, now)
            assert refused == 0
            assert wait == pytest.approx(min(delay, HELD_SECONDS_MAX), abs=0.4)
        now += 0.05
    assert left
    now += 0.5 + budget.delay_seconds(2, now)
    assert budget.claim(2, now)[0]


def test_owners_take_turns_whatever_their_requests_cost() -> None:
    memory = PrivateMemory()
    cheap, dear = (WeightBudget(150, 0.75, memory=memory, now_seconds=0.0) for _ in range(2))
    spend(cheap, 20.0, 1)
    left = {1: 0, 5: 0}
    for step in range(6000):
        now = 20.0 + step * 0.01
        # The cheap one claims all the time, and always first.
        for budget, weight in ((cheap, 1), (dear, 5)):
            ticket, _ = budget.claim(weight, now)
            if ticket:
                budget.finished(ticket, now)
                left[weight] += 1
    assert left[5] >= 10
    assert abs(left[1] - left[5]) <= 2


def test_who_gives_up_its_turn_or_never_comes_back_holds_nobody_up() -> None:
    memory = PrivateMemory()
    first, second = (WeightBudget(150, 0.75, memory=memory, now_seconds=0.0) for _ in range(2))
    spend(first, 20.0, 2)
    assert second.claim(20, 20.0)[0] == 0
    assert first.claim(2, 22.0)[0] == 0
    assert first.claim(2, 20.0 + HELD_SECONDS_MAX + 1.0)[0]
    assert second.claim(20, 25.0)[0] == 0
    assert first.claim(1, 26.0)[0] == 0
    second.give_up(26.0)
    assert first.claim(1, 26.0)[0]


def test_who_waits_urgently_and_never_comes_back_holds_nobody_up() -> None:
    budget = WeightBudget(150, 0.75)
    spend(budget, 20.0, 2)
    assert budget.claim(20, 20.0, urgent=True)[0] == 0
    assert budget.claim(2, 20.0)[0] == 0
    assert budget.claim(2, 20.0 + HELD_SECONDS_MAX + 1.0)[0]


def test_owners_of_a_pool_share_the_strictest_limit_and_one_reserve() -> None:
    memory = PrivateMemory()
    budget, other = WeightBudget(6000, 0.75, memory=memory), WeightBudget(6000, 0.5, memory=memory)
    budget.set_limit(6000, 60.0, 0.0)
    other.set_limit(2400, 60.0, 0.0)
    assert (budget.limit, budget.budget) == (2400, 1200)

    def saved(now: float) -> int:
        tickets = list(itertools.takewhile(bool, (budget.claim(1, now, closing=True)[0] for _ in range(2400))))
        return len(tickets)

    budget.reserve(100, 0.0)
    other.reserve(150, 0.0)
    both = saved(120.0)
    assert both >= 250
    other.leave(120.0)
    assert (budget.limit, budget.budget) == (6000, 4500)
    budget.set_limit(2400, 60.0, 120.0)
    for ticket in range(1, both + 1):
        budget.finished(ticket, 120.0)
    assert both - 150 <= saved(240.0) < both - 100


def test_claims_of_many_threads_never_exceed_the_budget() -> None:
    budget = WeightBudget(400, 0.5)
    tickets: list[int] = []

    def take() -> None:
        while (ticket := budget.claim(1, 0.0)[0]) != 0:
            tickets.append(ticket)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(tickets)) == len(tickets)
    # What an account saves is all that may leave in one moment.
    assert len(tickets) == 20


Operation = tuple[str, int, int, float]

operations = st.lists(
    st.tuples(
        st.sampled_from(["claim", "claim", "claim", "closing", "urgent", "finished", "stop", "reserve", "die"]),
        st.integers(0, 2),
        st.integers(1, 40),
        st.sampled_from([0.0, 0.0, 0.001, 0.05, 1.0, 7.0, 59.9, 60.0]),
    ),
    max_size=120,
)


class ManyProcesses(PrivateMemory):
    """Memory of owners that tests may let die, each as a process of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.newest = 0
        self.dead: set[int] = set()

    def hold(self, token: int) -> None:
        """Remember who came last."""
        self.newest = token

    def is_alive(self, token: int) -> bool:
        """Return whether the test let it live."""
        return token not in self.dead


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([40, 120, 1000]), operations)
def test_owners_together_never_do_more_than_a_plain_list_of_events_allows(limit: int, steps: list[Operation]) -> None:
    memory = ManyProcesses()
    owners = [WeightBudget(limit, share, memory=memory, now_seconds=0.0) for share in (0.9, 0.5, 0.75)]
    processes = [owner._token for owner in owners]
    # What the rules speak of, as it happened: [owner, weight, sent, ended, ticket].
    events: list[list[float]] = []
    stopped_until = now = 0.0

    def counting(moment: float) -> float:
        return sum(weight for _, weight, _, ended, _ in events if moment < ended + 60)

    for action, number, weight, passed in steps:
        now += passed
        owner = owners[number]
        out = [event for event in events if event[0] == number and event[3] == math.inf]
        if action in ("claim", "closing", "urgent"):
            before = counting(now)
            ticket, wait = owner.claim(weight, now, closing=action != "claim", urgent=action == "urgent")
            assert (ticket == 0) == (wait > 0)
            if ticket:
                events.append([number, weight, now, math.inf, ticket])
                assert now >= stopped_until
                assert before + weight <= max(limit * 0.5, weight)
        elif action == "finished" and out:
            owner.finished(int(out[0][4]), now)
            out[0][3] = now
        elif action == "stop":
            owner.stop(float(weight), now)
            stopped_until = max(stopped_until, now + weight)
        elif action == "reserve":
            owner.reserve(weight, now)
        elif action == "die" and all(process not in memory.dead for process in processes):
            # Its requests end with it; somebody finds it dead, and it may come back as another process.
            memory.dead.add(processes[number])
            for event in out:
                event[3] = now
            owners[(number + 1) % 3].reserve(weight, now + 1.0)
            now += 1.0
            owners[number] = WeightBudget(limit, (0.9, 0.5, 0.75)[number], memory=memory, now_seconds=now)
            processes[number] = memory.newest
        assert owner.used(now) >= counting(now)
    for event in events:
        assert sum(w for _, w, sent, ended, _ in events if sent <= event[2] < ended + 60) <= max(limit * 0.5, event[1])
    # Nothing is forgotten, and nothing stays for ever.
    for event in events:
        if event[3] == math.inf:
            owners[int(event[0])].finished(int(event[4]), now)
    assert owners[0].used(now + 61.0) == 0
