"""Collectors that share a feed, as processes over a real server: one leads, others stand by, and every row is true."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

pytest.importorskip("nats")

import candleshm
from candleshm._core import shard_of
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.follower import Follower
from candleshm.cluster.leases import LEASE_SECONDS
from candleshm.cluster.member import Member
from candleshm.cluster.settings import ClusterSettings
from candleshm.cluster.shard_leases import SETTLING_SECONDS
from candleshm.collector.collector import Collector
from candleshm.reader.feed import Feed
from candleshm.reader.figures import lag_of, role_of
from candleshm.reader.observation import attach_to_observe, observe
from candleshm.row_state import RowState
from candleshm.sim import SimulatedExchange
from tests.support.collecting import MINUTE, assert_true, close_seconds, config_of, klines, until
from tests.support.commanding import CLI, DEADLINE_SECONDS, first_lines, run
from tests.support.nats_servers import NatsServer, nats_server

LENGTH = 90
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SUSHIBTC"]
# A request for more rows than this is a download; those after a take-over, and tails, are for fewer, and an audit is
# for as many as a request of the least weight may have.
TAIL_ROWS_MAX, AUDIT_ROWS = 60, 1000


class Hosts:
    """Members of one feed, each a process with a block and a weight ledger of its own."""

    def __init__(self, exchange: SimulatedExchange, server: NatsServer, feed: str, folder: Path) -> None:
        self.exchange = exchange
        self.server = server
        self.feed = feed
        self._folder = folder
        self._stack = ExitStack()
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def block(self, name: str) -> str:
        return f"{self.feed}-{name}"

    def start(self, name: str, *more: str) -> subprocess.Popen[str]:
        """Start a member, without waiting for it."""
        home = self._folder / name
        home.mkdir(exist_ok=True)
        words = [
            *(["serve", "--market", "spot", "--interval", "1s", "--length"]),
            str(LENGTH),
            *("--name", self.feed, "--as", self.block(name), "--cluster", self.server.url),
            *("--base-url", self.exchange.base_url, "--ws-url", self.exchange.ws_url),
            *(() if "--symbols" in more else ("--symbols", ",".join(SYMBOLS))),
            *more,
        ]
        return self._run(name, words)

    def start_from(self, name: str, symbols: list[str], *, shards: int) -> None:
        """Start a member with a file of settings; one that runs reads it again instead."""
        path = self._folder / f"{name}.toml"
        path.write_text(
            f'cluster = "{self.server.url}"\n[[feed]]\nmarket = "spot"\ninterval = "1s"\nlength = {LENGTH}\n'
            f'name = "{self.feed}"\nas = "{self.block(name)}"\nshards = {shards}\nsymbols = {json.dumps(symbols)}\n'
            f'base_url = "{self.exchange.base_url}"\nws_url = "{self.exchange.ws_url}"\n'
        )
        if name in self.processes:
            self.signal(name, signal.SIGHUP)
        else:
            (self._folder / name).mkdir()
            self._run(name, ["serve", "--config", str(path)])

    def _run(self, name: str, words: list[str]) -> subprocess.Popen[str]:
        home = self._folder / name
        log = (self._folder / f"{name}.log").open("a")
        process = subprocess.Popen(
            [*CLI, *words],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"XDG_RUNTIME_DIR": str(home)},
        )
        log.close()
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)
        self.processes[name] = process
        return process

    def feed_of(self, name: str) -> Feed:
        """Attach to the block of a member, which may be about to begin."""

        def attach() -> Feed | None:
            try:
                return candleshm.attach(self.block(name))
            except candleshm.BlockNotFound:
                return None

        feed = until(attach)
        assert feed is not None
        self._stack.callback(feed.close)
        return feed

    def ready(self, name: str, *more: str) -> Feed:
        """Start a member and wait until it has every row."""
        self.start(name, *more)
        feed = self.feed_of(name)
        until(lambda: feed.health.ready)
        return feed

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def present(self) -> dict[str, dict[str, Any]]:
        """Return what each member says of itself, by the name that `start` has given it."""
        shown = run("cluster", "status", "--json", "--cluster", self.server.url)
        assert shown.returncode == 0, shown.stderr
        there = [each for each in json.loads(shown.stdout)["present"] if each["feed"] == self.feed]
        return {each["block"].removeprefix(f"{self.feed}-"): each for each in there}

    def roles(self) -> dict[str, str]:
        return {name: each["role"] for name, each in self.present().items()}

    def settles(self, **roles: str) -> Callable[[], bool]:
        return lambda: self.roles() == roles

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=6) as running:
        yield running


@pytest.fixture
def hosts(exchange: SimulatedExchange, block_name: str, tmp_path: Path) -> Iterator[Hosts]:
    with nats_server() as server:
        hosts = Hosts(exchange, server, block_name, tmp_path)
        try:
            yield hosts
        finally:
            hosts.close()


def ended(feed: Feed) -> set[str]:
    """Return the symbols that do not trade, as readers see them."""
    with attach_to_observe(feed.name) as observed:
        return {facts.symbol for facts in observe(observed).series if not facts.trading}


def leads_all(hosts: Hosts, name: str) -> bool:
    """Return whether a member leads both of two shards."""
    return len(hosts.present()[name]["epochs"]) == 2


def downloads(exchange: SimulatedExchange) -> int:
    """Return how many requests for many rows the exchange has served."""
    return sum(TAIL_ROWS_MAX < int(parameters["limit"]) < AUDIT_ROWS for _, parameters in klines(exchange))


def goes_on(hosts: Hosts, feed: Feed) -> None:
    """A few more candles close, and the window is full of final rows, all of them the exchange's."""
    close_seconds(feed, 3)
    until(lambda: not any(feed[symbol].gaps() for symbol in feed.symbols))
    close_seconds(feed, 1)
    for symbol in feed.symbols:
        states = feed[symbol].states(holes="nan")
        assert len(states) == feed.length
        # After a take-over responses confirm rows that were pushed before.
        assert set(states[: -feed.length // 2]) <= {RowState.CLOSED, RowState.VERIFIED}, states
    assert_true(hosts.exchange, feed)


def test_a_standby_has_every_row_and_requests_none(hosts: Hosts, exchange: SimulatedExchange) -> None:
    first = hosts.ready("a")
    until(hosts.settles(a="leader"))
    before, weight = downloads(exchange), exchange.stats().count("/exchangeInfo")
    second = hosts.ready("b", "--length", "40")
    until(hosts.settles(a="leader", b="standby"))
    goes_on(hosts, second)
    goes_on(hosts, first)
    assert downloads(exchange) == before
    # One list at its start, none since.
    assert exchange.stats().count("/exchangeInfo") <= weight + 2
    assert second.length == 40
    assert (second.health.epoch or 0) > 0
    assert str(hosts.processes["a"].pid) in str(second.health.source)


def test_a_killed_leader_is_followed_without_a_download(hosts: Hosts, exchange: SimulatedExchange) -> None:
    hosts.ready("a")
    second = hosts.ready("b")
    until(hosts.settles(a="leader", b="standby"))
    epoch = hosts.present()["a"]["epochs"]["0"]
    before = downloads(exchange)
    hosts.kill("a")
    goes_on(hosts, second)
    until(hosts.settles(b="leader"))
    assert hosts.present()["b"]["epochs"]["0"] > epoch
    assert downloads(exchange) == before
    # It comes back, and stands by with a block that it took over.
    third = hosts.ready("a")
    until(hosts.settles(a="standby", b="leader"))
    goes_on(hosts, third)


def test_a_leader_that_stops_in_order_hands_over_at_once(hosts: Hosts) -> None:
    hosts.ready("a")
    second = hosts.ready("b")
    hosts.signal("a", signal.SIGTERM)
    assert hosts.processes["a"].wait(DEADLINE_SECONDS) == 0
    goes_on(hosts, second)
    until(hosts.settles(b="leader"))


def test_a_paused_leader_wakes_up_as_a_standby(hosts: Hosts) -> None:
    first = hosts.ready("a")
    second = hosts.ready("b")
    until(hosts.settles(a="leader", b="standby"))
    hosts.signal("a", signal.SIGSTOP)
    try:
        goes_on(hosts, second)
        close_seconds(second, 6)
    finally:
        hosts.signal("a", signal.SIGCONT)
    until(hosts.settles(a="standby", b="leader"))
    goes_on(hosts, second)
    goes_on(hosts, first)


def test_shards_divide_the_symbols_and_move_to_who_lives(hosts: Hosts, exchange: SimulatedExchange) -> None:
    more = ("--shards", "4")
    first, second = hosts.ready("a", *more), hosts.ready("b", *more)

    def divided() -> bool:
        led = [set(each["epochs"]) for each in hosts.present().values()]
        return sorted(map(len, led)) == [2, 2] and not set.intersection(*led)

    until(divided)
    goes_on(hosts, first)
    goes_on(hosts, second)
    hosts.kill("b")
    until(lambda: len(hosts.present()["a"]["epochs"]) == 4)
    goes_on(hosts, first)


def is_alone(feed: candleshm.Feed) -> bool:
    return role_of(feed.health) == "alone"


def test_without_servers_every_host_serves_itself(hosts: Hosts) -> None:
    first, second = hosts.ready("a"), hosts.ready("b")
    until(hosts.settles(a="leader", b="standby"))
    hosts.server.kill()
    until(lambda: lag_of(second.health).startswith("nothing for "))
    goes_on(hosts, first)
    until(lambda: "this host collects everything for itself" in hosts.log("b"))
    goes_on(hosts, second)
    goes_on(hosts, first)
    for feed in (first, second):
        until(partial(is_alone, feed))
        health = feed.health
        assert (health.source, health.epoch, health.lag) == (f"{socket.gethostname()}/{health.pid}", None, None)
    hosts.server.start()
    hosts.server.wait()
    until(lambda: sorted(hosts.roles().values()) == ["leader", "standby"])
    until(lambda: sorted(role_of(feed.health) for feed in (first, second)) == ["follower", "leader"])
    for name in ("a", "b"):
        assert hosts.log(name).count("this host collects everything for itself") == 1
    goes_on(hosts, first)
    goes_on(hosts, second)


def test_a_host_begins_without_servers(hosts: Hosts) -> None:
    hosts.server.kill()
    goes_on(hosts, hosts.ready("a"))
    hosts.server.start()
    hosts.server.wait()
    until(hosts.settles(a="leader"))
    goes_on(hosts, hosts.ready("b"))


def test_listings_and_ends_arrive_at_a_standby_that_then_leads(hosts: Hosts, exchange: SimulatedExchange) -> None:
    # No free place: a listing takes a larger block, on each host.
    more = ("--symbols", "all", "--symbol-endswith", "USDT", "--spare-symbols", "0", "--universe-refresh-seconds", "1")
    hosts.ready("a", *more)
    second = hosts.ready("b", *more)
    until(hosts.settles(a="leader", b="standby"))
    listed_ms = (exchange.now_ms() // MINUTE - 2) * MINUTE
    sample = exchange.truth.instrument("SPOT", "BTCUSDT")
    exchange.truth.enlist(replace(sample, symbol="FRESHUSDT", base="FRESH", listed_ms=listed_ms))
    until(lambda: "FRESHUSDT" in second.symbols and second["FRESHUSDT"].last_open_time_ms)
    exchange.truth.delist("SPOT", "ETHUSDT", exchange.now_ms())
    until(lambda: "ETHUSDT" in ended(second))
    close_seconds(second, 2, ["BTCUSDT", "FRESHUSDT"])
    hosts.kill("a")
    until(hosts.settles(b="leader"))
    close_seconds(second, 2, ["BTCUSDT", "FRESHUSDT"])
    assert_true(exchange, second)
    assert "ETHUSDT" in ended(second)


@pytest.mark.long
def test_a_shard_that_moves_back_and_forth_keeps_every_row(hosts: Hosts) -> None:
    more = ("--shards", "2")
    first, second = hosts.ready("a", *more), hosts.ready("b", *more)
    until(lambda: [len(each["epochs"]) for each in hosts.present().values()] == [1, 1])
    for _ in range(2):
        for name, other in (("a", second), ("b", first)):
            hosts.signal(name, signal.SIGSTOP)
            until(partial(leads_all, hosts, "b" if name == "a" else "a"))
            hosts.signal(name, signal.SIGCONT)
            until(lambda: sorted(len(each["epochs"]) for each in hosts.present().values()) == [1, 1])
            goes_on(hosts, other)
    goes_on(hosts, first)
    goes_on(hosts, second)


def test_who_divides_otherwise_is_alone_and_says_why(hosts: Hosts) -> None:
    hosts.ready("a")
    until(hosts.settles(a="leader"))
    hosts.start("b", "--shards", "3")
    until(lambda: "so it leads none, and collects for its own host; give all the same number" in hosts.log("b"))
    # It may have led what the other one does not have, until it heard of it.
    until(hosts.settles(a="leader", b="alone"))
    feed = hosts.feed_of("b")
    until(lambda: feed.health.ready and role_of(feed.health) == "alone")
    goes_on(hosts, feed)
    assert hosts.present()["b"]["why"].endswith("has 1 shard and this collector 3; give all the same number")
    shown = run("cluster", "status", "--cluster", hosts.server.url).stdout
    assert "has 1 shard and this collector 3; give all the same number" in shown
    hosts.signal("a", signal.SIGTERM)
    until(lambda: hosts.roles() == {"b": "leader"})
    goes_on(hosts, feed)


def test_the_metrics_of_a_member(hosts: Hosts) -> None:
    process = hosts.start("a", "--metrics", "0")
    url = first_lines(process, 2)[-1].removeprefix("metrics: ").strip()
    labels = f'{{block="{hosts.block("a")}"}}'

    def shown(name: str, value: str) -> bool:
        return f"candleshm_cluster_{name}{labels} {value}" in requests.get(url, timeout=DEADLINE_SECONDS).text

    until(lambda: shown("led_shards", "1.0") and shown("complete", "1.0") and shown("members", "1.0"))
    assert shown("unled_shards", "0.0")
    assert shown("alone", "0.0")


def test_a_member_whose_follower_fails_serves_its_own_host(
    hosts: Hosts, exchange: SimulatedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.ready("a")
    until(hosts.settles(a="leader"))
    fails = threading.Event()
    take = Follower._look

    def look(self: Follower, now_ns: int) -> None:
        if fails.is_set():
            raise RuntimeError("a fault of the test")
        take(self, now_ns)

    monkeypatch.setattr(Follower, "_look", look)
    config = config_of(exchange, hosts.block("b"), interval="1s", live="rest", symbols=SYMBOLS, length=LENGTH)
    with ClusterConnection(ClusterSettings(urls=(hosts.server.url,)), "test") as connection:
        member = Member(connection, config, feed=hosts.feed)
        with Collector(config, membership=member):
            feed = hosts.feed_of("b")
            until(lambda: feed.health.ready and member.figures.is_complete)
            fails.set()
            until(lambda: member.figures.is_alone)
            hosts.kill("a")
            goes_on(hosts, feed)


def test_servers_that_keep_no_leases_leave_every_host_to_itself(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    with nats_server(has_jetstream=False) as server:
        hosts = Hosts(exchange, server, block_name, tmp_path)
        try:
            hosts.start("a")
            feed = hosts.feed_of("a")
            until(lambda: "this host collects everything for itself" in hosts.log("a"))
            goes_on(hosts, feed)
            assert "(the servers have no JetStream at the moment, which keeps the leases)" in hosts.log("a")
            assert hosts.roles() == {"a": "alone"}
            assert hosts.log("a").count("WARNING") == 1
        finally:
            hosts.close()


def test_who_lacks_symbols_of_the_feed_takes_no_lease(hosts: Hosts) -> None:
    hosts.ready("a")
    until(hosts.settles(a="leader"))
    hosts.start("b", "--symbols", SYMBOLS[0])
    line = f"takes no lease: it lacks {' '.join(SYMBOLS[1:])}, which the feed's leader"
    until(lambda: line in hosts.log("b"))
    feed = hosts.feed_of("b")
    until(lambda: all(symbol in feed for symbol in SYMBOLS))
    hosts.kill("a")
    # Whoever leads would long have begun to.
    until(lambda: "a" not in hosts.present())
    time.sleep(3 * LEASE_SECONDS)
    assert hosts.roles() == {"b": "standby"}
    # Nobody lives who knows the symbols, and the block is gone.
    hosts.kill("b")
    hosts.start("b", "--symbols", SYMBOLS[0])
    until(lambda: hosts.log("b").count(line) == 2)
    assert "not trading" not in hosts.log("b")
    assert hosts.roles().get("b", "standby") == "standby"
    hosts.ready("a")
    until(hosts.settles(a="leader", b="standby"))
    assert not ended(hosts.feed_of("b"))


def test_who_serves_other_candles_takes_no_lease(hosts: Hosts, exchange: SimulatedExchange) -> None:
    hosts.ready("a")
    until(hosts.settles(a="leader"))
    hosts.start("b", "--market", "um", "--interval", "1m", "--symbols", "BTCUSDT")
    other = exchange.base_url.replace("127.0.0.1", "localhost")
    hosts.start("c", "--base-url", other)
    for name, words in (
        ("b", "this collector 1m candles of trade prices of UM at 127.0.0.1"),
        ("c", "SPOT at localhost"),
    ):
        until(lambda name=name, words=words: words in hosts.log(name))  # type: ignore[misc]
    hosts.kill("a")
    until(lambda: "a" not in hosts.present())
    time.sleep(3 * LEASE_SECONDS)
    assert hosts.roles() == {"b": "standby", "c": "standby"}
    assert all(hosts.log(name).count("takes no lease") == 1 for name in "bc")


def test_all_that_ended_in_order_may_begin_with_fewer_symbols(hosts: Hosts) -> None:
    hosts.ready("a")
    until(hosts.settles(a="leader"))
    hosts.processes["a"].terminate()
    assert hosts.processes["a"].wait(DEADLINE_SECONDS) == 0
    hosts.ready("a", "--symbols", SYMBOLS[0])
    until(hosts.settles(a="leader"))


def test_symbols_that_only_one_of_two_leaders_serves_are_named(hosts: Hosts) -> None:
    symbols, more = ["BTCUSDT", "BNBUSDT"], ["ETHUSDT", "SOLUSDT"]
    assert [shard_of(symbol, 2) for symbol in symbols + more] == [0, 1, 0, 1]
    for name in "ab":
        hosts.start_from(name, symbols, shards=2)
    until(lambda: [len(each["epochs"]) for each in hosts.present().values()] == [1, 1])
    led = int(*hosts.present()["a"]["epochs"])
    # Who has just begun to lead beside one that serves more gives its shards back.
    time.sleep(SETTLING_SECONDS)
    hosts.start_from("a", symbols + more, shards=2)
    until(lambda: f"no rows of {more[1 - led]}: " in hosts.log("a"))
    until(lambda: f"takes no lease: it lacks {more[led]}, which the feed's leader" in hosts.log("b"))
    feed = hosts.feed_of("a")
    hosts.start_from("b", symbols + more, shards=2)
    until(lambda: all(symbol in feed and feed[symbol].last_open_time_ms for symbol in more))
    goes_on(hosts, feed)
    assert not ended(feed)
    assert hosts.log("a").count("no rows of") == 1


def test_a_standby_with_more_symbols_than_the_leader_is_not_ready_and_says_why(hosts: Hosts) -> None:
    hosts.ready("a", "--symbols", SYMBOLS[0])
    until(hosts.settles(a="leader"))
    hosts.start("b")
    until(lambda: f"no rows of {' '.join(SYMBOLS[1:])}: " in hosts.log("b"))
    assert "does not serve them; give it the same symbols" in hosts.log("b")
    feed = hosts.feed_of("b")
    assert feed[SYMBOLS[0]].last_open_time_ms
    assert not feed.health.ready
    hosts.kill("a")
    until(hosts.settles(b="leader"))
    until(lambda: feed.health.ready)
    goes_on(hosts, feed)
