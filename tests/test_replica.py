"""A block and copies of it, with messages passed by hand: no server, no network, any order and loss."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path

import numpy as np
import pytest

import candleshm
from candleshm import _core
from candleshm._core import Applied, Outlet, Shadow, Writer, message_feed, message_head, shard_of
from candleshm.errors import ConfigError
from candleshm.reader.feed import Feed
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline, torn_rows

LENGTH = 120
FOREVER_NS = 1 << 63
SYMBOLS = ["AUSDT", "BUSDT", "CUSDT"]


class Pair:
    """A leader's block with what is told of it, and the block of one follower."""

    def __init__(self, stack: ExitStack, name: str, *, length: int = LENGTH, follower_length: int = LENGTH) -> None:
        self.leader = stack.enter_context(closing(open_block(name, length)))
        self.follower = stack.enter_context(closing(open_block(f"{name}-copy", follower_length)))
        self.shadow = Shadow(name, source="host/1")
        self.follower.follow(1, [])
        self.minute = 0

    def merge(self, symbol: str, count: int, value: float) -> None:
        """Merge the newest rows up to the present minute, the live one among them, as a response."""
        newest = START_MS + self.minute * MINUTE_MS
        rows = [kline(newest - back * MINUTE_MS, value + back % 7) for back in reversed(range(count))]
        ingest(self.leader, symbol, *rows, sent_ms=newest + 30_000)

    def tell(self) -> list[Applied]:
        """Pass on what changed."""
        return [self.follower.apply(message, 0) for _, message in self.shadow.collect()]

    def repair(self) -> int:
        """Let the follower request what it lacks until it lacks nothing; return how many requests that took."""
        requests = 0
        for _ in range(20):
            wanted = self.compare()
            if not wanted:
                return requests
            requests += wanted
        raise AssertionError("the follower still lacks rows")

    def compare(self) -> int:
        """Pass on what changed and a heartbeat, and what is requested after it; return the number of requests."""
        self.tell()
        beats = [message for _, message in self.shadow.heartbeat()]
        for beat in beats:
            self.follower.apply(beat, 0)
        wanted = [request for beat in beats for request in self.follower.differences(beat)]
        for answer in (answer for request in wanted for answer in self.shadow.answer(request)):
            assert self.follower.apply(answer, 0).refused is None
        return len(wanted)


def open_block(name: str, length: int = LENGTH, symbols: list[str] = SYMBOLS) -> Writer:
    return Writer.open(name, market="SPOT", interval="1m", length=length, symbols=symbols, spare_symbols=2)


def contents(name: str, symbol: str, count: int = LENGTH) -> tuple[bytes, bytes, int, list[candleshm.Gap]]:
    """Return every byte that a reader gets of a series."""
    feed: Feed = candleshm.attach(name)
    rows = feed[symbol].candles(count, holes="nan")
    states = feed[symbol].states(len(rows)).tobytes() if len(rows) else b""
    return rows.tobytes(), states, feed[symbol].revision, feed[symbol].gaps()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def pair(stack: ExitStack, block_name: str) -> Pair:
    return Pair(stack, block_name)


def assert_same(name: str, symbols: list[str] = SYMBOLS) -> None:
    for symbol in symbols:
        assert contents(name, symbol) == contents(f"{name}-copy", symbol), symbol


def test_changes_are_told_past_python_while_the_lease_holds(pair: Pair) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        outlet = Outlet(socket.create_connection(listener.getsockname()).detach())
        far = stack.enter_context(listener.accept()[0])
        pair.minute = 20
        pair.shadow.lead(0, 1)
        pair.shadow.collect()
        for until_ns, is_told in ((FOREVER_NS, True), (0, False), (FOREVER_NS, True)):
            pair.minute += 1
            pair.merge("AUSDT", 3, float(pair.minute))
            # What was announced already is told at once; the seconds are for what may come.
            assert pair.shadow.tell(outlet, [(0, "a.b", until_ns)], 0.05, 0.0) == []
            far.settimeout(None if is_told else 0.01)
            with nullcontext() if is_told else pytest.raises(TimeoutError):
                received = far.recv(1 << 20)
                assert received.startswith(b"PUB a.b ")
                size = int(received.split(b"\r\n")[0].split()[-1])
                message = received[-size - 2 : -2]
                assert message_head(message)["sequence"] == (1 if pair.minute == 21 else 3)
        # What the socket cannot take is for the caller to send, and nothing of it was sent.
        outlet.close()
        pair.minute += 1
        pair.merge("AUSDT", 3, 9.0)
        ((shard, unsent),) = pair.shadow.tell(outlet, [(0, "a.b", FOREVER_NS)], 5.0, 0.0)
        assert (shard, message_head(unsent)["sequence"]) == (0, 4)


