"""What lies between members fails without dying: messages are spoiled, streams vanish, a disk is full."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
import pytest
from nats.js import JetStreamContext

from tests.support.bad_relay import FAULTS, bad_relay
from tests.support.later_messages import of_later_major, of_later_minor
from tests.support.nats_servers import Security
from tests.support.running_cluster import running_cluster, until


def test_messages_come_twice_late_cut_altered_or_never(block_name: str, tmp_path: Path) -> None:
    with running_cluster(block_name, tmp_path) as running:
        near, far = f"{block_name}-near", f"{block_name}-far"
        running.collect("--cluster-prefix", near)
        with bad_relay(running.servers[0].url, near, far) as relay:
            mirror = running.mirror("--cluster-prefix", far)
            running.until_equal(seconds=5)
            until(lambda: {*FAULTS} <= relay.spoiled.keys(), running.describe)
            running.assert_no_lies()
            relay.is_honest = True
            running.until_equal(mirror)


def test_a_mirror_beside_a_leader_of_a_later_version(block_name: str, tmp_path: Path) -> None:
    with running_cluster(block_name, tmp_path) as running:
        near, far = f"{block_name}-near", f"{block_name}-far"
        running.collect("--cluster-prefix", near)
        with bad_relay(running.servers[0].url, near, far) as relay:
            relay.is_honest, relay.rewrite = True, of_later_minor
            mirror = running.mirror("--cluster-prefix", far)
            running.until_equal()
            # Of the next major it takes nothing, says so ever more rarely, and serves what it has.
            relay.rewrite = of_later_major
            until(lambda: mirror.feed["BTCUSDT"].age > 3, running.describe)
            running.assert_no_lies()
            assert 1 <= mirror.log.count("another major version") < 10
            relay.rewrite = bytes
            running.until_equal()


async def purge(streams: JetStreamContext, name: str) -> None:
    await streams.purge_stream(name)


async def delete(streams: JetStreamContext, name: str) -> None:
    await streams.delete_stream(name)


@pytest.mark.long
@pytest.mark.parametrize("change", [purge, delete])
def test_streams_vanish(
    block_name: str, tmp_path: Path, change: Callable[[JetStreamContext, str], Awaitable[None]]
) -> None:
    """All of them: the log of changes, and what keeps the leases."""

    async def change_all(url: str) -> int:
        client = await nats.connect(url)
        streams = client.jetstream()
        names = [info.config.name or "" for info in await streams.streams_info()]
        for name in names:
            await change(streams, name)
        await client.close()
        return len(names)

    with running_cluster(block_name, tmp_path) as running:
        running.collect()
        running.collect()
        running.mirror()
        running.until_equal()
        assert asyncio.run(change_all(running.servers[0].url)) >= 1
        running.until_equal()
        running.leader().kill()
        running.until_equal(*(member for member in running.members if member.process is not None))


def test_a_node_has_no_space_left_on_its_disk(block_name: str, tmp_path: Path) -> None:
    with running_cluster(block_name, tmp_path, disk_bytes=8 << 20) as running:
        running.collect()
        running.collect()
        running.mirror()
        running.until_equal()
        leader, epoch = running.leader(), running.members[-1].feed.health.epoch
        running.servers[0].fill_disk()
        # A lease in a file would end once the last page of the file is written, and not come back.
        running.until_equal(seconds=15)
        running.servers[0].free_disk()
        running.until_equal()
        assert (running.leader(), running.members[-1].feed.health.epoch) == (leader, epoch)


MIRROR_RIGHTS = (
    '{ publish: ["candleshm.*.*.ask.*", "candleshm.*.*.clock.*", "candleshm.*.*.present.*", "$JS.API.DIRECT.GET.>"], '
    'subscribe: ["candleshm.>", "_INBOX.>"] }'
)
"""What docs/cluster.md gives to mirrors."""


def test_a_mirror_needs_no_right_to_publish_changes(block_name: str, tmp_path: Path) -> None:
    users = '{ user: "collector", password: "s3cret" }'
    users += f', {{ user: "mirror", password: "other", permissions: {MIRROR_RIGHTS} }}'
    page = (Path(__file__).parent.parent / "docs" / "cluster.md").read_text()
    assert MIRROR_RIGHTS in " ".join(page.split())

    def known_as(user: str, password: str) -> dict[str, str]:
        return {"CANDLESHM_CLUSTER_USER": user, "CANDLESHM_CLUSTER_PASSWORD": password}

    security = Security(authorization=f"{{ users: [{users}] }}")
    with running_cluster(block_name, tmp_path, security=security) as running:
        leader = running.collect(environment=known_as("collector", "s3cret"))
        mirror = running.mirror(environment=known_as("mirror", "other"))
        running.until_equal()
        mirror.pause()
        time.sleep(3)
        mirror.resume()
        running.until_equal()
        for member in (leader, mirror):
            assert "ermission" not in member.log
            assert "s3cret" not in member.log
