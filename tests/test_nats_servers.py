"""The servers that cluster tests run on: they take clients, make their demands, and come back as the same ones."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import pytest
import trustme
from nats.aio.msg import Msg
from nats.errors import Error

from tests.support.bad_relay import FAULTS, bad_relay
from tests.support.nats_servers import (
    DEADLINE_SECONDS,
    NatsServer,
    Security,
    nats_cluster,
    nats_server,
    tls_of,
    wait_until,
)


async def echoed(url: str, **options: Any) -> bytes:
    """Return what comes back when a client tells itself something."""
    client = await nats.connect(url, allow_reconnect=False, connect_timeout=DEADLINE_SECONDS, **options)
    try:
        told = await client.subscribe("a.subject")
        await client.publish("a.subject", b"rows")
        return (await told.next_msg(DEADLINE_SECONDS)).data
    finally:
        await client.close()


async def kept(url: str, replicas: int) -> int:
    """Return the sequence number under which a stream of so many nodes took a message, however long it took them."""
    client = await nats.connect(url, connect_timeout=DEADLINE_SECONDS)
    # Nodes that elect another leader answer nothing for seconds. By its id a message that comes twice is taken once.
    headers = {"Nats-Msg-Id": client.new_inbox()}
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    try:
        stream = client.jetstream(timeout=10)
        while True:
            try:
                await stream.add_stream(name="log", subjects=["log.*"], num_replicas=replicas)
                return (await stream.publish("log.1", b"rows", headers=headers)).seq
            except Error:
                if time.monotonic() > deadline_seconds:
                    raise
                await asyncio.sleep(0.1)
    finally:
        await client.close()


def test_a_server_serves_and_is_the_same_one_after_its_death() -> None:
    with nats_server() as server:
        assert asyncio.run(echoed(server.url)) == b"rows"
        assert asyncio.run(kept(server.url, 1)) == 1
        first, url = server.pid, server.url
        server.restart()
        assert (server.url, server.pid != first) == (url, True)
        assert asyncio.run(kept(server.url, 1)) == 2


def test_three_servers_are_one_and_one_may_be_missing() -> None:
    with nats_cluster() as servers:
        assert asyncio.run(kept(servers[0].url, 3)) == 1
        servers[0].kill()
        servers[1].wait()
        wait_until(lambda: missing(servers[1:]) == 1, lambda: "the others go on as if it were there")
        assert asyncio.run(kept(servers[2].url, 3)) == 2
        servers[0].start()
        servers[0].wait()


def missing(servers: list[NatsServer]) -> int:
    """Return how many nodes JetStream's leader does not reach; 0 while no leader is known."""
    for server in servers:
        meta: dict[str, Any] = {}
        with suppress(OSError):
            meta = server.monitor("jsz")["meta_cluster"]
        if meta.get("leader") == server.name:
            return sum(replica.get("offline", False) or not replica["current"] for replica in meta["replicas"])
    return 0


def test_a_server_wants_its_password_and_shows_its_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    demands = Security(tls_of(authority, tmp_path), '{ user: "candles", password: "s3cret" }')
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with nats_server(security=demands) as server:
        options = {"user": "candles", "password": "s3cret", "tls": trusting}
        assert asyncio.run(echoed(server.url, **options)) == b"rows"
        for wrong in ({"password": "guessed"}, {"tls": ssl.create_default_context()}):
            with pytest.raises((Error, ssl.SSLError)):
                asyncio.run(echoed(server.url, **{**options, **wrong}))


def test_a_bad_relay_spoils_what_it_passes_on_until_it_is_told_not_to() -> None:
    with nats_server() as server, bad_relay(server.url, "near", "far") as relay:
        sent = [f"message {number}".encode() for number in range(500)]
        spoiled = asyncio.run(relayed(server.url, sent))
        assert spoiled != sent
        assert relay.spoiled.keys() == {*FAULTS, ""}
        assert set(sent) - set(spoiled)
        assert set(spoiled) - set(sent)
        relay.is_honest = True
        assert asyncio.run(relayed(server.url, sent)) == sent


async def relayed(url: str, sent: list[bytes]) -> list[bytes]:
    """Publish messages, and ask two questions; return what came of the messages, until the second answer."""
    client = await nats.connect(url)
    told: list[bytes] = []
    answers = await client.subscribe("inbox.>")

    async def take(message: Msg) -> None:
        told.append(message.data)

    async def answer(message: Msg) -> None:
        await client.publish(message.reply, b"an answer")

    await client.subscribe("far.rows", cb=take)
    await client.subscribe("near.ask", cb=answer)
    for data in sent:
        await client.publish("near.rows", data)
    # An answer may be lost as well; one of many is not.
    for number in range(50):
        await client.publish("far.ask", b"a question", f"inbox.{number}")
    await answers.next_msg(DEADLINE_SECONDS)
    await asyncio.sleep(0.2)
    await client.close()
    return told


def test_a_disk_can_be_filled_and_freed() -> None:
    with nats_server(disk_bytes=8 << 20) as server:
        assert asyncio.run(kept(server.url, 1)) == 1
        server.fill_disk()
        with pytest.raises(Error):
            asyncio.run(filled(server.url))
        assert "no space left" in server.log
        server.free_disk()


async def filled(url: str) -> None:
    """Put more into a stream than the node has space for."""
    client = await nats.connect(url, connect_timeout=5)
    try:
        stream = client.jetstream(timeout=2)
        for _ in range(100):
            await stream.publish("log.1", bytes(100_000))
    finally:
        await client.close()
