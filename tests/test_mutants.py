"""Every mutant of the core still applies: its edits occur once, and the tests that it names exist."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

CRATE = Path(__file__).parent.parent / "rust" / "candleshm"


def load_mutants_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", CRATE / "tests" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("table", ["orderings", "bounds"])
def test_every_mutant_still_applies(table: str) -> None:
    mutants = load_mutants_module().load_mutants(table)
    assert len(mutants) > 30
    stale = []
    for mutant in mutants:
        try:
            mutated = mutant.applied_to((CRATE / "src" / mutant.file).read_text())
        except (ValueError, FileNotFoundError) as error:
            stale.append(f"{mutant.name}: {error}")
        else:
            assert mutated != (CRATE / "src" / mutant.file).read_text(), mutant.name
    assert stale == []


def test_every_test_that_a_mutant_names_exists() -> None:
    module = load_mutants_module()
    loom = "\n".join(
        f"{path.stem}::{name}"
        for path in (CRATE / "tests" / "loom").glob("*.rs")
        for name in re.findall(r"fn (\w+)\(", path.read_text())
    )
    for mutant in module.load_mutants("orderings"):
        assert all(word in loom for word in mutant.tests), mutant
    for mutant in module.load_mutants("bounds"):
        for file in mutant.tests:
            assert file == "lib" or (CRATE / "tests" / f"{file}.rs").exists(), mutant
