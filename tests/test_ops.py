"""The files of ops/: what can be checked of them without systemd, docker or a Prometheus server."""

from __future__ import annotations

import ast
import configparser
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from candleshm.commands.settings import collector_configs

OPS = Path(__file__).parents[1] / "ops"
DOCKER = OPS / "docker"
UNITS = sorted(OPS.glob("systemd/*.service"))


def unit(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_finds_no_fault_in_the_units(path: Path, tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    copied = tmp_path / path.name
    # The command that a unit starts has to exist where it is checked.
    copied.write_text(path.read_text().replace("/opt/candleshm/bin/candleshm", str(Path(sys.executable).resolve())))
    assert unit(path)["Service"]["ExecStart"].startswith("/opt/candleshm/bin/candleshm ")
    if verify:
        found = subprocess.run([verify, "verify", str(copied)], capture_output=True, text=True, check=False)
        assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_units_leave_dev_shm_to_the_service_and_stop_at_a_wrong_configuration(path: Path) -> None:
    service = unit(path)["Service"]
    assert (service["Type"], service["PrivateTmp"]) == ("notify", "no")
    assert "/dev/shm" in service["ReadOnlyPaths" if "gateway" in path.name else "ReadWritePaths"]
    assert service["RestartPreventExitStatus"] == "78"
    assert not {"PrivateIPC", "RemoveIPC"} & set(service)


def test_the_image_runs_as_a_user_of_its_own() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 8700:8700"]


def test_the_containers_share_memory_and_ledger_and_nothing_listens_beyond_loopback() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert services["collector"]["ipc"] == "shareable"
    assert services["gateway"]["ipc"] == services["strategy"]["ipc"] == "service:collector"
    volumes = [*services["collector"]["volumes"], *services["gateway"]["volumes"]]
    ledgers = {volume for volume in volumes if "ledger" in volume}
    assert ledgers == {"ledger:/run/candleshm"}
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_configuration_and_the_strategy_of_the_containers_can_be_used() -> None:
    [feed] = collector_configs({}, DOCKER / "feeds.toml")
    check = (DOCKER / "Dockerfile").read_text().partition("HEALTHCHECK")[2]
    assert f'"{feed.block_name}"' in check
    program = (DOCKER / "strategy.py").read_text()
    ast.parse(program)
    assert f'"{feed.block_name}"' in program
    assert tomllib.loads((DOCKER / "feeds.toml").read_text())["cache_dir"].startswith("/var/lib/candleshm/")