def test_a_late_follower_gets_all_rows_by_requests(pair: Pair, block_name: str) -> None:
    for symbol in SYMBOLS:
        pair.merge(symbol, 100, 5.0)
    pair.shadow.lead(0, 1)
    assert pair.repair() >= 1
    assert_same(block_name)
    assert pair.repair() == 0
    health = candleshm.attach(f"{block_name}-copy").health
    assert (health.source, health.epoch) == ("host/1", 1)
    assert health.lag is not None
    assert health.lag >= 0.0
    assert candleshm.attach(block_name).health.source is None


def test_a_follower_is_ready_once_a_leader_has_told_of_every_symbol(stack: ExitStack, block_name: str) -> None:
    pair = Pair(stack, block_name)
    pair.follower.close()
    pair.follower = stack.enter_context(closing(open_block(f"{block_name}-copy", symbols=[*SYMBOLS, "DUSDT"])))
    pair.follower.follow(1, [])
    for symbol in SYMBOLS:
        pair.merge(symbol, 100, 5.0)
    pair.leader.set_health(ready=True, weight_used=1, weight_limit=100, banned_until_ms=None)
    pair.shadow.lead(0, 1)
    pair.repair()
    feed = candleshm.attach(f"{block_name}-copy")
    assert not feed.health.ready
    with pytest.raises(candleshm.WaitTimeout):
        feed.wait_ready(0.01)
    # A symbol that does not trade has no candles anywhere.
    pair.follower.set_trading("DUSDT", False)
    pair.repair()
    assert feed.health.ready
    # One that joins later takes back nothing.
    pair.follower.add_symbol("EUSDT")
    pair.repair()
    assert feed.health.ready


def test_changes_are_told_once_and_in_order(pair: Pair, block_name: str) -> None:
    pair.shadow.lead(0, 1)
    for pair.minute in range(90, 100):
        for symbol in SYMBOLS:
            pair.merge(symbol, 20, float(pair.minute))
        applied = pair.tell()
        assert [(one.kind, one.gap, one.refused) for one in applied] == [("changes", 0, None)]
        assert pair.shadow.collect() == []
        assert_same(block_name)
    assert pair.repair() == 0


def test_whatever_is_lost_twice_or_out_of_order_is_the_same_in_the_end(stack: ExitStack, block_name: str) -> None:
    rng = random.Random(7)
    for life in range(12):
        name = f"{block_name}-{life}"
        pair = Pair(stack, name)
        pair.shadow.lead(0, 1)
        held: list[bytes] = []
        for step in range(60):
            pair.minute += rng.choice([0, 0, 0, 1, 1, 2, 5])
            pair.merge(rng.choice(SYMBOLS), rng.choice([1, 2, 3, 30]), rng.choice([1.0, float(step + 2)]))
            held += [message for _, message in pair.shadow.collect()]
            if rng.random() < 0.3:
                rng.shuffle(held)
            for message in held:
                if rng.random() < 0.6:
                    pair.follower.apply(message, 0)
            held = [message for message in held if rng.random() < 0.3]
        pair.repair()
        assert_same(name)
        for message in held:
            pair.follower.apply(message, 0)
        pair.repair()
        assert_same(name)


def test_followers_of_other_lengths_get_what_their_windows_hold(stack: ExitStack, block_name: str) -> None:
    for length in (40, 400):
        name = f"{block_name}-{length}"
        pair = Pair(stack, name, follower_length=length)
        pair.minute = 200
        pair.merge("AUSDT", 110, 3.0)
        pair.shadow.lead(0, 1)
        # A smaller window has to be compared by the leader, so that it is asked with every heartbeat.
        for _ in range(3):
            pair.compare()
        shown = min(length, 110)
        assert contents(name, "AUSDT", shown)[:2] == contents(f"{name}-copy", "AUSDT", shown)[:2]
        # A row that only the leader corrects: the smaller window learns of it as well.
        row = kline(START_MS + 190 * MINUTE_MS, 77.0)
        ingest(
            pair.leader, "AUSDT", row, sent_ms=START_MS + 200 * MINUTE_MS + 40_000, end_ms=START_MS + 190 * MINUTE_MS
        )
        pair.shadow.collect()
        for _ in range(3):
            pair.compare()
        assert contents(name, "AUSDT", shown)[:2] == contents(f"{name}-copy", "AUSDT", shown)[:2]


