"""The page "Running it", walked as an operator does: its configuration, its commands, its probes, in its order.

The simulated exchange stands in for Binance, by a variable of the environment; paths, ports and the block's name are
the test's own. What changes the machine (users, packages, systemd) is left out.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

import candleshm
from candleshm.sim import SimulatedExchange
from tests.support.apt import installed
from tests.support.commanding import CLI, DEADLINE_SECONDS, started, until

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/operating.md").read_text()
# Of the machine, not of candleshm.
LEFT_OUT = {"python3", "/opt/candleshm/bin/pip", "useradd", "install", "cp", "systemctl", "journalctl"}
PROGRAMS = {"promtool": "prometheus", "curl": "curl"}


def commands() -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture
def places(block_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What the page names, and what stands in for it, while the services of the page run."""
    with SimulatedExchange(symbols=4) as exchange, ExitStack() as services:
        monkeypatch.setenv("CANDLESHM_BASE_URL", exchange.base_url)
        [text] = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        text = text.replace("/var/lib/candleshm", str(tmp_path)).replace("metrics = 9100", "metrics = 0")
        config = tmp_path / "spot.toml"
        config.write_text(f'{text}name = "{block_name}"\n')
        stand_ins = {"/etc/candleshm/spot.toml": str(config), "candleshm-spot-1m": block_name}

        check = next(command for command in commands() if "--check" in command)
        checked = run(check, stand_ins)
        assert checked.returncode == 0, checked.stderr
        assert block_name in checked.stdout

        collector = services.enter_context(started("serve", "--config", str(config)))
        gateway = services.enter_context(
            started("gateway", "--listen", "0", "--block", block_name, "--base-url", exchange.base_url)
        )
        until(lambda: any(health.name == block_name and health.ready for health in candleshm.blocks()))
        assert collector.stdout is not None
        assert gateway.stdout is not None
        metrics = next(line for line in collector.stdout if line.startswith("metrics: ")).split()[-1]
        stand_ins |= {
            "http://127.0.0.1:9100/metrics": metrics,
            "http://127.0.0.1:8700": gateway.stdout.readline().split()[-1],
            "SYMBOL": "BTCUSDT",
        }
        yield stand_ins


def run(command: str, places: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the page, pipes included."""
    for shown, ours in places.items():
        command = command.replace(shown, ours)
    command = re.sub(r"\bcandleshm (?=[a-z])", f"{shlex.join(CLI)} ", command)
    # What runs until it is stopped shows one frame.
    command = re.sub(r"(candleshm top)\b", r"\1 --once", command)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def test_every_command_of_the_page_does_what_it_says(places: dict[str, str]) -> None:
    installed(PROGRAMS)
    until(lambda: requests.get(f"{places['http://127.0.0.1:8700']}/health/ready", timeout=DEADLINE_SECONDS).ok)
    words = {command: shlex.split(command, comments=True) for command in commands()}
    # The check comes before the service runs, and did.
    walked = [command for command in words if words[command][0] not in LEFT_OUT and "--check" not in words[command]]
    for command in walked:
        done = run(command, places)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert len(walked) >= 9
