"""The leader of a cluster is killed, again and again: ``python -m tests.long.leader_kills [--kills 200]``.

Three collectors, a mirror and a witness of all their blocks run on one NATS node, with 1s candles by streams. Whoever
leads is killed with SIGKILL, and started again as a standby. Printed are how long the mirror's reader waited for the
first row of the new leader, and how many final rows were seen; the exit code is 1 when any reader was shown a final row
that the exchange does not have.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.running_cluster import RunningCluster, running_cluster, until

COLLECTORS = 3
LOOK_EVERY = 10
"""After so many kills all blocks are compared with the exchange."""


@dataclass(frozen=True)
class Kills:
    """What came of it."""

    waits_seconds: list[float]
    """From each kill to the first row of the next leader at the mirror's reader."""
    rows: int
    """Final rows that readers saw, each once per block, reader and value."""

    def __str__(self) -> str:
        waits = sorted(self.waits_seconds)
        return (
            f"{len(waits)} leaders killed, {self.rows} final rows seen, none of them lost or different; the mirror's "
            f"reader waited p50 {statistics.median(waits):.2f} s, max {waits[-1]:.2f} s for a row of the next leader"
        )


def kill_leaders(name: str, folder: Path, kills: int) -> Kills:
    """Kill so many leaders. Raises AssertionError for a row that is not the exchange's, and where nobody takes over."""
    with running_cluster(name, folder, live="ws") as running:
        for _ in range(COLLECTORS):
            running.collect()
        running.mirror()
        running.until_equal()
        waits = []
        for number in range(1, kills + 1):
            waits.append(_kill(running))
            if number % LOOK_EVERY == 0:
                running.until_equal()
        running.until_equal()
        return Kills(waits, len(running.witness.records()))


def _kill(running: RunningCluster) -> float:
    leader = running.leader()
    feed = running.mirrors[0].feed
    series = feed[running.symbols[0]]
    epoch = feed.health.epoch
    newest = b""

    def is_led_anew() -> bool:
        # The newest row under the old leader: the first one of the next may come with its first word.
        nonlocal newest
        row = series.live.tobytes()
        if feed.health.epoch != epoch:
            return True
        newest = row
        return False

    began = time.monotonic()
    leader.kill()
    until(is_led_anew, running.describe)
    until(lambda: series.live.tobytes() != newest, running.describe)
    waited = time.monotonic() - began
    leader.start()
    return waited


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit code is 1 when a row was lost or different."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="candleshm-kills-") as folder:
        try:
            sys.stdout.write(f"{kill_leaders(f'kills-{os.getpid()}', Path(folder), options.kills)}\n")
        except AssertionError as error:
            sys.stdout.write(f"{error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
