"""The examples in docstrings run, but for those that need an exchange and say so (`# doctest: +SKIP`)."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "python" / "candleshm"
MODULES = sorted(
    ".".join(("candleshm", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"candleshm": importlib.import_module("candleshm")})
    assert result.failed == 0


def test_there_are_examples_that_run() -> None:
    finder = doctest.DocTestFinder()
    tests = [test for name in MODULES for test in finder.find(importlib.import_module(name))]
    ran = [one for test in tests for one in test.examples if doctest.SKIP not in one.options]
    assert len(ran) >= 10
