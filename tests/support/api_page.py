"""The reference page docs/api.md, from docstrings, signatures and the stub: `python -m tests.support.api_page`."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import candleshm
from candleshm import _core, columns, history, weight
from candleshm.config import settings
from candleshm.errors import CandleShmError
from tests.support.stub_docstrings import STUB

PAGE = Path(__file__).parent.parent.parent / "docs" / "api.md"
HEAD = """# Reference

Every public class and function, generated from the docstrings that `help()` shows
(`.venv/bin/python -m tests.support.api_page`). Times are epoch milliseconds in UTC where a name ends with `_ms`;
`timeout` and `max_age` are seconds. What people look for under other names stands in [reading](reading.md).

"""
# What each part of the page is about, and the names in it.
PARTS: list[tuple[str, str, list[str]]] = [
    (
        "Reading",
        "candleshm",
        [
            "attach",
            "blocks",
            "unlink",
            "Feed",
            "Series",
            "View",
            "Panel",
            "align",
            "Alignment",
            "Closed",
            "Gap",
            "Health",
            "Contract",
            "Session",
        ],
    ),
    ("C and C++", "candleshm", ["include", "library"]),
    ("Rows", "candleshm", ["RowState", "derive", "to_pandas", "to_polars", "to_arrow"]),
    ("Daily files", "candleshm.history", list(history.__all__)),
    ("Replays", "candleshm", ["replay", "Replay", "replay_recording"]),
    ("Collecting", "candleshm", ["CollectorConfig", "Collector", "CandleRule", "CandleServer"]),
    ("Request weight", "candleshm.weight", list(weight.__all__)),
]
MODULES = {"candleshm": candleshm, "candleshm.history": history, "candleshm.weight": weight}
MADE = (weight.Ticket, candleshm.Replay)
"""Classes that functions make, and no user calls."""
STUB_TREE = ast.parse(STUB.read_text())


class Item:
    """One public class, function or member, as the page shows it."""

    def __init__(self, name: str, value: Any, owner: type | None = None) -> None:
        self.name = name
        self.value = value
        self.owner = owner

    @property
    def title(self) -> str:
        """The call as it is written, types and defaults included."""
        dotted = self.name if self.owner is None else f"{self.owner.__name__}.{self.name}"
        if self.is_property or (self.owner is None and not callable(self.value)):
            kind = self._returned
            return f"{dotted}: {kind}" if kind else dotted
        if not self._is_called:
            return dotted
        arguments, returned = self._signature
        return f"{dotted}({arguments}){f' -> {returned}' if returned and returned != 'None' else ''}"

    @property
    def doc(self) -> str:
        if self.name == "DayLike":
            return "A day: 'YYYY-MM-DD', a date, a datetime (naive ones are local to the zone) or epoch milliseconds."
        return inspect.getdoc(self._plain) or ""

    @property
    def is_property(self) -> bool:
        return self.owner is not None and not callable(self._plain) and not isinstance(self._plain, staticmethod)

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters that a caller gives."""
        if not self._is_called:
            return []
        return re.findall(
            r"(?:^|, )\**(\w+)(?=[:=,]|$)", re.sub(r"\[[^][]*(?:\[[^][]*\][^][]*)*\]", "", self._signature[0])
        )

    @cached_property
    def fields(self) -> list[tuple[str, str, str, str]]:
        """Name, type, default and meaning of each field of a dataclass, of an enumeration or of CandleRule."""
        if not isinstance(self.value, type):
            return []
        about = _attribute_docs(self.value)
        if is_dataclass(self.value):
            known = settings() if self.value is candleshm.CollectorConfig else {}
            return [
                (
                    field.name,
                    str(field.type),
                    _default(field),
                    f"{known[field.name].help}; allowed: {known[field.name].allowed}"
                    if field.name in known
                    else about.get(field.name, ""),
                )
                for field in fields(self.value)
            ]
        if issubclass(self.value, IntEnum):
            return [(each.name, "", str(each.value), about[each.name]) for each in self.value]
        return [(name, "", repr(getattr(self.value, name)), text) for name, text in about.items() if name.isupper()]

    @property
    def members(self) -> list[Item]:
        """The public methods and properties of a class, in the order of its source."""
        if not isinstance(self.value, type):
            return []
        own = {field[0] for field in self.fields}
        names: dict[str, None] = {}
        for base in self.value.__mro__:
            if not _is_compiled(base) and not base.__module__.startswith("candleshm"):
                continue
            node = _stub_class(base.__name__) if _is_compiled(base) else None
            ordered = [item.name for item in node.body if isinstance(item, ast.FunctionDef)] if node else vars(base)
            names |= dict.fromkeys(name for name in ordered if not name.startswith("_") and name not in own)
        found = ((name, inspect.getattr_static(self.value, name)) for name in names)
        return [Item(name, value, self.value) for name, value in found if inspect.getdoc(value)]

    @property
    def _is_called(self) -> bool:
        """Whether a user calls it; the fields of a dataclass stand in a table, and the core makes its own classes."""
        if isinstance(self.value, type):
            return "__init__" in vars(self.value) and not self.fields and self.value not in MADE
        return callable(self._plain) and not self.is_property

    @property
    def _plain(self) -> Any:
        return self.value.__func__ if isinstance(self.value, classmethod | staticmethod) else self.value

    @property
    def _stub(self) -> ast.FunctionDef | ast.ClassDef | None:
        """The item in the stub of the compiled module."""
        if self.owner is None:
            return _stub_class(self.name) if _is_compiled(self.value) else None
        for base in self.owner.__mro__:
            if _is_compiled(base) and self.name in vars(base):
                node = _stub_class(base.__name__)
                assert node is not None
                return next(item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == self.name)
            if self.name in vars(base):
                break
        return None

    @property
    def _function(self) -> ast.FunctionDef | ast.AsyncFunctionDef:
        """The definition of what is called."""
        stub = self._stub
        if isinstance(stub, ast.FunctionDef):
            return stub
        source = self._plain.fget if isinstance(self._plain, property) else self._plain
        if isinstance(source, type):
            source = vars(source)["__init__"]
        node = ast.parse(textwrap.dedent(inspect.getsource(source))).body[0]  # type: ignore[arg-type]
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        return node

    @property
    def _signature(self) -> tuple[str, str]:
        node = self._function
        if node.args.args and node.args.args[0].arg in {"self", "cls"}:
            del node.args.args[0]
        returned = "" if node.returns is None else _shortened(ast.unparse(node.returns))
        return _shortened(re.sub(r"(?<=[^=])=(?=[^=])", " = ", ast.unparse(node.args))), returned

    @property
    def _returned(self) -> str:
        return self._signature[1] if self.is_property else ""


