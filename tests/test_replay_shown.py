"""A block of a replay beside blocks of collectors: every view shows the replayed time, and none raises an alarm."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests

import candleshm
from candleshm import _core
from candleshm.commands.overview import Overview
from candleshm.commands.screen import Screen
from candleshm.gateway.directory import BlockDirectory
from candleshm.gateway.page.watched_block import WatchedBlock
from candleshm.reader.notes import note
from tests.support.commanding import run
from tests.support.gateways import gateway
from tests.support.replaying import START_MS, Given, made

STATIC = Path(candleshm.__file__).parent / "gateway" / "static"
TIME = "2023-11-15 00:00:00 UTC"


@pytest.fixture
def replay(block_name: str) -> Iterator[_core.Replay]:
    given = Given(["AUSDT", "BUSDT"])
    with closing(made(block_name, given, 120)) as replay:
        given.replay = replay
        yield replay


def test_commands_show_a_replay_calmly(replay: _core.Replay) -> None:
    name = replay.name
    (line,) = (line for line in run("ls").stdout.splitlines() if line.startswith(name))
    assert " replay " in line
    assert line.endswith(f"at {TIME}")
    checked = run("check", name)
    assert (checked.returncode, checked.stdout) == (0, f"{name}: replay, at {TIME}\n")
    assert f"  replay: {TIME}" in run("top", name, "--once").stdout.splitlines()[0]
    with candleshm.attach(name) as feed:
        title, *_ = Overview(Screen()).frame([feed.health], [])
    assert title.endswith("all well")


def test_nobody_is_told_to_start_the_collector_of_a_replay(replay: _core.Replay) -> None:
    with candleshm.attach(replay.name) as feed:
        health = feed.health
    assert note(dataclasses.replace(health, state="closed")) == "its replay has ended"
    dead = note(dataclasses.replace(health, state="dead"))
    assert dead == f"replay {health.pid} is dead: `candleshm rm {replay.name}`"


def test_a_gateway_says_that_a_block_is_a_replay(block_name: str) -> None:
    symbol = f"X{os.getpid()}USDT"  # that no other test has
    with closing(made(block_name, Given([symbol]), 120)):
        path = f"api/v3/klines?symbol={symbol}&interval=1m&endTime={START_MS}"
        with gateway([], "http://127.0.0.1:1") as url:
            refused = requests.get(f"{url}/{path}", timeout=60).json()["msg"]
        assert refused == (
            f"block {block_name} carries {symbol}, but it is a replay, of another time than now; start a gateway with "
            f"--block {block_name} --max-age 120 to be answered from it"
        )
        with gateway([block_name], "http://127.0.0.1:1", max_age_seconds=120.0) as url:
            answered = requests.get(f"{url}/{path.partition('&end')[0]}", timeout=60)
        assert "replay" not in answered.text
        directory = BlockDirectory(exchanges={"SPOT": "binance"})
        with closing(directory):
            directory.look()
            why = directory.why_left_out(block_name)
        flags = f"--block {block_name} --max-age 120"
        assert why == f"it is a replay, of another time than now; a gateway with `{flags}` answers from it"


def test_the_page_shows_a_replay_calmly(replay: _core.Replay) -> None:
    with closing(WatchedBlock(replay.name)) as block:
        row = block.as_row()
    assert (row["condition"], row["note"]) == ("replay", f"at {TIME}")
    assert (row["role"], row["source"], row["lag"]) == (None, None, None)
    severity = re.search(r"SEVERITY = \{(.*?)\}", (STATIC / "board.js").read_text())
    signs = re.search(r"SIGNS = \{(.*?)\}", (STATIC / "collectors.js").read_text(), re.DOTALL)
    assert severity is not None
    assert signs is not None
    assert "replay: 0" in severity[1]
    assert "replay: " in signs[1]
