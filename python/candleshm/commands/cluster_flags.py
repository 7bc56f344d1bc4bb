"""The flags by which a command reaches the servers of a cluster."""

from __future__ import annotations

import argparse

from candleshm.cluster.member_config import MEMBER_KEYS
from candleshm.cluster.settings import CLUSTER_KEYS, SECRET_KEYS
from candleshm.commands.settings import in_utf8

__all__ = ["add_cluster_flags", "add_member_flags"]

FORMS = {"cluster": "URL,...", "cluster_replicas": "N", "cluster_credentials": "FILE", "cluster_ca": "FILE"}


def add_cluster_flags(parser: argparse._ActionsContainer) -> None:
    """Add one flag for each key of the cluster that is no secret; what is not given is None."""
    for name, setting in CLUSTER_KEYS.items():
        if name not in SECRET_KEYS:
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                help=setting.help,
                metavar=FORMS.get(name, "TEXT"),
                type=int if name == "cluster_replicas" else str,
            )


def add_member_flags(parser: argparse._ActionsContainer) -> None:
    """Add the flags of a collector that is a member of a cluster; what is not given is None."""
    parser.add_argument("--as", metavar="NAME", type=in_utf8, help=MEMBER_KEYS["as"].help)
    parser.add_argument("--shards", metavar="N", type=int, help=MEMBER_KEYS["shards"].help)
