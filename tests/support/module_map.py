"""The list of all modules in ARCHITECTURE.md, from the first sentence of each: `python -m tests.support.module_map`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- modules: begin -->\n", "<!-- modules: end -->\n"
SOURCES = [
    "python/candleshm",
    "rust/candleshm/src",
    "rust/candleshm-stream/src",
    "rust/candleshm-recording/src",
    "rust/candleshm-daily/src",
    "rust/candleshm-python/src",
    "rust/candleshm-c/src",
]


def first_sentence(path: Path) -> str:
    """Return the first line of a Python docstring, or the first sentence of a Rust module's comment."""
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("//! "):
            break
        lines.append(line.removeprefix("//! "))
    return re.split(r"(?<=[.])(?:\s|$)", " ".join(lines), maxsplit=1)[0]


def folders() -> list[Path]:
    """Return every folder with modules, parents first."""
    found = {path.parent for source in SOURCES for kind in ("*.py", "*.rs") for path in (ROOT / source).rglob(kind)}
    return sorted(
        found, key=lambda path: (SOURCES.index(next(s for s in SOURCES if (ROOT / s) in [path, *path.parents])), path)
    )


def module_map() -> str:
    """Return a table for each folder: its modules, and what each is about."""
    parts = []
    for folder in folders():
        modules = sorted(path for path in folder.iterdir() if path.suffix in (".py", ".rs") and path.stem != "__init__")
        if not modules:
            continue
        about = first_sentence(folder / "__init__.py") if (folder / "__init__.py").exists() else ""
        rows = [f"| `{path.name}` | {first_sentence(path)} |" for path in modules]
        name = folder.relative_to(ROOT).as_posix()
        parts.append(
            "\n".join([f"### {name}", "", *([about, ""] if about else []), "| module | |", "|---|---|", *rows, ""])
        )
    return "\n".join(parts)


if __name__ == "__main__":
    text = PAGE.read_text()
    head, rest = text.split(BEGIN)
    PAGE.write_text(head + BEGIN + "\n" + module_map() + "\n" + END + rest.split(END)[1])
