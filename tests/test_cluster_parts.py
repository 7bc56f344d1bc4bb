"""What followers decide without a server: offsets of clocks, positions in shards, names of subjects."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candleshm.cluster.clock_offset import ClockOffset, asked_epoch, clock_answer, clock_request, told_clock
from candleshm.cluster.inbox import Inbox
from candleshm.cluster.message import Message
from candleshm.cluster.message_head import MessageHead
from candleshm.cluster.shard_position import HELD_NS, ShardPosition
from candleshm.cluster.subjects import Subjects, encoded

SECOND_NS = 1_000_000_000
# Two boot clocks run apart by at most so much; see `system/clock.py`.
DRIFT = 2e-4


def head(kind: str, sequence: int, epoch: int = 1) -> MessageHead:
    """Return the head of a message of the only shard."""
    return MessageHead(kind, 0, 1, epoch, sequence, 5 * SECOND_NS)  # type: ignore[arg-type]


@given(
    offset_ns=st.integers(-(10**15), 10**15),
    trips=st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(10**6, 10**10)), min_size=1, max_size=30
    ),
    drift=st.floats(-DRIFT * 0.9, DRIFT * 0.9),
)
def test_no_time_of_another_host_becomes_newer_than_it_is(
    offset_ns: int, trips: Sequence[tuple[int, int, int]], drift: float
) -> None:
    """Whatever way and back take, however the clocks run apart."""
    clock, now_ns = ClockOffset(), 10**13
    assert not clock.is_known

    def other(at_ns: int) -> int:
        return at_ns - offset_ns + int((at_ns - 10**13) * drift)

    for there_ns, back_ns, pause_ns in trips:
        clock.measure(now_ns, other(now_ns + there_ns), now_ns + there_ns + back_ns)
        now_ns += there_ns + back_ns
        error_ns = now_ns - (other(now_ns) + clock.at(now_ns))
        # Rounding is no more than a nanosecond or two.
        assert error_ns >= -2
        assert error_ns <= there_ns + (there_ns + back_ns) * DRIFT * 2 + 2
        now_ns += pause_ns


def test_the_best_of_several_round_trips_counts_until_clocks_may_have_run_apart() -> None:
    clock = ClockOffset()
    clock.measure(0, 500, 1_000_000)
    clock.measure(SECOND_NS, SECOND_NS + 100_000_000, SECOND_NS + 200_000_000)
    assert clock.at(SECOND_NS) == -500 - int(SECOND_NS * DRIFT)
    assert clock.round_trip_ns == 1_000_000
    # An answer that came before its request is no measurement.
    clock.measure(10, 0, 9)
    assert clock.round_trip_ns == 1_000_000
    with pytest.raises(ValueError, match="no clock was measured"):
        ClockOffset().at(0)


def test_requests_for_clocks_are_read_as_they_were_written() -> None:
    assert asked_epoch(clock_request(7)) == 7
    told = told_clock(clock_answer(7))
    assert told is not None
    assert told[0] == 7
    for damaged in (b"", b"1234567", b"x" * 40):
        assert asked_epoch(damaged) is None
        assert told_clock(damaged) is None


def test_what_is_missing_before_a_message() -> None:
    position = ShardPosition()
    assert position.follow(head("heartbeat", 10), 1)
    # Whatever was before the first message of an epoch is found by its digests.
    assert position.missed(head("heartbeat", 10)) is None
    position.advance(head("heartbeat", 10), 0)
    assert position.missed(head("changes", 11)) is None
    assert position.missed(head("heartbeat", 10)) is None
    assert position.missed(head("heartbeat", 11)) == (11, 11)
    assert position.missed(head("changes", 14)) == (11, 13)
    position.advance(head("changes", 14), 0)
    # One that comes late, or twice, means that nothing is missing.
    assert position.missed(head("changes", 12)) is None
    position.advance(head("changes", 12), 0)
    assert position.sequence == 14
    assert not position.follow(head("changes", 99, epoch=0), 2)
    position.advance(head("changes", 99, epoch=0), 0)
    assert position.sequence == 14
    assert position.follow(head("changes", 1, epoch=2), 3)
    assert position.missed(head("changes", 1, epoch=2)) is None


def test_messages_wait_for_the_clock_of_a_new_leader_but_not_for_ever() -> None:
    position = ShardPosition()
    assert not position.is_clock_due(1)
    position.follow(head("changes", 1), SECOND_NS)
    assert position.is_clock_due(SECOND_NS)
    assert not position.is_clock_due(SECOND_NS + 1)
    assert position.waits(SECOND_NS)
    assert not position.waits(SECOND_NS + HELD_NS)
    # Its times count as those of the boot then: as old as can be.
    assert position.offset_ns(head("changes", 1), SECOND_NS) == -5 * SECOND_NS
    position.clock.measure(SECOND_NS, 0, SECOND_NS + 5)
    assert not position.waits(SECOND_NS)
    assert position.offset_ns(head("changes", 1), SECOND_NS) == SECOND_NS


def test_an_inbox_drops_what_has_no_room() -> None:
    inbox, taken = Inbox(waiting_bytes_max=10), list[bytes]()
    receive = inbox.receiver(
        lambda message: taken.append(message.data), is_wanted=lambda message: message.subject != "left.out"
    )
    for data in (b"12345678", b"12345678", b"dropped"):
        receive(Message("rows", data))
        receive(Message("left.out", data))
    assert inbox.dropped == 1
    inbox.work(0.01)
    receive(Message("rows", b"room again"))
    for _ in range(3):
        inbox.work(0.01)
    assert taken == [b"12345678", b"12345678", b"room again"]


def test_an_inbox_hands_over_at_once_what_nothing_has_to_be_taken_before() -> None:
    inbox, at_once, later = Inbox(), list[bytes](), list[bytes]()

    def take_at_once(message: Message) -> bool:
        at_once.append(message.data)
        return message.data != b"needs more"

    def take(message: Message) -> None:
        later.append(message.data)
        receive(Message("rows", b"while one is taken"))

    receive = inbox.receiver(take, at_once=take_at_once)
    for data in (b"first", b"needs more", b"behind it"):
        receive(Message("rows", data))
    assert (at_once, later) == ([b"first", b"needs more"], [])
    for _ in range(2):
        inbox.work(0.01)
    assert later == [b"needs more", b"behind it"]
    assert at_once == [b"first", b"needs more"]


def test_changes_are_next_only_where_none_is_missing_and_the_clock_is_known() -> None:
    position = ShardPosition()
    position.follow(head("changes", 1), SECOND_NS)
    assert not position.is_next(head("changes", 1))
    position.clock.measure(SECOND_NS, 0, SECOND_NS + 5)
    assert position.is_next(head("changes", 1))
    position.advance(head("changes", 1), SECOND_NS)
    assert not position.is_next(head("changes", 1))
    assert position.is_next(head("changes", 2))
    assert not position.is_next(head("changes", 3))
    assert not position.is_next(head("heartbeat", 2))
    position.held.append(b"waits")
    assert not position.is_next(head("changes", 2))


def test_names_of_blocks_become_parts_of_subjects() -> None:
    subjects = Subjects("candleshm", "main", "my.block-1=x")
    assert subjects.changes(3) == "candleshm.main.my=2Eblock-1=3Dx.changes.3"
    assert subjects.lease(3) == "my=2Eblock-1=3Dx.3"
    assert encoded("a b*>é") == "a=20b=2A=3E=C3=A9"
    names = [subjects.ask(0), subjects.clock("*"), subjects.present("host/1"), subjects.all_present]
    assert all(name.startswith("candleshm.main.") for name in names)