def items() -> Iterator[tuple[str, list[Item]]]:
    """Yield the parts of the page with their items."""
    for part, module, names in PARTS:
        yield part, [Item(name, getattr(MODULES[module], name)) for name in names]


def errors() -> list[type[CandleShmError]]:
    """Return the public errors, bases first."""
    found = [value for name in candleshm.__all__ if isinstance(value := getattr(candleshm, name), type)]
    return sorted(
        (error for error in found if issubclass(error, CandleShmError)),
        key=lambda error: [base.__name__ for base in error.__mro__[::-1]],
    )


def page() -> str:
    """Return the text of docs/api.md."""
    parts = [HEAD]
    for part, found in items():
        parts.append(f"## {part}\n\n")
        module = next(module for name, module, _ in PARTS if name == part)
        for item in found:
            parts.append(f"### {item.name}\n\n" + _signature_block(f"{module}.{item.title}") + _markdown(item.doc))
            if item.fields:
                parts.append(_fields_table(item))
            parts.append(_properties_table([member for member in item.members if member.is_property]))
            for member in item.members:
                if not member.is_property:
                    parts.append(f"#### {item.name}.{member.name}\n\n")
                    parts.append(_signature_block(member.title) + _markdown(member.doc))
        if part == "Rows":
            parts.append(_columns())
    parts.append(_errors())
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).rstrip() + "\n"


def _signature_block(text: str) -> str:
    if len(text) > 110 and "(" in text:
        head, rest = text.split("(", 1)
        arguments, tail = rest.rsplit(")", 1)
        split = re.split(r", (?![^\[(]*[\])])", arguments)
        text = f"{head}(\n" + "".join(f"    {argument},\n" for argument in split) + f"){tail}"
    return f"```text\n{text}\n```\n\n"


