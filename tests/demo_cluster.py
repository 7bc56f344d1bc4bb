"""Three hosts, one truth, on a stage: ``make demo-cluster`` or ``python -m tests.demo_cluster [--seconds 40]``.

Two hosts collect, the third has a mirror, and each has a node of NATS: network namespaces for root, else processes side
by side. The leader is killed on stage, and `candleshm cluster status` shows who takes over. Everything that readers saw
is compared with the simulated exchange at the end; the exit code is 1 when something differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.support.cluster_hosts import network
from tests.support.commanding import CLI
from tests.support.nats_servers import HERE, Place
from tests.support.running_cluster import RunningCluster, running_cluster

LOOK_SECONDS = 2.0
CLEAR = "\033[H\033[2J"


def show(running: RunningCluster, headline: str) -> None:
    """Print the table of the cluster, as an operator on the third host sees it."""
    words = running.servers[-1].place.command([*CLI, "cluster", "status", "--cluster", running.urls])
    shown = subprocess.run(words, capture_output=True, text=True, check=False)
    clear = CLEAR if sys.stdout.isatty() else "\n"
    sys.stdout.write(f"{clear}{time.strftime('%H:%M:%S')} {headline}\n{shown.stdout}{shown.stderr}")
    sys.stdout.flush()


def watch(running: RunningCluster, headline: str, seconds: float) -> None:
    """Show the table for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        show(running, headline)
        time.sleep(min(LOOK_SECONDS, max(0.0, end - time.monotonic())))


def perform(running: RunningCluster, places: Sequence[Place], seconds: float) -> None:
    """Let the leader die and come back, and compare everything."""
    for place in places[:2]:
        running.collect("--cluster-replicas", "3", place=place)
    running.mirror(place=places[2])
    running.until_equal()
    watch(running, "two collectors and a mirror; only the leader sends requests to the exchange", seconds / 3)
    leader = running.leader()
    host, pid = running.mirrors[0].feed.health.source, leader.pid
    leader.kill()
    watch(running, f"the leader {host} was killed (kill -9 {pid})", seconds / 3)
    running.until_equal(*(member for member in running.members if member.process is not None))
    leader.start()
    running.until_equal()
    watch(running, "it is back, as a standby", seconds / 3)
    running.until_equal()
    rows = len(running.witness.records())
    sys.stdout.write(f"\n{rows} final rows and closes were seen on three hosts: each is the exchange's, bit for bit.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        places: list[Place] = [HERE] * 3
        middle: Place = HERE
        if os.geteuid() == 0:
            net = stack.enter_context(network())
            places, middle = [net.host() for _ in range(3)], net.middle
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="candleshm-demo-"))
        name = f"demo-cluster-{os.getpid()}"
        sys.stdout.write("Starting an exchange, three NATS nodes, two collectors and a mirror ...\n")
        sys.stdout.flush()
        with running_cluster(name, Path(folder), places=places, exchange_place=middle, live="ws") as running:
            try:
                perform(running, places, options.seconds)
            except AssertionError as error:
                sys.stdout.write(f"{error}\n")
                return 1
            except KeyboardInterrupt:
                sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
