"""The flags by which a command reaches the servers of a cluster."""

from __future__ import annotations

import argparse

from candleshm.cluster.settings import CLUSTER_KEYS, SECRET_KEYS

__all__ = ["add_cluster_flags"]

FORMS = {"cluster": "URL,...", "cluster_replicas": "N", "cluster_credentials": "FILE", "cluster_ca": "FILE"}


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each key of the cluster that is no secret; what is not given is None."""
    for name, setting in CLUSTER_KEYS.items():
        if name not in SECRET_KEYS:
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                help=setting.help,
                metavar=FORMS.get(name, "TEXT"),
                type=int if name == "cluster_replicas" else str,
            )
