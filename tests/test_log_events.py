"""Every line that candleshm logs has an event with a stable name, and every name a line in the docs."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import candleshm
from candleshm.system.block_log import BlockLog
from candleshm.system.log_events import EVENTS, OTHER, event_of
from candleshm.system.log_lines import JsonFormatter

PACKAGE = Path(candleshm.__file__).parent
LEVELS = {"debug": 0, "info": 0, "warning": 0, "error": 0, "exception": 0, "critical": 0, "log": 1}
# `RepeatedLog.write(level, kind, now, text, ...)`.
LEVELS_OF_REPEATED = {"write": 3}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def logged() -> Iterator[tuple[str, str, int]]:
    """Return module, message and line of every log call; a variable stands for all texts that its function gives it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if module == "stream.repeated_log" or module.startswith(("sim.", "compat.")):
            # It hands on what others log; the simulator is not the service; a `CandleServer` logs text only.
            continue
        for function in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function)):
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                if (message := _message(call)) is not None:
                    for text in _texts(message, function):
                        yield module, text, call.lineno


def _message(call: ast.Call) -> ast.expr | None:
    if not isinstance(call.func, ast.Attribute) or "log" not in ast.unparse(call.func.value).rsplit(".", 1)[-1]:
        return None
    place = {**LEVELS, **LEVELS_OF_REPEATED}.get(call.func.attr)
    return None if place is None or len(call.args) <= place else call.args[place]


def _texts(message: ast.expr, function: Function) -> list[str]:
    if isinstance(message, ast.Constant):
        return [str(message.value)]
    assert isinstance(message, ast.Name), f"{function.name}: a message must be a text, or a variable that holds one"
    return [
        str(node.value.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and any(isinstance(target, ast.Name) and target.id == message.id for target in node.targets)
    ]


CALLS = sorted(set(logged()))


@pytest.mark.parametrize(("module", "text", "line"), CALLS, ids=[f"{module}:{line}" for module, _, line in CALLS])
def test_a_line_has_an_event(module: str, text: str, line: int) -> None:
    assert text in EVENTS.get(module, {}), f"{module}, line {line}: name it in system/log_events.py"


def test_no_name_is_left_of_a_line_that_is_gone() -> None:
    known = {(module, text) for module, texts in EVENTS.items() for text in texts}
    assert known == {(module, text) for module, text, _ in CALLS}


def test_the_docs_list_every_event_once() -> None:
    page = (PACKAGE.parents[1] / "docs/logs.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    names = {name for texts in EVENTS.values() for name in texts.values()}
    assert listed == sorted({*names, OTHER})


def test_the_name_survives_a_block_s_name_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    log = BlockLog(logging.getLogger("candleshm.collector.repair"), "100%-spot")
    with caplog.at_level(logging.INFO, "candleshm"):
        log.warning("%s: stream and REST differ in %d rows; %d times so far", "BTCUSDT", 3, 8)
        logging.getLogger("candleshm.collector.loading").info("loaded %d of %s%s", 1, "2 symbols", "")
        logging.getLogger("candleshm.somebody_else").info("hello")
    assert [event_of(record) for record in caplog.records] == ["sources_differ", "loaded", OTHER]
    line = json.loads(JsonFormatter().format(caplog.records[0]))
    assert (line["event"], line["block"]) == ("sources_differ", "100%-spot")
    assert line["message"] == "BTCUSDT: stream and REST differ in 3 rows; 8 times so far"