def _markdown(doc: str) -> str:
    """Return a docstring as Markdown: its sections as lists, its examples as code."""
    lines: list[str] = []
    in_code, section = False, ""
    for line in doc.splitlines():
        is_code = line.startswith((">>> ", "... ")) or (in_code and bool(line))
        if is_code != in_code:
            lines.append("```pycon" if is_code else "```\n")
            in_code = is_code
        if is_code:
            lines.append(re.sub(r"\s*# doctest: .*$", "", line))
            continue
        if line in {"Args:", "Raises:", "Returns:", "Yields:"}:
            section = line[:-1]
            lines += [f"**{section}**", ""]
        elif section and line.startswith("    ") and not line.startswith("     "):
            name, colon, text = line.strip().partition(": ")
            lines.append(f"- {_names(name)}: {text}" if colon else f"  {line.strip()}")
        elif section and line.startswith("     "):
            lines.append(f"  {line.strip()}")
        else:
            section = section if not line else ""
            lines.append(line)
    if in_code:
        lines.append("```")
    text = "\n".join(lines)
    return re.sub(r"(?<!`)``(?!`)", "`", text).strip() + "\n\n"


def _names(text: str) -> str:
    return ", ".join(f"`{name.strip()}`" for name in text.split(","))


def _fields_table(item: Item) -> str:
    rows = []
    for name, kind, default, about in item.fields:
        cells = (f"`{name}`", f"`{kind}`" if kind else "", f"`{default}`" if default else "", about)
        rows.append("| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |")
    return "\n".join(["| name | type | value | meaning |", "|---|---|---|---|", *rows]) + "\n\n"


def _properties_table(properties: list[Item]) -> str:
    if not properties:
        return ""
    rows = []
    for each in properties:
        about = " ".join(re.sub(r"(?<!`)``(?!`)", "`", each.doc).split()).replace("|", "\\|")
        kind = each.title.partition(": ")[2].replace("|", "\\|")
        rows.append(f"| `{each.name}` | `{kind}` | {about} |")
    return "\n".join(["| property | type | |", "|---|---|---|", *rows]) + "\n\n"


def _columns() -> str:
    rows = [f"| `candleshm.{name.upper()}` | {number} | `{name}` |" for number, name in enumerate(columns.NAMES)]
    return "\n".join(
        [
            "### Columns",
            "",
            "Indices of the twelve columns of a row, in the exchange's order, and their names as fields of panels:",
            "",
            "| constant | column | field |",
            "|---|---|---|",
            *rows,
            "",
            "",
        ]
    )


def _errors() -> str:
    rows = []
    for error in errors():
        base = error.__mro__[1].__name__
        about = " ".join((inspect.getdoc(error) or "").replace("``", "`").split()).replace("|", "\\|")
        rows.append(f"| `{error.__name__}` | `{base}` | {about} |")
    return "\n".join(["## Errors", "", "| error | is a | meaning |", "|---|---|---|", *rows]) + "\n"


def _attribute_docs(kind: type) -> dict[str, str]:
    """Return the docstrings that stand behind the attributes of a class."""
    found: dict[str, str] = {}
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    except (OSError, TypeError):
        return found
    assert isinstance(node, ast.ClassDef)
    for item, behind in zip(node.body, [*node.body[1:], None], strict=True):
        target = (
            item.target
            if isinstance(item, ast.AnnAssign)
            else item.targets[0]
            if isinstance(item, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant):
            found[target.id] = inspect.cleandoc(str(behind.value.value))
    return found


def _default(field: Any) -> str:
    if field.default is not MISSING:
        return repr(field.default)
    return repr(field.default_factory()) if field.default_factory is not MISSING else ""


def _shortened(text: str) -> str:
    text = text.replace("npt.NDArray[np.float64]", "float64 array").replace("_FloatArray", "float64 array")
    text = text.replace("npt.NDArray[np.uint8]", "uint8 array").replace("npt.NDArray[np.int64]", "int64 array")
    text = text.replace("_Holes", "Literal['drop', 'nan', 'raise']").replace("npt.NDArray[Any]", "array")
    return text.replace("Candles", "float64 array") if "CandlesMap" not in text else text


def _is_compiled(kind: Any) -> bool:
    return isinstance(kind, type) and getattr(_core, kind.__name__, None) is kind


def _stub_class(name: str) -> ast.ClassDef | None:
    return next((node for node in STUB_TREE.body if isinstance(node, ast.ClassDef) and node.name == name), None)


if __name__ == "__main__":
    PAGE.write_text(page())
