"""The settings of collectors as flags and as keys of a TOML file, common ones at its top and one table for each feed.

Both are generated from the fields of `CollectorConfig`: a new field is a flag and a key without a word here.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from candleshm.config import CollectorConfig, settings
from candleshm.errors import ConfigError

__all__ = ["add_field_flags", "add_flags", "collector_configs", "in_utf8"]

FEED = "feed"
FILE_BYTES_MAX = 1024 * 1024
# Python's stand-ins for bytes of an argument that are not text in the locale.
_UNREAD = re.compile("[\udc80-\udcff]")
CONFIG_HELP = "read settings from this file: keys such as base_url, and a [[feed]] table for each feed; flags win"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and one flag for each field; what is not given is left out of the namespace."""
    add_field_flags(parser, [field.name for field in fields(CollectorConfig)])


def add_field_flags(parser: argparse.ArgumentParser, names: Collection[str], *, has_file: bool = True) -> None:
    """Add one flag for each of these fields, and `--config` where they can also stand in a file."""
    if has_file:
        parser.add_argument("--config", metavar="FILE.toml", type=Path, help=CONFIG_HELP)
    types, about = get_type_hints(CollectorConfig), settings()
    for field in fields(CollectorConfig):
        if field.name not in names:
            continue
        text = f"{about[field.name].help} {_default_text(field)}".strip()
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=text.replace("%", "%%"),
            **_reading(types[field.name]),
        )


def collector_configs(flags: Mapping[str, Any], path: Path | None) -> list[CollectorConfig]:
    """Return the configuration of each feed of the TOML file at `path`, where `flags` win; without a file there is one.

    Entries of `flags` that are no settings are ignored. Raises ConfigError and OSError.
    """
    given = {name: value for name, value in flags.items() if name in settings()}
    feeds: list[dict[str, Any]] = [{}] if path is None else _file_feeds(path)
    if len(feeds) > 1 and "name" in given:
        raise ConfigError(
            f"--name names one block, but {path} has {len(feeds)} feeds; give each of them a `name` in that file"
        )
    return [_config(feed | given) for feed in feeds]


def _config(values: dict[str, Any]) -> CollectorConfig:
    if "market" not in values:
        raise ConfigError("market is missing; give --market spot, um or cm")
    return CollectorConfig(**values)


def _file_feeds(path: Path) -> list[dict[str, Any]]:
    """Return the settings of each feed of a file; without `[[feed]]` tables the file is one feed."""
    try:
        # The file may be a pipe, as `<(...)` of a shell makes one, or a device without an end.
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        if len(text) > FILE_BYTES_MAX:
            raise ConfigError(f"{path} cannot be a configuration: it is larger than {FILE_BYTES_MAX} bytes")
        loaded = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    if FEED not in loaded:
        return [_settings(loaded, str(path))]
    tables = loaded.pop(FEED)
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path}: feed must be a list of tables; begin each with a line [[feed]]")
    common = _settings(loaded, str(path))
    return [common | _settings(table, f"{path}, feed {number}") for number, table in enumerate(tables, 1)]


def _settings(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the settings of a table; LENGTH, length and the flag's spelling are the same key."""
    names = settings()
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.lower().replace("-", "_")
        if name not in names:
            near = difflib.get_close_matches(name, [*names, FEED], n=1, cutoff=0.0)[0]
            raise ConfigError(f"{where}: unknown key `{key}`; the nearest is {'[[feed]]' if near == FEED else near}")
        if name in values:
            raise ConfigError(f"{where}: `{key}` is given twice, in different spelling")
        values[name] = value
    return values


def _default_text(field: Field[Any]) -> str:
    if field.default in (MISSING, None, "", ()) or isinstance(field.default, bool):
        return ""
    return f"(default: {field.default:g})" if isinstance(field.default, float) else f"(default: {field.default})"


def _reading(hint: Any) -> dict[str, Any]:
    """Return argparse's keywords for a field of that type: how its text is read, and how to show that."""
    arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = {get_origin(arm) or arm for arm in arms}
    if bool in kinds:
        return {"action": argparse.BooleanOptionalAction}
    if Mapping in kinds:
        return {"type": _pairs, "metavar": "KEY=VALUE,...", "action": _Parts}
    if Sequence in kinds:
        return {"type": _names, "metavar": "A,B,...", "action": _Parts}
    if int in kinds:
        return {"type": int, "metavar": "N"}
    if float in kinds:
        return {"type": float, "metavar": "X"}
    if Literal in kinds:
        return {"metavar": "|".join(str(value) for value in get_args(hint)).lower()}
    return {"metavar": "TEXT"}


def in_utf8(text: str) -> str:
    r"""Return an argument as the UTF-8 that it is, whatever the locale reads; bytes that are no text as `\xff`."""
    return os.fsencode(text).decode("utf-8", "backslashreplace") if _UNREAD.search(text) else text


class _Parts(argparse.Action):
    """A list that may be given in parts: `--derive 5m --derive 1h` is `--derive 5m,1h`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add the values to those given before. Ends with a usage error where `all` is given beside names."""
        before = getattr(namespace, self.dest, None)
        if isinstance(before, list) and isinstance(values, list):
            values = [*before, *values]
        elif isinstance(before, dict) and isinstance(values, dict):
            values = before | values
        elif before is not None and before != values:
            parser.error(f"argument {option_string}: `all` and a list of names contradict each other")
        setattr(namespace, self.dest, values)


def _names(text: str) -> str | list[str]:
    text = in_utf8(text)
    return text if text.lower() == "all" else [name.strip() for name in text.split(",") if name.strip()]


def _pairs(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(key and equals and value for key, equals, value in pairs):
        raise argparse.ArgumentTypeError("must be of the form https=http://host:port,...")
    return {key.strip(): value.strip() for key, _, value in pairs}
