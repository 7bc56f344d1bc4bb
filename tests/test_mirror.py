"""Mirrors over real servers: what a leader has, a mirror has, whatever was missed, listed, corrected or confirmed."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

import candleshm
from candleshm._core import Writer
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.log import ChangeLog
from candleshm.cluster.message import Message
from candleshm.cluster.message_head import MessageHead
from candleshm.cluster.mirror import Mirror
from candleshm.cluster.mirror_config import MirrorConfig
from candleshm.cluster.publisher import FOREVER_NS
from candleshm.collector.collector import Collector
from candleshm.config import CollectorConfig
from candleshm.errors import BlockNotFound, StaleData
from candleshm.reader.feed import Feed
from candleshm.sim import SimulatedExchange
from tests.support.collecting import SYMBOLS as LISTED
from tests.support.commanding import complaint, first_line, started, until
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline
from tests.support.nats_servers import NatsServer, nats_server
from tests.support.telling import differences_of, leading, mirroring, reaching

LENGTH = 120
SYMBOLS = ["AUSDT", "BUSDT", "CUSDT"]


class Block:
    """The block of a leader, written by hand; its minute goes on with each candle."""

    def __init__(self, name: str, length: int = LENGTH, derive: list[tuple[str, str, int]] | None = None) -> None:
        self.name = name
        self.minute = 0
        self.writer = Writer.open(
            name, market="SPOT", interval="1m", length=length, symbols=SYMBOLS, spare_symbols=1, derive=derive
        )

    def close(self) -> None:
        """Remove the block."""
        self.writer.close()

    def merge(self, symbol: str, count: int, value: float) -> None:
        """Merge the newest rows up to the present minute, the live one among them, as a response."""
        newest_ms = START_MS + self.minute * MINUTE_MS
        rows = [kline(newest_ms - back * MINUTE_MS, value + back % 7) for back in reversed(range(count))]
        ingest(self.writer, symbol, *rows, sent_ms=newest_ms + 30_000)

    def fill(self, minutes: int = 100) -> None:
        """Merge rows of all symbols, up to the minute of that number."""
        self.minute = minutes
        for number, symbol in enumerate(SYMBOLS, 1):
            self.merge(symbol, min(minutes, LENGTH - 1), float(number))


class Lease:
    """Whether a leader may publish, and how often it was told that it may not."""

    def __init__(self) -> None:
        self.holds = True
        self.refusals = 0

    def __call__(self, shard: int) -> int:
        self.refusals += not self.holds
        return FOREVER_NS if self.holds else 0

    def end(self) -> None:
        """End the lease; the leader knows it afterwards."""
        self.holds = False
        self.until_known()

    def until_known(self) -> None:
        """Wait until the leader was told so once more, and has looked at its block in between."""
        until(partial(lambda count: self.refusals > count + 1, self.refusals))


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with nats_server() as server:
        yield server


@pytest.fixture
def block(block_name: str) -> Iterator[Block]:
    with closing(Block(block_name)) as block:
        yield block


@contextmanager
def copy_of(server: NatsServer, block: Block, length: int | None = None) -> Iterator[Mirror]:
    """Keep a mirror of a block whose leader is there, and wait until it has everything."""
    config = MirrorConfig(name=block.name, local=f"{block.name}-copy", length=length)
    with mirroring(reaching(server), config) as mirror:
        until(lambda: is_equal(mirror))
        yield mirror


def is_equal(mirror: Mirror) -> bool:
    """Return whether a mirror has found that it has all that its leaders have."""
    assert not mirror.has_ended
    return mirror.status is not None and mirror.status.is_equal


def same(block: Block) -> bool:
    """Return whether the copy of a block has the same symbols, rows and states."""
    return not differences_of(block.name, f"{block.name}-copy")


def watched(feed: Feed, count: int) -> tuple[threading.Thread, list[int]]:
    """Watch the next closes of a feed in a thread that has begun to wait; return it and what will be their times."""
    closes, seen = feed.closes(), list[int]()

    def watch() -> None:
        for close in closes:
            assert close.missing == ()
            seen.append(close.open_time_ms)
            if len(seen) == count:
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread, seen


def test_a_mirror_without_servers_waits_for_these_first(
    server: NatsServer, block: Block, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candleshm.cluster.mirror.SILENT_SECONDS", 0.5)
    server.kill()
    connection = ClusterConnection(reaching(server), "mirror")
    connection.open(0.1, patiently=True)
    with closing(connection):
        mirror = Mirror(MirrorConfig(name=block.name), connection)
        mirror.start()
        threading.Event().wait(2.0)
        assert "tells of feed" not in caplog.text
        server.start()
        server.wait()
        until(lambda: "tells of feed" in caplog.text)
        mirror.stop()


def test_a_late_mirror_has_every_row_then_every_change_and_wakes_once_per_close(
    server: NatsServer, block: Block
) -> None:
    block.fill()
    with leading(reaching(server), block.name) as leader, copy_of(server, block) as mirror:
        assert same(block)
        with candleshm.attach(f"{block.name}-copy") as feed:
            health = feed.health
            assert (health.source, health.epoch) == (leader.source, 1)
            assert health.lag is not None
            assert health.lag >= 0
            thread, seen = watched(feed, 20)
            for block.minute in range(101, 121):
                for symbol in SYMBOLS:
                    block.merge(symbol, 2, float(block.minute))
                until(partial(lambda count: len(seen) == count, block.minute - 100))
                assert same(block)
            thread.join(10)
            assert seen == [START_MS + minute * MINUTE_MS for minute in range(100, 120)]
        assert mirror.status is not None
        assert mirror.status.refused == {}
        assert mirror.status.shards[0].gaps == 0
    with pytest.raises(BlockNotFound):
        candleshm.attach(f"{block.name}-copy")


def test_new_symbols_corrections_holes_and_a_larger_universe_arrive(server: NatsServer, block: Block) -> None:
    block.fill()
    with leading(reaching(server), block.name), copy_of(server, block):
        feed = candleshm.attach(f"{block.name}-copy")
        # A symbol in a free place, then more than the block has places for: readers move to a larger one.
        block.writer.add_symbol("DUSDT")
        block.merge("DUSDT", 50, 9.0)
        until(lambda: same(block))
        more = [f"E{number}USDT" for number in range(40)]
        block.writer.enlarge([*block.writer.symbols, *more])
        for symbol in more[1:]:
            block.merge(symbol, 3, 4.0)
        until(lambda: same(block))
        assert set(feed.symbols) >= {"DUSDT", *more}
        assert feed["E39USDT"].last_close == block_close(block, "E39USDT")
        # A row of an hour ago that the exchange corrects.
        old_ms = START_MS + (block.minute - 60) * MINUTE_MS
        sent_ms = START_MS + block.minute * MINUTE_MS + 40_000
        ingest(block.writer, "AUSDT", kline(old_ms, 77.0), sent_ms=sent_ms, end_ms=old_ms)
        until(lambda: same(block) and 77.0 in feed["AUSDT"].candles(LENGTH))
        # Rows that two responses agree not to have.
        newest_ms = START_MS + block.minute * MINUTE_MS
        rows = [kline(newest_ms - back * MINUTE_MS, 4.0) for back in (12, 11, 4, 3, 2, 1, 0)]
        for later_ms in (0, 5_000):
            ingest(block.writer, more[0], *rows, sent_ms=newest_ms + 30_000 + later_ms)
        until(lambda: same(block) and any(gap.kind == "hole" for gap in feed[more[0]].gaps()))
        assert feed[more[0]].gaps() == candleshm.attach(block.name)[more[0]].gaps()
        block.writer.set_trading("CUSDT", False)
        until(lambda: has_ended(f"{block.name}-copy", "CUSDT"))
        feed.close()


def has_ended(name: str, symbol: str) -> bool:
    """Return whether readers are told that a symbol trades no longer."""
    with candleshm.attach(name, max_age=1e9) as feed:
        try:
            return math.isnan(feed[symbol].last_close)
        except StaleData:
            return True


def block_close(block: Block, symbol: str) -> float:
    """Return the newest close of a symbol in a leader's block."""
    with candleshm.attach(block.name) as feed:
        return feed[symbol].last_close


