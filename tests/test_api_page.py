"""docs/api.md is what the docstrings say, and these say what a caller needs."""

from __future__ import annotations

import re

import pytest

import candleshm
from tests.support.api_page import PAGE, Item, errors, items, page

ITEMS = [item for _, found in items() for item in found]
MEMBERS = [member for item in ITEMS for member in item.members]
CALLS = [each for each in [*ITEMS, *MEMBERS] if each.parameters]
DOCS = {each.name: each.doc for each in [*MEMBERS, *ITEMS]}
OWNERS = {item.name: item.doc for item in ITEMS}


def title(item: Item) -> str:
    return item.title.split("(")[0]


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run: .venv/bin/python -m tests.support.api_page"


def test_every_public_name_is_on_the_page() -> None:
    text = page()
    shown = {item.name for item in ITEMS} | {error.__name__ for error in errors()}
    constants = {name for name in candleshm.__all__ if f"`candleshm.{name}`" in text}
    assert set(candleshm.__all__) - shown - constants == {"history", "weight"}
    assert len(CALLS) > 30
    assert len(MEMBERS) > 80


@pytest.mark.parametrize("item", [*ITEMS, *MEMBERS], ids=title)
def test_every_item_of_the_page_explains_itself(item: Item) -> None:
    assert item.doc
    assert [name for name, _, _, about in item.fields if not about] == []


def text_of(item: Item) -> str:
    """Return the docstring, that of its class, and those to which it refers for arguments and errors."""
    text = item.doc + (OWNERS[item.owner.__name__] if item.owner else "")
    for _ in range(2):
        text += "".join(DOCS[name] for name in re.findall(r"`(?:\w+\.)?(\w+)`", text) if name in DOCS)
    return text


@pytest.mark.parametrize("item", CALLS, ids=title)
def test_every_parameter_is_explained_and_errors_are_named(item: Item) -> None:
    text = text_of(item)
    assert [name for name in item.parameters if not re.search(rf"\b{name}\b", text)] == []
    assert re.search(r"[Rr]aise", text)


@pytest.mark.parametrize("item", [item for item in ITEMS if item.name != "DayLike"], ids=title)
def test_every_class_and_function_shows_an_example(item: Item) -> None:
    assert any(">>> " in text for text in (item.doc, *(member.doc for member in item.members)))
