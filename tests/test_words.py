"""The words that docs/glossary.md retired stay out of code, messages and documents.

A retired word that is also an everyday word cannot be found by a pattern; it is in `EVERYDAY`. Where a retired word has
to stand, `ALLOWED` names the file and the reason. Words that the block's format publishes stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parent.parent
PLACES = ["python", "rust/candleshm/src", "rust/candleshm-python/src", "docs", "examples", "benches"]
FILES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        ROOT / "Makefile",
        *(path for place in PLACES for path in (ROOT / place).rglob("*")),
    ]
    if path.suffix in (".py", ".pyi", ".rs", ".md", ".ipynb", "") and path.is_file()
    if path != ROOT / "docs/glossary.md"
)
RETIRED = [
    *("adopt", "cadence", "deaf", "dispute", "doubt", "enlist", "fetcher", "fruitless", "heal", "heard", "keeper"),
    *(
        "lacking",
        "latch",
        "mute",
        "ordinal",
        "quota",
        "resender",
        "roster",
        "seat",
        "segment",
        "solid",
        "standing still",
    ),
    *("successor", "timeframe", "upkeep", "way out", "wmark"),
]
EVERYDAY = {
    "absence": "documents list what a thing never does",
    "announce": "the block's format has the word, and its module",
    "answer": "a user, and a question, may have one",
    "ask": "a user may ask",
    "bar": "published names stay (`BAR`, `universe_bar`, `first_bar`), and progress is shown by bars",
    "host": "of a URL",
    "need": "a verb of every page",
    "notice": "a verb",
    "open candle": "an open price is not retired",
    "pace": "a loop of a bench may keep its pace",
    "period": "a time that is no interval",
    "quiet": "log levels and flags",
    "retire": "words are retired",
    "server": "`CandleServer`, and servers in general",
    "settled": "a candle has settled once its settle time is over",
    "succeed": "an attempt may succeed",
    "timestamp": "the exchange's and Parquet's own word",
    "turn": "coroutines, families and owners take turns",
}
# Which files may have which words, and why.
ALLOWED = [
    ("docs/segment-format.md", {"latch", "solid", "wmark"}, "the published format's own names"),
    ("rust/candleshm/src/*.rs", {"solid", "wmark"}, "SOLID_FINAL and WMARK are offsets of the published format"),
    (
        "docs/simulated-exchange.md",
        {"deaf", "mute", "enlist"},
        "kinds of faults and changes of the world, for users' tests",
    ),
    ("docs/decisions/rooms.md", {"deaf", "mute", "enlist"}, "the decision that keeps those names"),
    ("python/candleshm/sim/stream/*.py", {"deaf", "mute"}, "the same kinds of faults"),
    ("python/candleshm/sim/*.py", {"enlist"}, "the same changes of the world"),
    ("python/candleshm/sim/world/*.py", {"enlist"}, "the same changes of the world"),
]


def pattern_of(word: str) -> re.Pattern[str]:
    """Find a word alone or as a part of a name, and with the endings of verbs and plurals."""
    stem = word.removesuffix("e")
    endings = "(?:e|es|ed|ing|able)" if word.endswith("e") else "(?:s|es|ed|ing|able)?"
    return re.compile(rf"(?<![a-z]){stem}{endings}(?![a-z])", re.IGNORECASE)


def allowed(path: str, word: str) -> bool:
    return any(PurePath(path).match(files) and word in words for files, words, _ in ALLOWED)


def glossary() -> set[str]:
    """Return the words of the glossary's right column."""
    rows = re.findall(r"^\|.*\|([^|]*)\|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    words = {re.sub(r"\(.*?\)|\*", "", word).strip() for row in rows for word in re.sub(r"\(.*?\)", "", row).split(",")}
    return words - {"", "retired", "---"}


def found(path: Path, word: str) -> list[str]:
    """Return the lines with the word, as `file:line: text`; the name of the format page is not one."""
    place = path.relative_to(ROOT).as_posix()
    return [
        f"{place}:{number}: {line.strip()}"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern_of(word).search(line.replace("segment-format", ""))
    ]


@pytest.mark.parametrize("word", RETIRED)
def test_a_retired_word_stays_out(word: str) -> None:
    files = [path for path in FILES if not allowed(path.relative_to(ROOT).as_posix(), word)]
    assert [line for path in files for line in found(path, word)] == []


def test_every_retired_word_of_the_glossary_is_looked_for() -> None:
    assert glossary() - EVERYDAY.keys() <= set(RETIRED)
    assert not EVERYDAY.keys() & set(RETIRED)


@pytest.mark.parametrize(("files", "words"), [(files, words) for files, words, _ in ALLOWED])
def test_every_exception_is_needed(files: str, words: set[str]) -> None:
    assert words <= set(RETIRED)
    for word in words:
        assert any(found(path, word) for path in FILES if path.relative_to(ROOT).match(files)), word


def test_a_word_is_found_in_names_and_with_endings() -> None:
    for text in ("a mute stream", "muted_symbols", "client.MUTED", "mutes"):
        assert pattern_of("mute").search(text)
    for text in ("mutex", "let mut x", "commute"):
        assert not pattern_of("mute").search(text)