def test_messages_of_an_older_epoch_are_refused(pair: Pair, block_name: str) -> None:
    pair.minute = 50
    pair.merge("AUSDT", 10, 1.0)
    old = Shadow(block_name)
    old.lead(0, 4)
    pair.shadow.lead(0, 5)
    pair.repair()
    before = contents(f"{block_name}-copy", "AUSDT")
    pair.minute = 51
    pair.merge("AUSDT", 10, 2.0)
    ((_, message),) = old.collect()
    assert (applied := pair.follower.apply(message, 0)).refused == "epoch"
    assert applied.kind == "refused"
    assert contents(f"{block_name}-copy", "AUSDT") == before
    ((_, beat),) = old.heartbeat()
    assert pair.follower.apply(beat, 0).refused == "epoch"
    assert pair.follower.differences(beat) == []
    pair.repair()
    assert_same(block_name)


def test_what_is_no_message_of_the_feed_is_refused(stack: ExitStack, pair: Pair, block_name: str) -> None:
    pair.merge("AUSDT", 10, 1.0)
    pair.shadow.lead(0, 1)
    ((_, beat),) = pair.shadow.heartbeat()
    for cut in (0, 8, 71, len(beat) - 1):
        assert pair.follower.apply(beat[:cut], 0).refused == "damaged"
    for at in range(0, len(beat), 7):
        torn = beat[:at] + bytes([beat[at] ^ 0x10]) + beat[at + 1 :]
        assert pair.follower.apply(torn, 0).refused in ("damaged", "version")
    other = stack.enter_context(
        closing(Writer.open(f"{block_name}-5m", market="SPOT", interval="5m", length=9, symbols=SYMBOLS))
    )
    other.follow(1, [])
    assert other.apply(beat, 0).refused == "feed"
    pair.follower.follow(2, [])
    assert pair.follower.apply(beat, 0).refused == "shards"
    pair.follower.follow(1, [0])
    assert pair.follower.apply(beat, 0).refused == "led"
    assert pair.leader.apply(beat, 0).refused == "shards"
    with pytest.raises(ConfigError, match="no message"):
        message_feed(b"")
    with pytest.raises(ConfigError, match="shard cannot be 3; there are 2"):
        pair.follower.follow(2, [3])


def test_a_heartbeat_tells_what_it_takes_to_open_a_block(pair: Pair, block_name: str) -> None:
    pair.shadow.lead(0, 9)
    ((_, beat),) = pair.shadow.heartbeat()
    shape = message_feed(beat)
    assert (shape.market, shape.price, shape.interval, shape.length) == ("SPOT", "trade", "1m", LENGTH)
    assert (shape.symbols, shape.symbol_count, shape.symbol_capacity) == (SYMBOLS, 3, 5)
    assert (shape.shard, shape.shards, shape.epoch, shape.exchange) == (0, 1, 9, "")
    assert message_head(beat)["kind"] == "heartbeat"


def test_a_listed_symbol_and_an_enlarged_universe_arrive(pair: Pair, block_name: str) -> None:
    pair.shadow.lead(0, 1)
    pair.merge("AUSDT", 10, 1.0)
    pair.repair()
    pair.leader.add_symbol("DUSDT")
    pair.merge("DUSDT", 10, 2.0)
    (applied,) = pair.tell()
    assert applied.symbols_missing == ["DUSDT"]
    pair.follower.add_symbol("DUSDT")
    pair.repair()
    assert_same(block_name, [*SYMBOLS, "DUSDT"])
    universe = [*SYMBOLS, "DUSDT", *(f"E{number}" for number in range(30))]
    pair.leader.enlarge(universe)
    pair.merge("E7", 10, 3.0)
    pair.tell()
    pair.follower.enlarge(universe)
    pair.repair()
    assert_same(block_name, universe)


def test_presence_calendars_and_holes_arrive(pair: Pair, block_name: str) -> None:
    pair.shadow.lead(0, 1)
    pair.minute = 60
    newest = START_MS + 60 * MINUTE_MS
    rows = [kline(newest - back * MINUTE_MS, 4.0) for back in (9, 8, 4, 3, 2, 1, 0)]
    for later in (0, 5_000):
        ingest(pair.leader, "AUSDT", *rows, sent_ms=newest + 30_000 + later)
    pair.leader.set_trading("BUSDT", False)
    pair.leader.set_calendar("AUSDT", 7, 9, 0)
    pair.repair()
    assert any(gap.kind == "hole" for gap in candleshm.attach(f"{block_name}-copy")["AUSDT"].gaps())
    assert pair.follower.calendar("AUSDT") == (7, 9)
    assert_same(block_name)


