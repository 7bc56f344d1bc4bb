"""Mirrors answer for leaders that are stopped, dead, or busy: a host joins from another mirror, with the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

import candleshm
from candleshm._core import Writer
from candleshm.cluster.clock_offset import boot_ns
from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.message import Message
from candleshm.cluster.mirror import Mirror
from candleshm.cluster.mirror_config import MirrorConfig
from candleshm.cluster.requests import Requests
from candleshm.cluster.subjects import Subjects
from tests.support.commanding import until
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline
from tests.support.nats_servers import NatsServer, Security, nats_server
from tests.support.telling import differences_of, leading, mirroring, reaching

LENGTH = 120
SYMBOLS = ["AUSDT", "BUSDT", "CUSDT"]


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with nats_server() as server:
        yield server


@pytest.fixture
def block(block_name: str) -> Iterator[Writer]:
    with closing(
        Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=SYMBOLS, spare_symbols=1)
    ) as writer:
        merge(writer, 100)
        yield writer


def merge(writer: Writer, minute: int) -> None:
    """Merge rows of all symbols up to that minute."""
    newest_ms = START_MS + minute * MINUTE_MS
    for number, symbol in enumerate(SYMBOLS, 1):
        rows = [kline(newest_ms - back * MINUTE_MS, number + back % 7) for back in reversed(range(90))]
        ingest(writer, symbol, *rows, sent_ms=newest_ms + 30_000)


def config(name: str, number: int, length: int | None = None) -> MirrorConfig:
    """Return the settings of a mirror of that number."""
    return MirrorConfig(name=name, local=f"{name}-m{number}", length=length)


def is_complete(mirror: Mirror) -> bool:
    """Return whether a mirror has found that it has all that its leaders have."""
    assert not mirror.has_ended
    return mirror.status is not None and mirror.status.is_equal


def answers(mirror: Mirror) -> bool:
    """Return whether a mirror takes requests of others."""
    return mirror._answers is not None and bool(mirror._answers._asked)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_mirror_joins_from_another_when_the_leader_is_gone(server: NatsServer, block: Writer, shards: int) -> None:
    with mirroring(reaching(server), config(block.name, 1)) as first:
        with leading(reaching(server), block.name, shards=shards):
            until(lambda: is_complete(first) and answers(first))
            merge(block, 103)
            until(lambda: not differences_of(block.name, f"{block.name}-m1"))
        with mirroring(reaching(server), config(block.name, 2)) as second:
            until(lambda: second.is_open and not differences_of(f"{block.name}-m1", f"{block.name}-m2"))
            assert first.answered > 0
            with (
                candleshm.attach(f"{block.name}-m1", max_age=1e9) as one,
                candleshm.attach(f"{block.name}-m2", max_age=1e9) as two,
            ):
                assert len(two["AUSDT"].candles(LENGTH)) == 93
                # Rows that came by way of a mirror are as old as they are there, or seem older.
                age = one["AUSDT"].age
                assert two["AUSDT"].age >= age
            # The next leader goes on with both.
            merge(block, 104)
            with leading(reaching(server), block.name, epoch=2, shards=shards):
                for number in (1, 2):
                    until(lambda number=number: not differences_of(block.name, f"{block.name}-m{number}"))  # type: ignore[misc]
                until(lambda: is_complete(first) and is_complete(second))


def test_a_mirror_that_is_shorter_or_behind_leaves_requests_to_others(server: NatsServer, block: Writer) -> None:
    short, other = config(block.name, 1, length=50), config(block.name, 2)
    with mirroring(reaching(server), short) as first, mirroring(reaching(server), other) as second:
        with leading(reaching(server), block.name):
            until(lambda: is_complete(first) and answers(second))
            assert not answers(first)
        with mirroring(reaching(server), config(block.name, 3)) as third:
            until(lambda: third.is_open and not differences_of(f"{block.name}-m2", f"{block.name}-m3"))
        assert first.answered == 0 < second.answered


def test_a_mirror_without_the_right_to_answer_takes_no_requests(
    block: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    rights = '{ publish: ["candleshm.>", "$JS.API.DIRECT.GET.>"], subscribe: ["candleshm.>", "_INBOX.>"] }'
    users = f'{{ user: "all", password: "a" }}, {{ user: "some", password: "b", permissions: {rights} }}'
    with nats_server(security=Security(authorization=f"{{ users: [{users}] }}")) as server:
        known = reaching(server, cluster_user="all", cluster_password="a")
        limited = reaching(server, cluster_user="some", cluster_password="b")
        with mirroring(limited, config(block.name, 1)) as first, leading(known, block.name):
            until(lambda: is_complete(first))
            with mirroring(known, config(block.name, 2)) as second:
                until(lambda: answers(second))
            # As long as the other one took, at least, nothing was taken and nothing complained of.
            assert is_complete(first)
            assert not answers(first)
            assert "ermission" not in caplog.text


def test_a_request_is_tried_again_when_who_took_it_has_not_the_rows(server: NatsServer, block_name: str) -> None:
    subjects = Subjects("candleshm", "main", block_name)
    taken: list[Message] = []
    answers: list[Message] = []
    with ClusterConnection(reaching(server), "test") as connection:

        def answer(request: Message) -> None:
            taken.append(request)
            if len(taken) == 3:
                connection.publish_soon(request.reply, b"rows")
            connection.publish_soon(request.reply, b"")

        connection.subscribe(subjects.ask(0), answer)
        sending = Requests(connection, subjects, answers.append)
        sending.put(0, [b"which rows"])

        def is_done() -> bool:
            while answers:
                sending.take(answers.pop(0))
            sending.look(boot_ns())
            return not sending.is_busy(0)

        until(is_done)
        assert [request.data for request in taken] == [b"which rows"] * 3
        assert (sending.sent, sending.unanswered) == (3, 0)