@pytest.mark.parametrize("length", [30, 400])
def test_a_mirror_may_keep_another_number_of_candles(server: NatsServer, block: Block, length: int) -> None:
    block.fill()
    with leading(reaching(server), block.name), copy_of(server, block, length):
        until(lambda: same_rows(block, min(length, 90)))
        block.minute += 7
        for symbol in SYMBOLS:
            block.merge(symbol, 9, 50.0)
        until(lambda: same_rows(block, min(length, 90)))
        old_ms = START_MS + (block.minute - 20) * MINUTE_MS
        sent_ms = START_MS + block.minute * MINUTE_MS + 40_000
        ingest(block.writer, "AUSDT", kline(old_ms, 77.0), sent_ms=sent_ms, end_ms=old_ms)
        until(lambda: same_rows(block, min(length, 90)))
        with candleshm.attach(f"{block.name}-copy") as feed:
            assert feed.length == length
            assert 77.0 in feed["AUSDT"].candles(30)


def same_rows(block: Block, count: int) -> bool:
    """Return whether the newest rows of a block and its copy are the same."""
    with candleshm.attach(block.name) as one, candleshm.attach(f"{block.name}-copy") as two:
        return all(
            one[symbol].candles(count, holes="nan").tobytes() == two[symbol].candles(count, holes="nan").tobytes()
            for symbol in SYMBOLS
        )


