"""Copies the docstrings of the compiled module, whose source is Rust, into its stub, which editors read.

``python -m tests.support.stub_docstrings``, after ``make build``, writes ``_core.pyi``; ``make format`` formats it.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

from candleshm import _core

STUB = Path(_core.__file__).with_name("_core.pyi")
Documented = ast.ClassDef | ast.FunctionDef


def documented(tree: ast.Module) -> Iterator[tuple[str, Documented]]:
    """Yield every class and function of a stub with its dotted name, and the methods and properties of classes."""
    for node in tree.body:
        if isinstance(node, Documented):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{item.name}", item) for item in node.body if isinstance(item, ast.FunctionDef))


def is_public(name: str) -> bool:
    return not name.split(".")[-1].startswith("_")


def docstring_of(name: str) -> str | None:
    """Return the docstring of the compiled module's item; None for one whose name begins with an underscore."""
    if not is_public(name):
        return None
    found: object = _core
    for part in name.split("."):
        found = getattr(found, part)
    return inspect.getdoc(found)


def written(text: str) -> str:
    """Return the stub with the docstrings of the compiled module."""
    lines = text.splitlines()
    for name, node in sorted(documented(ast.parse(text)), key=lambda item: -item[1].lineno):
        first = node.body[0]
        indent = " " * (node.col_offset + 4)
        block = [indent + line if line else "" for line in f'"""{docstring_of(name)}'.splitlines()]
        block[-1] += '"""' if len(block) == 1 else ""
        block += [f'{indent}"""'] if len(block) > 1 else []
        has_docstring = ast.get_docstring(node) is not None
        if isinstance(node, ast.ClassDef):
            start, end = (first.lineno - 1, first.end_lineno) if has_docstring else (node.lineno, node.lineno)
            lines[start:end] = block
            continue
        header = lines[node.lineno - 1 : first.lineno - 1]
        if not has_docstring:
            header = [*header, lines[first.lineno - 1].removesuffix(" ...")]
        if docstring_of(name) is None:
            header[-1], block = f"{header[-1]} ...", []
        lines[node.lineno - 1 : first.end_lineno] = [*header, *block]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    STUB.write_text(written(STUB.read_text()))
