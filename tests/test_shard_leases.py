"""The leases of shards on a real server: taken, divided, handed on, and kept over what servers go through."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("nats")

from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.presence import Presence, Roll
from candleshm.cluster.served import OwnFeed, Served
from candleshm.cluster.settings import ClusterSettings
from candleshm.cluster.shard_leases import ShardLeases
from candleshm.cluster.subjects import Subjects
from candleshm.collector.selection import Selection
from candleshm.config import CollectorConfig
from candleshm.system.clock import SystemClock
from tests.support.collecting import until
from tests.support.nats_servers import NatsServer, nats_server

FEED = "test-leases"
NOW = SystemClock().monotonic_seconds
# One of each shard, twice.
SYMBOLS = ("BTCUSDT", "ETHUSDT", "LINKUSDT", "AVAXUSDT")


class LateOwnFeed(OwnFeed):
    """What a member serves, which does not see at first what others serve: they began at the same moment."""

    sees = False

    def objection(self, served: Served | None) -> str | None:
        return super().objection(served) if self.sees else None


def own_feed(interval: str = "1m", symbols: Sequence[str] = SYMBOLS) -> LateOwnFeed:
    """Return what a member serves with that interval and these of all symbols."""
    selection = Selection(everything=False)
    selection.judge(serves=symbols.__contains__, lacks=lambda symbol: symbol not in symbols)
    config = CollectorConfig(market="SPOT", interval=interval, symbols=symbols, name=FEED)
    own = LateOwnFeed(config, selection, shards=2, where="here/1")
    own.look(lambda: symbols, NOW())
    return own


class Party:
    """Some members that share a feed, by one connection each, and hear each other."""

    def __init__(self, server: NatsServer, shards: int, stack: ExitStack) -> None:
        self.shards = shards
        self.members: dict[str, ShardLeases] = {}
        self._settings = ClusterSettings(urls=(server.url,))
        self._stack = stack

    def join(self, member: str, own: OwnFeed | None = None) -> ShardLeases:
        connection = ClusterConnection(self._settings, member)
        connection.open()
        self._stack.callback(connection.close)
        subjects = Subjects("candleshm", "main", FEED)
        self.members[member] = ShardLeases(connection, subjects, member, shards=self.shards, now=NOW, own=own)
        return self.members[member]

    def presence(self, member: str) -> Presence:
        """Return what a member says of itself."""
        return Presence(
            member=member,
            host="here",
            pid=1,
            role="leader",
            feed=FEED,
            block=FEED,
            shards=self.shards,
            epochs=self.members[member].epochs,
            is_complete=True,
            may_lead=self.members[member].objection is None,
        )

    def tend(self, *names: str, others: Sequence[Presence] = ()) -> dict[str, list[int]]:
        """Let these members, or all, look once, who hear each other and `others`; return what each leads."""
        roll = Roll()
        for presence in (*map(self.presence, names or self.members), *others):
            roll.note(presence, NOW())
        for name in names or self.members:
            self.members[name].tend(roll.living(NOW()), roll, is_complete=True)
        time.sleep(0.02)
        return {name: sorted(leases.epochs) for name, leases in self.members.items()}

    def settles(self, *counts: int, names: tuple[str, ...] = ()) -> bool:
        """Return whether these members lead so many shards each, in any order, and together all of them."""
        led = self.tend(*names)
        shown = [led[name] for name in names or self.members]
        return sorted(map(len, shown)) == sorted(counts) and sorted(shard for each in shown for shard in each) == list(
            range(self.shards)
        )


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with nats_server() as running:
        yield running


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_shards_are_divided_and_taken_over(server: NatsServer, stack: ExitStack) -> None:
    party = Party(server, 4, stack)
    party.join("a")
    until(lambda: party.settles(4))
    before = party.members["a"].epochs
    party.join("b")
    until(lambda: party.settles(2, 2))
    party.join("c")
    until(lambda: party.settles(2, 1, 1))
    # `a` dies: the others take what it had, under higher epochs.
    left = party.members["a"].epochs
    until(lambda: party.settles(2, 2, names=("b", "c")))
    now = party.members["b"].epochs | party.members["c"].epochs
    assert all(now[shard] > epoch for shard, epoch in left.items())
    assert all(now[shard] > before[shard] for shard in now)
    # It was only asleep: it wakes up, must not publish, and finds that out.
    assert not any(party.members["a"].may_publish(shard) for shard in left)
    until(lambda: party.settles(2, 1, 1))


def test_one_shard_stays_with_its_leader(server: NatsServer, stack: ExitStack) -> None:
    party = Party(server, 1, stack)
    party.join("a")
    until(lambda: party.settles(1))
    for name in "bcdef":
        party.join(name)
    ends = time.monotonic() + 5.0
    while time.monotonic() < ends:
        assert party.tend()["a"] == [0]
    party.members["a"].release()
    others = tuple("bcdef")
    until(lambda: party.settles(1, 0, 0, 0, 0, names=others))


def test_a_restarted_server_changes_no_leader(server: NatsServer, stack: ExitStack) -> None:
    party = Party(server, 1, stack)
    leases = party.join("a")
    until(lambda: party.settles(1))
    epoch = leases.epochs[0]
    server.restart()
    until(lambda: party.settles(1) and leases.may_publish(0))
    assert leases.epochs[0] == epoch
    # Everything of the server is lost.
    server.kill()
    for path in sorted(server.store.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    server.start()
    server.wait()
    until(lambda: party.settles(1) and leases.may_publish(0))
    assert leases.epochs[0] >= epoch


def test_a_server_without_memory_for_streams_keeps_leases_in_files(stack: ExitStack) -> None:
    server = stack.enter_context(nats_server(memory="0"))
    party = Party(server, 1, stack)
    leases = party.join("a")
    until(lambda: party.settles(1) and leases.may_publish(0))
    server.restart()
    until(lambda: party.settles(1) and leases.may_publish(0))


def test_who_divides_otherwise_gives_back_what_it_took_before_it_knew_of_the_others(
    server: NatsServer, stack: ExitStack
) -> None:
    one, three = Party(server, 1, stack), Party(server, 3, stack)
    one.join("a")
    until(lambda: one.settles(1))
    three.join("b")
    until(lambda: one.settles(1) and three.tend()["b"] == [1, 2])
    until(lambda: one.tend(others=[three.presence("b")])["a"] and not three.tend(others=[one.presence("a")])["b"])
    assert one.tend(others=[three.presence("b")]) == {"a": [0]}


def test_a_silent_server_ends_the_right_to_publish(server: NatsServer, stack: ExitStack) -> None:
    party = Party(server, 1, stack)
    leases = party.join("a")
    until(lambda: party.settles(1) and leases.may_publish(0))
    os.kill(server.pid, signal.SIGSTOP)
    try:
        until(lambda: not (party.tend(), leases.may_publish(0))[1])
        # It goes on collecting for its own host: nobody else has taken the lease yet.
        assert list(leases.epochs) == [0]
    finally:
        os.kill(server.pid, signal.SIGCONT)
    until(lambda: party.settles(1) and leases.may_publish(0))


@pytest.mark.parametrize(
    ("first", "second", "stays"),
    [
        pytest.param({"interval": "1m"}, {"interval": "5m"}, None, id="other candles"),
        pytest.param({}, {"symbols": SYMBOLS[:1]}, "a", id="fewer symbols"),
        pytest.param({"symbols": SYMBOLS[::2]}, {"symbols": SYMBOLS[1::2]}, None, id="other symbols"),
    ],
)
def test_of_two_that_begin_at_once_and_serve_something_else_one_leads(
    server: NatsServer, stack: ExitStack, first: dict[str, Any], second: dict[str, Any], stays: str | None
) -> None:
    feeds = {"a": own_feed(**first), "b": own_feed(**second)}
    party = Party(server, 2, stack)
    for name, own in feeds.items():
        party.join(name, own)
    until(lambda: party.settles(1, 1))
    expected = stays or next(name for name, leases in party.members.items() if 0 in leases.epochs)
    for own in feeds.values():
        own.sees = True
    until(lambda: party.settles(2, 0))
    assert party.members[expected].epochs.keys() == {0, 1}
    for _ in range(20):
        assert party.settles(2, 0)
