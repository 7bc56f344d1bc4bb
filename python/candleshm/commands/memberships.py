"""The memberships of the feeds of `serve --cluster`: one connection to the servers for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from candleshm.cluster.member_config import MemberConfig
from candleshm.cluster.settings import ClusterSettings
from candleshm.commands.log import CLUSTER_LIBRARIES, HeldLog
from candleshm.commands.streams import say
from candleshm.config import CollectorConfig

if TYPE_CHECKING:
    from candleshm.cluster.member import Member

__all__ = ["check_servers", "memberships"]

OPEN_SECONDS = 3.0


def check_servers(settings: ClusterSettings) -> None:
    """Print that a server of the cluster takes this program. Raises MissingExtra, and as `ClusterConnection.open`."""
    log = HeldLog("warning", "text", *CLUSTER_LIBRARIES)
    from candleshm.cluster.connection import ClusterConnection

    connection = ClusterConnection(settings, "candleshm serve --check")
    connection.open(OPEN_SECONDS)
    connection.close()
    log.release()
    say(f"cluster {settings.name}: connected to {','.join(settings.urls)}\n")


@contextmanager
def memberships(
    cluster: ClusterSettings | None, feeds: Sequence[CollectorConfig], members: Mapping[str, MemberConfig]
) -> Iterator[dict[str, Member]]:
    """Connect to the cluster, and give the membership of each feed by the name of its block; none without a cluster.

    Nothing of NATS is imported without one. Raises MissingExtra, and ClusterRefused when a server refuses this program.
    """
    if cluster is None:
        yield {}
        return
    from candleshm.cluster.connection import ClusterConnection

    connection = ClusterConnection(cluster, "candleshm serve")
    # Without servers a host serves itself.
    connection.open(OPEN_SECONDS, patiently=True)
    with closing(connection):
        from candleshm.cluster.member import Member

        yield {
            config.block_name: Member(
                connection,
                config,
                feed=members[config.block_name].feed,
                shards=members[config.block_name].shards,
            )
            for config in feeds
        }