def test_shards_come_from_their_own_leaders_only(stack: ExitStack, pair: Pair, block_name: str) -> None:
    shards = 2
    of = {symbol: shard_of(symbol, shards) for symbol in SYMBOLS}
    assert len(set(of.values())) == 2
    pair.merge("AUSDT", 10, 1.0)
    one, two = Shadow(block_name, shards), Shadow(block_name, shards)
    one.lead(0, 1)
    two.lead(1, 1)
    pair.follower.follow(shards, [])
    for symbol in SYMBOLS:
        pair.merge(symbol, 12, 6.0)
    for shadow, shard in ((one, 0), (two, 1)):
        assert [told for told, _ in shadow.collect()] == [shard]
        ((_, beat),) = shadow.heartbeat()
        assert set(message_feed(beat).symbols) == {symbol for symbol in SYMBOLS if of[symbol] == shard}
        pair.follower.apply(beat, 0)
        for request in pair.follower.differences(beat):
            for answer in shadow.answer(request):
                pair.follower.apply(answer, 0)
        have = {symbol for symbol in SYMBOLS if pair.follower.state(symbol).newest_open_ms is not None}
        assert have == {symbol for symbol in SYMBOLS if of[symbol] <= shard}
    assert_same(block_name)


def test_a_copy_answers_for_its_leader(stack: ExitStack, pair: Pair, block_name: str) -> None:
    pair.minute = 80
    for symbol in SYMBOLS:
        pair.merge(symbol, 70, 8.0)
    pair.shadow.lead(0, 3)
    pair.repair()
    second = stack.enter_context(closing(open_block(f"{block_name}-second")))
    second.follow(1, [])
    ((_, beat),) = pair.shadow.heartbeat()
    second.apply(beat, 0)
    mirror = Shadow(f"{block_name}-copy")
    for request in second.differences(beat):
        for answer in mirror.answer(request):
            assert second.apply(answer, 0).refused is None
    assert second.differences(beat) == []
    assert contents(f"{block_name}-second", "BUSDT") == contents(block_name, "BUSDT")


def test_derived_blocks_of_a_copy_are_those_of_the_leader(stack: ExitStack, block_name: str) -> None:
    blocks = [
        stack.enter_context(
            closing(
                Writer.open(
                    name,
                    market="SPOT",
                    interval="1m",
                    length=LENGTH,
                    symbols=SYMBOLS,
                    derive=[(f"{name}-5m", "5m", 20)],
                )
            )
        )
        for name in (block_name, f"{block_name}-copy")
    ]
    shadow = Shadow(block_name)
    shadow.lead(0, 1)
    blocks[1].follow(1, [])
    for minute in range(0, 100, 3):
        newest = START_MS + minute * MINUTE_MS
        rows = [
            kline(newest - back * MINUTE_MS, float(minute - back + 1)) for back in reversed(range(min(minute + 1, 9)))
        ]
        ingest(blocks[0], "AUSDT", *rows, sent_ms=newest + 30_000)
        for _, message in shadow.collect():
            blocks[1].apply(message, 0)
        for name in (block_name, f"{block_name}-copy"):
            assert contents(name, "AUSDT")[1]
        leader, copy = (candleshm.attach(f"{name}-5m")["AUSDT"] for name in (block_name, f"{block_name}-copy"))
        assert leader.candles(20, holes="nan").tobytes() == copy.candles(20, holes="nan").tobytes()
        assert leader.states(20).tobytes() == copy.states(20).tobytes()


def test_a_reader_beside_apply_sees_no_half_answer(pair: Pair, block_name: str) -> None:
    pair.shadow.lead(0, 1)
    torn, ends = 0, threading.Event()
    feed: Feed = candleshm.attach(f"{block_name}-copy")

    def read() -> None:
        nonlocal torn
        while not ends.is_set():
            torn += torn_rows(feed["AUSDT"].candles(LENGTH, holes="drop"))

    reader = threading.Thread(target=read)
    reader.start()
    for pair.minute in range(100, 400):
        pair.merge("AUSDT", 30, float(pair.minute % 5 + 1))
        messages = [message for _, message in pair.shadow.collect()]
        if pair.minute % 3:
            for message in messages:
                pair.follower.apply(message, 0)
        else:
            pair.repair()
    ends.set()
    reader.join()
    pair.repair()
    assert torn == 0
    assert_same(block_name)


