"""The stub of the compiled module says what the module says."""

from __future__ import annotations

import ast

import pytest

from tests.support.stub_docstrings import STUB, docstring_of, documented, is_public

ITEMS = dict(documented(ast.parse(STUB.read_text())))


@pytest.mark.parametrize("name", [name for name in ITEMS if is_public(name)])
def test_public_items_of_the_compiled_module_have_docstrings(name: str) -> None:
    assert (docstring_of(name) or "").strip()


@pytest.mark.parametrize("name", ITEMS)
def test_the_stub_repeats_the_docstrings_of_the_compiled_module(name: str) -> None:
    assert ast.get_docstring(ITEMS[name]) == docstring_of(name), "run: python -m tests.support.stub_docstrings"


@pytest.mark.parametrize("name", ["Series", "Feed", "View", "Closed", "Gap"])
def test_classes_that_strategies_use_show_an_example(name: str) -> None:
    assert ">>> " in (docstring_of(name) or "")
