"""The settings of a collector as flags and as keys of a TOML file.

Both follow from the fields of `CollectorConfig`: a new field is a flag and a key without a word here, and the text
below it is the flag's help.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError

__all__ = ["add_flags", "collector_config"]

LIVE = ("rest", "ws", "auto")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, `--live` and one flag for each field; what is not given is left out of the namespace."""
    parser.add_argument("--config", metavar="FILE.toml", type=Path, help="settings as keys such as base_url; flags win")
    parser.add_argument(
        "--live",
        metavar="|".join(LIVE),
        default=argparse.SUPPRESS,
        help="where live candles come from; auto is rest as long as there is no websocket feed (default: auto)",
    )
    types, texts = get_type_hints(CollectorConfig), _field_texts()
    for field in fields(CollectorConfig):
        text = f"{texts.get(field.name, '')} {_default_text(field)}".strip()
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=text.replace("%", "%%"),
            **_reading(types[field.name]),
        )


def collector_config(flags: Mapping[str, Any], path: Path | None) -> CollectorConfig:
    """Return the configuration of the TOML file at `path`, where `flags` win.

    `flags` may hold more than settings; that is left alone. Raises ConfigError and OSError.
    """
    names = {field.name for field in fields(CollectorConfig)} | {"live"}
    values = {} if path is None else _file_values(path, names)
    values |= {name: value for name, value in flags.items() if name in names}
    live = values.pop("live", "auto")
    if live not in LIVE:
        raise ConfigError(f"live cannot be `{live}`; allowed: {' | '.join(LIVE)}")
    if live == "ws":
        raise ConfigError("live cannot be `ws`: this version has no websocket feed yet; allowed: rest | auto")
    if "market" not in values:
        raise ConfigError("market is not given; say --market spot, um or cm")
    return CollectorConfig(**values)


def _file_values(path: Path, names: set[str]) -> dict[str, Any]:
    """Return the settings of a file; LENGTH, length and the flag's spelling are the same key."""
    try:
        loaded = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    values: dict[str, Any] = {}
    for key, value in loaded.items():
        name = key.lower().replace("-", "_")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
            raise ConfigError(f"{path}: unknown key `{key}`; the nearest is {near[0]}")
        if name in values:
            raise ConfigError(f"{path}: `{key}` is given twice, in different spelling")
        values[name] = value
    return values


def _field_texts() -> dict[str, str]:
    """Return the strings below the fields, which Python itself throws away."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(CollectorConfig))).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, text in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            texts[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return texts


def _default_text(field: Field[Any]) -> str:
    if field.default is MISSING or field.default is None or isinstance(field.default, bool):
        return ""
    return f"(default: {field.default})"


def _reading(hint: Any) -> dict[str, Any]:
    """Return argparse's keywords for a field of that type: how its text is read, and how to show that."""
    arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = {get_origin(arm) or arm for arm in arms}
    if bool in kinds:
        return {"action": argparse.BooleanOptionalAction}
    if Mapping in kinds:
        return {"type": _pairs, "metavar": "KEY=VALUE,..."}
    if Sequence in kinds:
        return {"type": _names, "metavar": "A,B,..."}
    if int in kinds:
        return {"type": int, "metavar": "N"}
    if float in kinds:
        return {"type": float, "metavar": "X"}
    if Literal in kinds:
        return {"metavar": "|".join(str(value) for value in get_args(hint)).lower()}
    return {"metavar": "TEXT"}


def _names(text: str) -> str | list[str]:
    return text if text.lower() == "all" else [name.strip() for name in text.split(",") if name.strip()]


def _pairs(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(key and equals and value for key, equals, value in pairs):
        raise argparse.ArgumentTypeError("not of the form https=http://host:port,...")
    return {key.strip(): value.strip() for key, _, value in pairs}
