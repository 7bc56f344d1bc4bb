"""Logs: an embedding program keeps its levels and handlers; each line has its module and its block."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from candleshm.sim import SimulatedExchange
from candleshm.system.block_log import BlockLog
from candleshm.system.log_lines import JsonFormatter
from tests.support.commanding import DEADLINE_SECONDS, first_line, serving, started, until

EMBEDDING = """
import logging, os, sys
logging.basicConfig(level=logging.WARNING, format="ours %(name)s %(message)s")
logging.getLogger("candleshm").setLevel(logging.ERROR)

def state():
    names = ["", *(name for name in logging.root.manager.loggerDict if name.startswith("candleshm"))]
    loggers = [logging.getLogger(name) for name in names]
    handlers = {logger.name: [*logger.handlers, *logger.filters] for logger in loggers}
    return {name: of for name, of in handlers.items() if of and ".sim" not in name}, logging.root.level

before, level = state(), logging.getLogger("candleshm").level
import candleshm
from candleshm.sim import SimulatedExchange
candleshm.Collector, candleshm.CandleServer
with SimulatedExchange(seed=7, symbols=2, spot_limit=10**6) as exchange:
    settings = {"base_url": exchange.base_url, "settle_seconds": 0.2}
    PROGRAM
assert state() == before, (state(), before)
assert logging.getLogger("candleshm").level == level
"""
COLLECTOR = """
    config = candleshm.CollectorConfig(market="SPOT", length=10, symbols=["BTCUSDT"], name=sys.argv[1], **settings)
    collector = candleshm.Collector(config)
    collector.start()
    collector.wait_loaded()
    assert state() == before
    collector.stop()
"""
SERVER = """
    class Rule(candleshm.CandleRule):
        SYMBOLS, LENGTH, LOG_DIRPATH, DOWNLOAD_TIME = ["BTCUSDT"], 10, "log", None
        CANDLE_DIR, CACHE_DIR = "candles", "cache"
    with candleshm.CandleServer("SPOT", Rule, name=sys.argv[1], **settings):
        assert state() != before
"""


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=7, symbols=2, spot_limit=10**6) as exchange:
        yield exchange


@pytest.mark.parametrize("program", [COLLECTOR, SERVER], ids=["collector", "server"])
def test_an_embedding_program_keeps_its_levels_and_handlers(program: str, block_name: str, tmp_path: Path) -> None:
    code = EMBEDDING.replace("    PROGRAM\n", program)
    done = subprocess.run(
        [sys.executable, "-c", code, block_name],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    prepared = [line for line in done.stderr.splitlines() if "COMPLETE PREPARE candle_map" in line]
    # The program's own handler shows the lines already; a second one of ours would repeat them.
    own = ["ours candleshm.compat.known_lines COMPLETE PREPARE candle_map"]
    assert prepared == (own if program == SERVER else [])


@pytest.mark.parametrize("above", ["", "candleshm", "candleshm.compat"])
def test_a_line_that_a_handler_of_the_program_shows_is_not_shown_again(above: str, tmp_path: Path) -> None:
    code = f"""
import logging
from candleshm._core import Zone
from candleshm.compat.log_files import RuleLog
logging.getLogger({above!r}).addHandler(logging.StreamHandler())
log = RuleLog("log", Zone("UTC"), file_level="INFO", console_level="INFO")
log.open()
logging.getLogger("candleshm.compat.known_lines").warning("COMPLETE")
logging.getLogger("candleshm.other").warning("OTHER")
log.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True, cwd=tmp_path
    )
    assert [line.split()[-1] for line in done.stderr.splitlines()] == ["COMPLETE", "OTHER"]


def test_each_module_has_a_logger_of_its_name() -> None:
    log = BlockLog(logging.getLogger("candleshm.collector.scheduler"), "100%-block")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign, assignment]
    log.logger.addHandler(handler)
    try:
        log.error("loaded %d", 3, extra={"event": "loaded"})
    finally:
        log.logger.removeHandler(handler)
    (record,) = records
    assert record.name == "candleshm.collector.scheduler"
    assert record.getMessage() == "100%-block: loaded 3"
    assert (record.__dict__["block"], record.__dict__["event"]) == ("100%-block", "loaded")


def test_json_is_one_line_without_passwords() -> None:
    record = logging.makeLogRecord({"name": "n", "levelname": "ERROR", "msg": "a\nb http://me:secret@h", "created": 0})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "ERROR",
        "logger": "n",
        "event": "other",
        "block": None,
        "message": "a\nb http://h",
    }
    try:
        raise ValueError("http://me:secret@h")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "secret" not in JsonFormatter().format(record)
    assert "ValueError" in json.loads(JsonFormatter().format(record))["exception"]


def test_serve_logs_json_objects(exchange: SimulatedExchange, block_name: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    words = serving(exchange, block_name, "--log-format", "json", "--log-level", "debug")
    with path.open("w") as log, started(*words, stderr=log) as process:
        first_line(process)
        until(lambda: "loaded" in path.read_text())
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0
    objects = [json.loads(line) for line in path.read_text().splitlines()]
    assert {tuple(line) for line in objects} == {("time", "level", "logger", "event", "block", "message")}
    (loaded,) = (line for line in objects if line["message"].startswith("loaded "))
    assert loaded["block"] == block_name
    assert (loaded["logger"], loaded["event"]) == ("candleshm.collector.loading", "loaded")


def test_lines_to_the_journal_begin_with_their_priority(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    with path.open("w") as log:
        about = os.fstat(log.fileno())
        journal = {**os.environ, "JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"}
        with started(*serving(exchange, block_name), stderr=log, env=journal) as process:
            first_line(process)
            until(lambda: "loaded" in path.read_text())
    assert all(line.startswith(("<6>", "<4>")) for line in path.read_text().splitlines())


def test_serve_logs_what_the_level_lets_pass(exchange: SimulatedExchange, block_name: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with (
        path.open("w") as log,
        started(*serving(exchange, block_name, "--log-level", "ERROR"), stderr=log) as process,
    ):
        first_line(process)
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0
    assert path.read_text() == ""