def test_derived_blocks_of_a_mirror_are_those_of_the_leader(server: NatsServer, block_name: str) -> None:
    with closing(Block(block_name, derive=[(f"{block_name}-5m", "5m", 20)])) as block, ExitStack() as stack:
        block.fill(60)
        stack.enter_context(leading(reaching(server), block.name))
        config = MirrorConfig(name=block.name, local=f"{block.name}-copy", derive=["5m:20"])
        mirror = stack.enter_context(mirroring(reaching(server), config))
        until(lambda: is_equal(mirror))
        assert mirror.block_names == (f"{block.name}-copy", f"{block.name}-copy-5m")
        for block.minute in range(60, 100, 3):
            for symbol in SYMBOLS:
                block.merge(symbol, 5, float(block.minute))
        until(lambda: same(block) and not differences_of(f"{block.name}-5m", f"{block.name}-copy-5m"))
        with candleshm.attach(f"{block.name}-copy-5m") as feed:
            assert len(feed["AUSDT"].candles(20)) > 10


def test_changes_that_were_never_sent_are_found_by_digests(server: NatsServer, block: Block) -> None:
    """As after a pause of the leader, whose lease is over before it can publish."""
    block.fill()
    lease = Lease()
    with leading(reaching(server), block.name, held_until_ns=lease), copy_of(server, block) as mirror:
        lease.end()
        for block.minute in range(101, 106):
            block.merge("AUSDT", 2, float(block.minute))
            lease.until_known()
        assert not shows(block, f"{block.name}-copy")
        lease.holds = True
        until(lambda: same(block) and is_equal(mirror) and gaps_of(mirror) == 1)


def gaps_of(mirror: Mirror) -> int:
    """Return how often a mirror missed changes of the first shard."""
    return 0 if mirror.status is None else mirror.status.shards[0].gaps


def shows(block: Block, name: str) -> bool:
    """Return whether the block of that name shows the newest minute."""
    with candleshm.attach(name) as feed:
        return feed["AUSDT"].last_open_time_ms == START_MS + block.minute * MINUTE_MS


def test_an_older_leader_is_not_believed_beside_a_newer_one(server: NatsServer, block: Block) -> None:
    block.fill()
    with (
        closing(Block(f"{block.name}-old")) as old,
        leading(reaching(server), block.name, epoch=7),
        copy_of(server, block) as mirror,
    ):
        old.fill(90)
        with leading(reaching(server), old.name, feed=block.name, epoch=6):
            for old.minute in range(101, 110):
                old.merge("AUSDT", 3, 1000.0)
            until(lambda: mirror.status is not None and mirror.status.refused.get("epoch", 0) >= 3)
            assert same(block)
            for symbol in SYMBOLS:
                block.merge(symbol, 3, 5.0)
            until(lambda: same(block))
        # And a newer one is, at once.
        with leading(reaching(server), old.name, feed=block.name, epoch=8):
            until(lambda: shows(old, f"{block.name}-copy"))
            with candleshm.attach(f"{block.name}-copy") as feed:
                until(lambda: feed.health.epoch == 8)


