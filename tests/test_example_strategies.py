"""The strategies of `examples/` give the same signals live, in a replay and over history, over the same candles."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from candleshm.sim import SimulatedExchange
from tests.support.collecting import WorldClock, collecting
from tests.support.commanding import DEADLINE_SECONDS
from tests.support.downloading import downloaded

EXAMPLES = Path(__file__).parent.parent / "examples"
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
DAY_MS = 86_400_000
CLOSES = 8
# Of each the derived intervals, lines for each close, and signals of a day that must come up.
STRATEGIES = {
    "momentum.py": ((), 2, {"long", "short", "flat"}),
    "pairs.py": ((), 1, {"buy-first", "sell-first", "hold"}),
    "multi_interval_asof.py": (("5m",), 2, {"above", "below", "between"}),
}


@dataclass
class World:
    """A day that was lived through, and its files."""

    day: str
    candle_dir: Path
    live: dict[str, list[str]]
    """What each strategy printed beside a collector."""


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]


def output(name: str, *arguments: str) -> list[str]:
    """Run an example to its end; return the lines it printed."""
    done = subprocess.run(
        command(name, *arguments), capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Run every strategy beside a collector at noon of a day, then let the day end and download it."""
    noon_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS - 2 * DAY_MS + DAY_MS // 2
    clock = WorldClock(noon_ms)
    name = f"strategies-{time.time_ns()}"
    candle_dir = tmp_path_factory.mktemp("candles")
    live: dict[str, list[str]] = {}
    with SimulatedExchange(seed=11, symbols=4, clock_ms=clock) as exchange:
        with collecting(exchange, name, clock=clock, symbols=SYMBOLS, length=600, derive=["5m"]) as (collector, feed):
            assert feed.symbols == tuple(SYMBOLS)
            blocks = {(): [name], ("5m",): [name, f"{name}-5m"]}
            running = {
                example: subprocess.Popen(
                    command(example, "--live", *blocks[derived], "--closes", str(CLOSES)),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for example, (derived, _, _) in STRATEGIES.items()
            }
            deadline_seconds = time.monotonic() + DEADLINE_SECONDS
            while any(process.poll() is None for process in running.values()):
                assert time.monotonic() < deadline_seconds
                clock.let_pass(collector, 60)
            for example, process in running.items():
                shown, complaint = process.communicate()
                assert (process.returncode, complaint) == (0, ""), example
                live[example] = shown.splitlines()
        clock.ahead_seconds += DAY_MS / 1000
        day_ms = noon_ms // DAY_MS * DAY_MS
        downloaded(exchange, candle_dir, day_ms - DAY_MS, day_ms, clock=clock, symbols=SYMBOLS)
    return World(time.strftime("%Y-%m-%d", time.gmtime(day_ms / 1000)), candle_dir, live)


@pytest.mark.parametrize("example", STRATEGIES)
def test_a_strategy_gives_the_same_signals_live_in_a_replay_and_over_history(world: World, example: str) -> None:
    _, lines, signals = STRATEGIES[example]
    span = ["--symbols", ",".join(SYMBOLS), "--start", world.day, "--end", world.day]

    over_history = output(example, "--history", str(world.candle_dir), *span)

    assert len(over_history) == 1440 * lines
    assert {line.split()[-1] for line in over_history} == signals
    assert len(world.live[example]) == CLOSES * lines
    first = over_history.index(world.live[example][0])
    assert over_history[first : first + CLOSES * lines] == world.live[example]
    assert output(example, "--replay", str(world.candle_dir), *span) == over_history


def test_the_commands_of_the_worlds_are_those_of_their_page(world: World) -> None:
    page = (EXAMPLES / "worlds.py").read_text()
    shown = [line.split() for line in page.splitlines() if line.startswith("    python examples/")]
    ours = {"candles": str(world.candle_dir), "2026-11-02": world.day, "2026-11-27": world.day}
    assert [words[2] for words in shown] == ["--live", "--replay", "--history"]
    for words in shown[1:]:
        assert len(output(Path(words[1]).name, *(ours.get(word, word) for word in words[2:]))) == 2 * 1440
