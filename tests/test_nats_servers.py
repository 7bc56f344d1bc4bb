"""The servers that cluster tests run on: they take clients, make their demands, and come back as the same ones."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import nats
import pytest
import trustme
from nats.errors import Error

from tests.support.nats_servers import NatsServer, Security, nats_cluster, nats_server, tls_of, wait_until


async def echoed(url: str, **options: Any) -> bytes:
    """Return what comes back when a client tells itself something."""
    client = await nats.connect(url, allow_reconnect=False, connect_timeout=5, **options)
    try:
        told = await client.subscribe("a.subject")
        await client.publish("a.subject", b"rows")
        return (await told.next_msg(5)).data
    finally:
        await client.close()


async def kept(url: str, replicas: int) -> int:
    """Return the sequence number under which a stream of so many nodes took a message."""
    client = await nats.connect(url, connect_timeout=5)
    try:
        stream = client.jetstream(timeout=10)
        await stream.add_stream(name="log", subjects=["log.*"], num_replicas=replicas)
        return (await stream.publish("log.1", b"rows")).seq
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
    """Return how many nodes JetStream's leader does not reach."""
    for server in servers:
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
