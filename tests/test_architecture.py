"""ARCHITECTURE.md is held against the tree: its floors, its list of modules, and every file that it names."""

from __future__ import annotations

import re

import pytest

from tests.support.module_map import BEGIN, END, ROOT, module_map

PAGE = (ROOT / "ARCHITECTURE.md").read_text()
PROSE = PAGE.split(BEGIN)[0]
PACKAGE = ROOT / "python" / "candleshm"
FLOWS = ["A REST response", "A stream event", "A read", "Serve", "A request to the gateway", "Download"]


def test_the_list_of_modules_is_that_of_the_tree() -> None:
    listed = PAGE.split(BEGIN)[1].split(END)[0].strip()
    assert listed == module_map().strip(), "run: .venv/bin/python -m tests.support.module_map"


def test_every_module_has_a_first_sentence() -> None:
    assert re.findall(r"^\| `(\w+\.\w+)` \|  \|$", module_map(), re.MULTILINE) == []


def test_every_file_that_the_flows_name_exists() -> None:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "rust").glob("candleshm*/src/**/*.rs")]
    known = {path.as_posix() for path in [*files, *(ROOT / "tests").rglob("*.py")]}
    named = set(re.findall(r"(?<![\w/])((?:\w+/)*\w+\.(?:py|rs))\b", PROSE))
    assert len(named) > 40
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in known)] == []


@pytest.mark.parametrize("flow", FLOWS)
def test_every_flow_is_walked_in_steps(flow: str) -> None:
    steps = PROSE.split(f"### {flow}\n")[1].split("\n#")[0]
    assert len(re.findall(r"^\d\. ", steps, re.MULTILINE)) >= 3
