"""What changes in the world arrives on every host: listings, holes, corrections, lengths; and clocks may be wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import candleshm
from candleshm.columns import OPEN_TIME_MS
from candleshm.row_state import RowState
from candleshm.sim import Outage
from tests.support.nats_servers import Here
from tests.support.running_cluster import Member, RunningCluster, in_time_namespace, running_cluster, until

PROGRAMS = Path(__file__).parent / "native"
REFRESH = ("--universe-refresh-seconds", "0.3")


def enlist(running: RunningCluster, *symbols: str) -> None:
    """List SPOT symbols that trade since two minutes ago."""
    truth = running.exchange.truth
    listed_ms = (running.exchange.now_ms() // 60_000 - 2) * 60_000
    for symbol in symbols:
        like = truth.instrument("SPOT", "BTCUSDT")
        truth.enlist(replace(like, symbol=symbol, base=symbol.removesuffix("USDT"), listed_ms=listed_ms))


def rows_of(member: Member, symbol: str) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], list[int]]:
    """Return the rows of a series that are final, and the states of all slots up to them."""
    rows, states = member.feed[symbol].snapshot(holes="nan")
    end = int(np.flatnonzero(states == RowState.LIVE)[0]) if (states == RowState.LIVE).any() else len(states)
    return rows[:end], states[:end].tolist()


def alike(first: Member, second: Member, symbol: str) -> int:
    """Return how many final rows two blocks have both, with the same values and states; 0 while some differ."""
    (rows, states), (others, other_states) = rows_of(first, symbol), rows_of(second, symbol)
    _, here, there = np.intersect1d(rows[:, OPEN_TIME_MS], others[:, OPEN_TIME_MS], return_indices=True)
    same_states = [states[index] for index in here] == [other_states[index] for index in there]
    return len(here) if same_states and rows[here].tobytes() == others[there].tobytes() else 0


def test_a_symbol_that_is_listed_and_a_universe_that_outgrows_its_block_arrive(block_name: str, tmp_path: Path) -> None:
    with running_cluster(block_name, tmp_path) as running:
        running.universe = "all"
        for _ in range(2):
            running.collect("--spare-symbols", "2", *REFRESH)
        running.mirror()
        running.until_equal()
        enlist(running, "FRESHUSDT")
        running.symbols = (*running.symbols, "FRESHUSDT")
        running.until_equal()
        more = [f"MORE{number}USDT" for number in range(1, 6)]
        enlist(running, *more)
        running.symbols = (*running.symbols, *more)
        running.until_equal()
        leader = running.leader()
        assert {*leader.feed.symbols} == {*running.mirrors[0].feed.symbols}


@pytest.mark.long
def test_a_hole_arrives_and_so_does_what_fills_it(block_name: str, tmp_path: Path) -> None:
    with running_cluster(block_name, tmp_path, symbols=("BTCUSDT", "ETHUSDT"), length=300) as running:
        # A whole minute: candles of a minute that an outage cuts have no trades.
        start_ms = running.exchange.now_ms() // 60_000 * 60_000 - 120_000
        running.exchange.truth.add_outage(
            Outage(start_ms=start_ms, end_ms=start_ms + 60_000, market="SPOT", symbol="ETHUSDT")
        )
        leader, other, mirror = running.collect(), running.collect(), running.mirror()
        for member in (leader, other, mirror):
            until(lambda member=member: "ETHUSDT" in member.feed and holes(member) == 60, running.describe)  # type: ignore[misc]
        running.assert_no_lies()
        running.exchange.truth.end_outages()
        # Who takes over asks for holes at once.
        running.leader().kill()
        revision = mirror.feed["ETHUSDT"].revision
        running.until_equal(*(member for member in running.members if member.process is not None))
        assert mirror.feed["ETHUSDT"].revision > revision


def holes(member: Member) -> int:
    """Return how many rows of ETHUSDT the exchange is known not to have; 0 while others are missing."""
    gaps = member.feed["ETHUSDT"].gaps()
    if any(gap.kind == "missing" for gap in gaps):
        return 0
    return sum((gap.end_ms - gap.start_ms) // 1000 for gap in gaps)


@pytest.mark.long
def test_a_correction_of_old_rows_arrives(block_name: str, tmp_path: Path) -> None:
    """Audits find it, which collectors have that are fed by streams."""
    with running_cluster(block_name, tmp_path, symbols=("BTCUSDT",), length=300, live="ws") as running:
        running.collect()
        running.collect()
        mirror = running.mirror()
        running.until_equal()
        revision = mirror.feed["BTCUSDT"].revision
        minute_ms = running.exchange.now_ms() // 60_000 * 60_000 - 120_000
        running.judge.restate("BTCUSDT", minute_ms)
        running.until_equal()
        assert mirror.feed["BTCUSDT"].revision > revision


@pytest.mark.long
def test_hosts_have_lengths_of_their_own(block_name: str, tmp_path: Path) -> None:
    with running_cluster(block_name, tmp_path) as running:
        running.collect()
        running.collect("--length", "200")
        short = running.mirror("--length", "60")
        running.mirror("--length", "90")
        running.until_equal()
        assert short.feed.length == 60
        running.leader().kill()
        running.until_equal(*(member for member in running.members if member.process is not None))


@pytest.mark.long
def test_a_leader_whose_block_has_another_length_now_supersedes_its_old_one(block_name: str, tmp_path: Path) -> None:
    with running_cluster(block_name, tmp_path) as running:
        leader, mirror = running.collect(), running.mirror()
        running.until_equal()
        leader.kill()
        leader.words = [*leader.words, "--length", "180"]
        leader.start()
        until(lambda: leader.feed.length == 180, running.describe)
        running.until_equal()
        assert running.leader() is leader
        assert mirror.feed.health.state == "ready"


def test_derived_blocks_of_mirrors_equal_those_of_the_leader(block_name: str, tmp_path: Path) -> None:
    """As far back as the mirror's own window gives them: older rows a collector requests from the exchange."""
    derive = ("--derive", "1m,3m")
    with running_cluster(block_name, tmp_path, length=900, derived=["1m", "3m"]) as running:
        leader, mirror = running.collect(*derive), running.mirror(*derive)
        running.until_equal()
        for interval, rows in (("1m", 13), ("3m", 3)):
            pair = [replace(member, block=f"{member.block}-{interval}", _feed=None) for member in (leader, mirror)]
            for symbol in running.symbols:
                until(partial(has_alike, pair[0], pair[1], symbol, rows), running.describe)