def test_damaged_and_foreign_messages_change_nothing(
    server: NatsServer, block: Block, caplog: pytest.LogCaptureFixture
) -> None:
    block.fill()
    with leading(reaching(server), block.name) as leader, copy_of(server, block) as mirror, ExitStack() as stack:
        received: list[bytes] = []
        leader.connection.subscribe(leader.subjects.changes(0), lambda message: received.append(message.data))
        until(lambda: received)
        beat = received[0]
        subject = leader.subjects.changes(0)
        # The epoch of a head may be what was damaged: it would shut out the true leader.
        broken = beat[:40] + (2**60).to_bytes(8, "little") + beat[48:]
        leader.connection.publish([(subject, message) for message in (b"", b"x" * 500, beat[:-1], broken)]).result()
        until(lambda: mirror.status is not None and mirror.status.refused.get("damaged") == 4)
        other = stack.enter_context(
            closing(Writer.open(f"{block.name}-5m", market="SPOT", interval="5m", length=9, symbols=SYMBOLS))
        )
        stack.enter_context(leading(reaching(server), other.name, feed=block.name, epoch=1))
        until(lambda: mirror.status is not None and mirror.status.refused.get("feed", 0) >= 1)
        block.merge("AUSDT", 3, 5.0)
        until(lambda: same(block))
    assert "its bytes are not what was sent" in caplog.text
    assert "another market, price, interval or exchange" in caplog.text


def test_shards_have_leaders_of_their_own(server: NatsServer, block: Block) -> None:
    block.fill()
    with leading(reaching(server), block.name, shards=3), copy_of(server, block) as mirror:
        assert mirror.status is not None
        assert sorted(mirror.status.shards) == [0, 1, 2]
        block.minute += 3
        for symbol in SYMBOLS:
            block.merge(symbol, 4, 8.0)
        until(lambda: same(block))


def test_the_log_has_what_was_missed_and_nothing_else(block: Block) -> None:
    block.fill()
    with nats_server() as server, leading(reaching(server), block.name, shards=2) as leader:
        told: list[tuple[MessageHead, bytes]] = []

        def note(message: Message) -> None:
            head = MessageHead.of(message.data)
            assert head is not None
            told.append((head, message.data))

        leader.connection.subscribe(leader.subjects.all_changes, note)
        log = ChangeLog(leader.connection, leader.subjects, block_name=block.name)
        assert log.keep()
        for block.minute in range(101, 131):
            for symbol in SYMBOLS:
                block.merge(symbol, 2, float(block.minute))
            until(partial(lambda count: len(told) > count, len(told)))
        for shard in (0, 1):
            changes = {head.sequence: data for head, data in told if (head.kind, head.shard) == ("changes", shard)}
            last = max(changes)
            assert last > 8
            for first, end in ((1, last), (3, last - 2), (last, last), (last - 1, last + 5)):
                found = log.read(shard, 1, first, end)
                assert found == [changes[number] for number in range(first, min(end, last) + 1)]
            assert log.read(shard, 2, 1, 5) == []


def test_without_jetstream_there_is_one_warning_and_mirrors_do_without(
    block: Block, caplog: pytest.LogCaptureFixture
) -> None:
    block.fill()
    with nats_server(has_jetstream=False) as server:
        lease = Lease()
        with leading(reaching(server), block.name, held_until_ns=lease), copy_of(server, block) as mirror:
            lease.end()
            block.minute += 5
            block.merge("AUSDT", 6, 3.0)
            lease.until_known()
            lease.holds = True
            block.merge("BUSDT", 6, 3.0)
            until(lambda: same(block) and is_equal(mirror))
    assert caplog.text.count("keep no log of changes (JetStream is not enabled there)") == 1


