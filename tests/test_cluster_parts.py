"""Who should lead what, and who is there: the parts of a cluster that decide without any server."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from candleshm.cluster.presence import LEFT, LIVING_SECONDS, Presence, Roll, decoded
from candleshm.cluster.sharding import assignment, heir

MEMBERS = st.sets(st.text("abcdef123", min_size=1, max_size=6), min_size=1, max_size=8)


def presence(member: str, **changes: object) -> Presence:
    said = {"member": member, "host": "h", "pid": 1, "role": "standby", "feed": "f", "block": "f"}
    return msgspec.convert(said | changes, Presence)


@given(shards=st.integers(1, 64), members=MEMBERS)
def test_shards_are_divided_evenly_whoever_asks(shards: int, members: set[str]) -> None:
    led = assignment(shards, members)
    assert led == assignment(shards, sorted(members)[::-1])
    assert set(led) == set(range(shards))
    counts = Counter(led.values())
    assert max(counts.values()) - min(counts.get(member, 0) for member in members) <= 1


@given(shards=st.integers(1, 16), members=MEMBERS, first=st.sampled_from(["x", "y"]))
def test_moves_make_the_load_even_and_then_end(shards: int, members: set[str], first: str) -> None:
    everyone = members | {first}
    led = dict.fromkeys(range(shards), first)
    for _ in range(2 * shards):
        counts = Counter(led.values())
        leading = {member: counts.get(member, 0) for member in everyone}
        moves = {shard: heir(shard, owner, leading, shards=shards) for shard, owner in led.items()}
        move = next(((shard, other) for shard, other in moves.items() if other is not None), None)
        if move is None:
            break
        led[move[0]] = move[1]
    else:
        raise AssertionError("shards move for ever")
    counts = Counter(led.values())
    assert max(counts.values()) - min(counts.get(member, 0) for member in everyone) <= 1


def test_nobody_is_assigned_nothing() -> None:
    assert assignment(4, []) == {}


def test_who_is_silent_is_gone() -> None:
    roll = Roll()
    roll.note(presence("a", epochs={0: 7}), 10.0)
    roll.note(presence("m", role="mirror", newest_epochs={0: 9, 1: 3}), 10.5)
    roll.note(presence("other", feed="g", epochs={0: 99}), 10.5)
    assert [each.member for each in roll.living(11.0) if each.feed == "f"] == ["a", "m"]
    assert (roll.newest_epoch("f", 0), roll.newest_epoch("f", 1), roll.newest_epoch("f", 2)) == (9, 3, 0)
    assert [each.member for each in roll.living(10.2 + LIVING_SECONDS)] == ["m", "other"]
    roll.note(presence("m", role=LEFT), 12.0)
    assert [each.member for each in roll.living(10.2 + LIVING_SECONDS)] == ["other"]


def test_a_message_of_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    said = msgspec.to_builtins(presence("a")) | {"mood": "good"}
    assert decoded(msgspec.json.encode(said)) == presence("a")
    for broken in (b"", b"{", b"[]", b'{"member": 1}', b"\xff\xfe"):
        assert decoded(broken) is None