def has_alike(first: Member, second: Member, symbol: str, count: int) -> bool:
    """Whether two blocks have so many final rows both, alike."""
    return alike(first, second, symbol) >= count


class WrongClocks(Here):
    """This machine, with other boot and monotonic clocks."""

    def __init__(self, offset_seconds: int) -> None:
        self._offset_seconds = offset_seconds

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the words that run a command among those clocks."""
        return [*in_time_namespace(self._offset_seconds), *words]


def test_clocks_of_hosts_are_wrong_by_minutes(block_name: str, tmp_path: Path) -> None:
    library = tmp_path / "wrong_clock.so"
    compiled = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(library)]
    subprocess.run([*compiled, str(PROGRAMS / "wrong_clock.c"), "-ldl"], check=True)

    def wrong(seconds: int) -> dict[str, str]:
        return {"LD_PRELOAD": str(library), "WRONG_CLOCK_SECONDS": str(seconds)}

    elsewhere = WrongClocks(100_000)
    with running_cluster(block_name, tmp_path) as running:
        running.collect(environment=wrong(660))
        running.collect(environment=wrong(-420))
        mirror = running.mirror(environment=wrong(3600), place=elsewhere)
        running.until_equal()
        # What a strategy on that host sees: data that is fresh, and not from the future.
        code = (
            "import candleshm\n"
            f"series = candleshm.attach({mirror.block!r}, max_age=10.0)['BTCUSDT']\n"
            "series.candles()\n"
            "print(series.age)"
        )
        shown = subprocess.run(
            elsewhere.command([sys.executable, "-c", code]), capture_output=True, text=True, check=True
        )
        assert 0 <= float(shown.stdout) < 10
        running.leader().kill()
        running.until_equal(*(member for member in running.members if member.process is not None))
        assert candleshm.attach(mirror.block).symbols == running.symbols