def test_a_mirror_waits_for_its_leader_and_serves_without_servers(
    block: Block, caplog: pytest.LogCaptureFixture
) -> None:
    block.fill()
    with nats_server() as server, ExitStack() as stack:
        config = MirrorConfig(name=block.name, local=f"{block.name}-copy")
        mirror = stack.enter_context(mirroring(reaching(server), config))
        until(lambda: "the mirror waits for one" in caplog.text)
        stack.enter_context(leading(reaching(server), block.name))
        until(lambda: is_equal(mirror))
        server.kill()
        block.merge("AUSDT", 3, 5.0)
        with candleshm.attach(f"{block.name}-copy") as feed:
            until(lambda: not is_equal(mirror))
            assert len(feed["AUSDT"].candles(50)) == 50
            assert feed.health.heartbeat_age < 5
            server.restart()
            until(lambda: same(block) and is_equal(mirror))


def test_nothing_of_nats_is_imported_without_a_cluster() -> None:
    code = "import sys, candleshm, candleshm.cli, candleshm.commands.serve; print('nats' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


class TestProcesses:
    """The commands, beside a collector of the simulated exchange whose block is told from here."""

    @pytest.fixture
    def told(self, server: NatsServer, block_name: str) -> Iterator[str]:
        """Return the name of a feed that has a leader."""
        with SimulatedExchange() as exchange:
            config = CollectorConfig(
                market="SPOT",
                symbols=LISTED["SPOT"],
                interval="1s",
                length=120,
                name=block_name,
                base_url=exchange.base_url,
                ws_url=exchange.ws_url,
            )
            with Collector(config) as collector, ExitStack() as stack:
                assert collector.wait_loaded(60)
                stack.enter_context(leading(reaching(server), block_name))
                yield block_name

    def test_a_mirror_is_a_block_as_any_other_and_survives_its_process(self, server: NatsServer, told: str) -> None:
        copy = f"{told}-copy"
        words = ["mirror", told, "--cluster", server.url, "--as", copy, "--derive", "1m"]
        with started(*words) as process:
            assert first_line(process) == f'mirroring {copy}: candleshm.attach("{copy}")\n'
            feed = candleshm.attach(copy)
            until(lambda: feed.health.ready and not differences_of(told, copy))
            for _ in range(3):
                close = feed.wait_closed(timeout=30.0)
                assert close.missing == ()
            process.kill()
            process.wait()
        with started(*words) as process:
            first_line(process)
            # The reader was never detached, and goes on with the one that took over.
            assert feed.wait_closed(timeout=30.0).missing == ()
            until(lambda: not differences_of(told, copy))
            assert {copy, f"{copy}-1m"} <= {health.name for health in candleshm.blocks()}
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        assert copy not in {health.name for health in candleshm.blocks()}

    def test_a_file_has_mirrors_beside_feeds_or_alone(self, server: NatsServer, told: str, tmp_path: Path) -> None:
        path = tmp_path / "cluster.toml"
        table = f'[[mirror]]\nname = "{told}"\nas = "{told}-copy"\nlength = 60\n'
        path.write_text(f'cluster = "{server.url}"\n\n{table}')
        with started("mirror", "--config", str(path)) as process:
            assert "-copy" in first_line(process)
            with candleshm.attach(f"{told}-copy") as feed:
                assert feed.length == 60
        assert "mirrors and no feed; run: candleshm mirror --config" in complaint("serve", "--config", str(path))
        path.write_text(table)
        assert "cluster is missing" in complaint("mirror", "--config", str(path))
        path.write_text(f'cluster = "{server.url}"\n[[mirror]]\nname = "x"\nlenght = 3\n')
        assert "mirror 1: unknown key `lenght`" in complaint("mirror", "--config", str(path))
        path.write_text(f'cluster = "{server.url}"\n[[mirror]]\nname = "x"\n[[mirror]]\nname = "x"\n')
        assert "two mirrors have the block `x`" in complaint("mirror", "--config", str(path))

    def test_a_mirror_of_derived_intervals_that_do_not_fit_ends_in_one_line(
        self, server: NatsServer, told: str
    ) -> None:
        words = ("mirror", told, "--cluster", server.url, "--as", f"{told}-copy", "--derive", "1h")
        assert "derive cannot be `1h` with length `120`" in complaint(*words)

    def test_a_name_that_another_collector_has_is_one_line(self, server: NatsServer, told: str) -> None:
        assert f"block `{told}`: a collector" in complaint("mirror", told, "--cluster", server.url)