def test_a_wait_ends_with_news_and_when_it_is_roused(pair: Pair) -> None:
    pair.shadow.lead(0, 1)
    assert pair.shadow.wait(5.0)
    pair.shadow.collect()
    assert not pair.shadow.wait(0.01)
    pair.merge("AUSDT", 5, 1.0)
    assert pair.shadow.wait(5.0)
    pair.shadow.collect()
    pair.shadow.rouse()
    assert not pair.shadow.wait(60.0)
    pair.leader.close()
    assert pair.shadow.wait(60.0)
    pair.shadow.collect()
    assert not pair.shadow.wait(0.0)


def test_ages_of_a_copy_are_never_below_those_of_the_leader(pair: Pair, block_name: str) -> None:
    def age(name: str) -> float:
        return candleshm.attach(name)["AUSDT"].age or 0.0

    def ages() -> tuple[float, float]:
        """Return the ages of the copy and of the leader, whose was read first: time goes on between the two."""
        leader = age(block_name)
        return age(f"{block_name}-copy"), leader

    pair.merge("AUSDT", 5, 1.0)
    pair.shadow.lead(0, 1)
    # Whatever was measured of the clocks: an answer was made after its request.
    ((_, beat),) = pair.shadow.heartbeat()
    for offset_ns in (0, 5_000_000_000):
        pair.follower.apply(beat, offset_ns)
    for request in pair.follower.differences(beat):
        for answer in pair.shadow.answer(request):
            pair.follower.apply(answer, 60_000_000_000)
    copy, leader = ages()
    assert copy >= leader
    # Changes count by the clocks, and never as of the future.
    pair.minute = 3
    pair.merge("AUSDT", 5, 1.0)
    ((_, changes),) = pair.shadow.collect()
    pair.follower.apply(changes, 60_000_000_000)
    copy = age(f"{block_name}-copy")
    assert 0.0 <= copy <= age(block_name)
    pair.follower.close()
    pair.follower = open_block(f"{block_name}-copy")
    pair.follower.follow(1, [])
    pair.follower.apply(changes, -2_000_000_000)
    copy, leader = ages()
    assert copy >= leader + 1.9
    pair.follower.close()


def test_the_rows_of_a_copy_survive_its_own_replacement(pair: Pair, block_name: str) -> None:
    pair.minute = 70
    pair.merge("AUSDT", 50, 2.0)
    pair.shadow.lead(0, 1)
    pair.repair()
    pair.follower.enlarge([*SYMBOLS, "XUSDT", "YUSDT", "ZUSDT"])
    assert pair.repair() == 0
    assert_same(block_name)
    assert candleshm.attach(f"{block_name}-copy").health.epoch == 1


def test_what_a_follower_applied_is_replayed_from_its_recording(pair: Pair, block_name: str, tmp_path: Path) -> None:
    pair.minute = 60
    for symbol in SYMBOLS:
        pair.merge(symbol, 50, 2.0)
    pair.shadow.lead(0, 1)
    pair.repair()
    # From here on: what there is by then comes from checkpoints.
    pair.follower.record_into(tmp_path, bytes_max=1 << 24, offset_ms=START_MS)
    for minute in range(61, 80):
        pair.minute = minute
        for symbol in SYMBOLS[: 1 + minute % 3]:
            pair.merge(symbol, 3 + minute % 5, float(minute))
        pair.tell() if minute % 4 else pair.shadow.collect()
    pair.repair()
    # Then it leads itself, and refuses messages.
    pair.follower.follow(1, [0])
    pair.merge("BUSDT", 8, 70.0)
    assert {applied.refused for applied in pair.tell()} == {"led"}
    newest = START_MS + 81 * MINUTE_MS
    ingest(pair.follower, "AUSDT", *(kline(newest - back * MINUTE_MS, 3.0) for back in (2, 1, 0)), sent_ms=newest)
    before = {symbol: contents(f"{block_name}-copy", symbol) for symbol in SYMBOLS}
    pair.follower.close()
    with candleshm.replay_recording(tmp_path, name=f"{block_name}-again") as replayed:
        report = replayed.report
        assert (report.differing, report.left_out, report.missing, report.cuts) == (0, 0, 0, ()), report
        assert report.records["message"] > 10
        for symbol in SYMBOLS:
            assert contents(f"{block_name}-again", symbol) == before[symbol], symbol


def test_nothing_of_nats_is_imported() -> None:
    code = "import sys, candleshm, candleshm.cli; print([name for name in sys.modules if name.split('.')[0] == 'nats'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_rows_are_compared_by_every_bit() -> None:
    assert np.float64(-0.0) == np.float64(0.0)
    assert np.float64(-0.0).tobytes() != np.float64(0.0).tobytes()
    with pytest.raises(ConfigError, match="shards cannot be 0"):
        _core.shard_of("BTCUSDT", 0)
