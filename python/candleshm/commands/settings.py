"""The settings of collectors as flags, as variables of the environment, and as keys of a TOML file.

In a file common keys stand at the top, and one table for each feed below. All are generated from the fields of
`CollectorConfig`: a new field is a flag, a variable and a key without a word here. Keys of the process, such as the
port of the metrics, stand at the top of the file. A flag wins over a variable, a variable over the file.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from dataclasses import field as field_of
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from candleshm.cluster.member_config import MEMBER_KEYS, MemberConfig
from candleshm.cluster.mirror_config import MirrorConfig
from candleshm.cluster.settings import CLUSTER_KEYS, ClusterSettings
from candleshm.config import CollectorConfig, Setting, settings
from candleshm.errors import ConfigError
from candleshm.system.sharing import is_group

__all__ = [
    "PROCESS_KEYS",
    "Configuration",
    "add_field_flags",
    "add_flags",
    "cluster_settings",
    "collector_configs",
    "configuration",
    "in_environment",
    "in_utf8",
    "listening_address",
    "mirror_configuration",
]

FEED, MIRROR = "feed", "mirror"
# Other words for what these keys mean.
ALIASES = {"feeds": FEED, "symbol": "symbols", "port": "metrics", "bars": "length", "window": "length"}
# So alike must two keys be for the one to be what was meant by the other.
NEAR_MIN = 0.6
TYPO_MIN = 0.85
FILE_BYTES_MAX = 1024 * 1024
# Python's stand-ins for bytes of an argument that are not text in the locale.
_UNREAD = re.compile("[\udc80-\udcff]")
CONFIG_HELP = (
    "read settings from this file: keys such as base_url, and a [[feed]] table for each feed; flags win, and variables "
    "of the environment such as CANDLESHM_BASE_URL"
)
VARIABLE = "CANDLESHM_"
# Words of a variable that stand for yes and no.
TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


# The flags of `serve` by what they are about, in the order of its help.
GROUPS = {
    "which candles": ("market", "price", "interval", "length", "derive", "name"),
    "which symbols": (
        *("symbols", "symbols_filter", "symbol_contains", "symbol_endswith", "contract", "quote", "top"),
        *("spare_symbols", "universe_refresh_seconds"),
    ),
    "which exchange, and the way to it": ("base_url", "proxy_host", "proxies", "trust_env", "start_seconds"),
    "streams": ("live", "ws_url", "spin_microseconds"),
    "requests, and what they cost": ("server_weight", "update_interval_seconds", "settle_seconds", "workers"),
    "recording": ("record", "record_bytes"),
}
OTHERS = "what is kept on disk"
"""The group of all flags that no other group has."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What `serve` is to do: the feeds, and what was given for the process itself, by the names of `PROCESS_KEYS`."""

    feeds: list[CollectorConfig]
    process: Mapping[str, Any]
    mirrors: Sequence[MirrorConfig] = ()
    """Those of the file's `[[mirror]]` tables."""
    members: Mapping[str, MemberConfig] = field_of(default_factory=dict)
    """What each feed is in the cluster, by the name of its block; empty without a cluster."""

    @property
    def cluster(self) -> ClusterSettings | None:
        """The cluster's servers; None without a cluster. Raises ConfigError."""
        return ClusterSettings.of(self.process)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and one flag for each field, in groups; what is not given is left out of the namespace."""
    parser.add_argument("--config", metavar="FILE.toml", type=Path, help=CONFIG_HELP)
    for title, names in GROUPS.items():
        add_field_flags(parser.add_argument_group(title), names, has_file=False)
    grouped = {name for names in GROUPS.values() for name in names}
    others = [field.name for field in fields(CollectorConfig) if field.name not in grouped]
    add_field_flags(parser.add_argument_group(OTHERS), others, has_file=False)


def add_field_flags(parser: argparse._ActionsContainer, names: Collection[str], *, has_file: bool = True) -> None:
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
    """Return the feeds of `configuration`."""
    return configuration(flags, path).feeds


def configuration(flags: Mapping[str, Any], path: Path | None) -> Configuration:
    """Return the configuration of each feed of the TOML file at `path`; without a file there is one.

    `flags` win over variables of the environment, and these over the file. Entries of `flags` that are no settings are
    ignored. Raises ConfigError and OSError.
    """
    variables = _variables(os.environ)
    given = variables | {name: value for name, value in flags.items() if name in settings()}
    given |= {name: flags[name] for name in MEMBER_KEYS if flags.get(name) is not None}
    process, feeds, mirrors = ({}, [{}], []) if path is None else _file_parts(path)
    if len(feeds) > 1 and "name" in given:
        where = "--name" if "name" in flags else f"{VARIABLE}NAME"
        raise ConfigError(
            f"{where} names one block, but {path} has {len(feeds)} feeds; give each of them a `name` in that file"
        )
    process = _process(process, flags, given)
    members = [_member(feed | given, is_clustered="cluster" in process) for feed in feeds]
    configs = [config for config, _ in members]
    in_cluster = {config.block_name: member for config, member in members} if "cluster" in process else {}
    return Configuration(configs, process, mirrors, in_cluster)


def cluster_settings(flags: Mapping[str, Any]) -> ClusterSettings:
    """Return the cluster's servers for a command that does nothing but with them. Raises ConfigError."""
    given = {name: value for name, value in _variables(os.environ).items() if name in CLUSTER_KEYS}
    given |= {name: flags[name] for name in CLUSTER_KEYS if flags.get(name) is not None}
    settings = ClusterSettings.of(given)
    if settings is None:
        raise ConfigError("cluster is missing; give --cluster nats://HOST")
    return settings


def mirror_configuration(flags: Mapping[str, Any], path: Path | None) -> Configuration:
    """Return the mirrors of the TOML file at `path`, and keys of the process as `configuration` does; feeds are left
    out. Raises ConfigError and OSError."""
    process, _, mirrors = ({}, [], []) if path is None else _file_parts(path)
    return Configuration([], _process(process, flags, _variables(os.environ)), mirrors)


def _process(process: Mapping[str, Any], flags: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the process: of the file, unless `given` or `flags` have them. They are taken from `given`."""
    merged = dict(process)
    for name in PROCESS_KEYS:
        value = given.pop(name, None)
        if flags.get(name) is not None:
            value = flags[name]
        if value is not None:
            merged[name] = value
    return merged


def in_environment(names: Collection[str]) -> dict[str, Any]:
    """Return those of these settings that the environment has, such as CANDLESHM_BASE_URL. Raises ConfigError."""
    values = {name: value for name, value in _variables(os.environ).items() if name in names}
    for name, value in values.items():
        settings()[name].check(f"{VARIABLE}{name.upper()}", value)
    return values


def _variables(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what variables such as CANDLESHM_LENGTH say, by the name of the setting or of the process's key.

    An empty one says nothing. Raises ConfigError for one that is nearly a setting, or whose text cannot be read.
    """
    types = get_type_hints(CollectorConfig) | {"as": str, "shards": int}
    names = [*settings(), *MEMBER_KEYS, *PROCESS_KEYS]
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        name = variable.removeprefix(VARIABLE).lower()
        if not variable.startswith(VARIABLE) or not text:
            continue
        if name not in names:
            # Others have variables of that beginning, such as Kubernetes for a service of that name.
            if near := difflib.get_close_matches(name, names, n=1, cutoff=TYPO_MIN):
                meant = f"{VARIABLE}{near[0].upper()}"
                raise ConfigError(f"unknown variable `{variable}` in the environment; did you mean {meant}?")
            continue
        try:
            values[name] = PROCESS_READERS[name](text) if name in PROCESS_KEYS else _read(types[name], text)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ConfigError(f"{variable} cannot be `{text}`: {error}") from None
    return values


def _read(hint: Any, text: str) -> Any:
    """Return the value of a field of that type that a text stands for, as its flag would read it. Raises ValueError."""
    reading = _reading(hint)
    if reading.get("action") is argparse.BooleanOptionalAction:
        return _truth(text)
    return reading.get("type", str)(text)


def _truth(text: str) -> bool:
    if text.lower() not in TRUTHS:
        raise ValueError(f"allowed: {' '.join(TRUTHS)}")
    return TRUTHS[text.lower()]


def listening_address(value: object) -> tuple[str, int]:
    """Return host and port of `[HOST:]PORT`; without a host it is this machine's own. Raises ValueError."""
    host, _, port = str(value).rpartition(":")
    if isinstance(value, bool) or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"must be a port, 0 to 65535: `{port}`")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _is_address(value: object) -> bool:
    try:
        listening_address(value)
    except ValueError:
        return False
    return True


PROCESS_KEYS = {
    "metrics": Setting(
        "serve Prometheus metrics at this address; without HOST only this machine can reach them",
        'a port such as 9100, or "host:port"',
        _is_address,
    ),
    "gateway": Setting(
        "also run a gateway at this address, as a process of its own; without HOST only this machine can reach it",
        'a port such as 8700, or "host:port"',
        _is_address,
    ),
    "metrics_per_symbol": Setting(
        "let the metrics show every symbol by itself, six values each (default: yes)",
        "true | false",
        lambda value: isinstance(value, bool),
    ),
    "group": Setting(
        "group of users that may read the blocks, and share the weight budget (default: nobody)",
        "a group of this machine, or its number",
        is_group,
    ),
    **CLUSTER_KEYS,
}


# What the value of each becomes, from a file or from a text.
PROCESS_READERS: Mapping[str, Callable[[Any], Any]] = {
    "metrics": listening_address,
    "gateway": listening_address,
    "metrics_per_symbol": lambda value: value if isinstance(value, bool) else _truth(value),
    "group": str,
    **dict.fromkeys(CLUSTER_KEYS, str),
    "cluster_replicas": int,
}


def _member(values: dict[str, Any], *, is_clustered: bool) -> tuple[CollectorConfig, MemberConfig]:
    """Return the settings of a feed's collector, and what it is in the cluster. Raises ConfigError."""
    given = {name: values.pop(name) for name in MEMBER_KEYS if name in values}
    for name, value in given.items():
        MEMBER_KEYS[name].check(name, value)
        if not is_clustered:
            raise ConfigError(f"{name} is given without cluster; give --cluster nats://HOST as well")
    config = _config(values)
    member = MemberConfig(config.block_name, given.get("shards", 1))
    return (replace(config, name=given["as"]) if "as" in given else config), member


def _config(values: dict[str, Any]) -> CollectorConfig:
    if "market" not in values:
        raise ConfigError("market is missing; give --market spot, um or cm")
    return CollectorConfig(**values)


def _file_parts(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[MirrorConfig]]:
    """Return the keys of the process, the settings of each feed, and the mirrors.

    Without `[[feed]]` tables the file is one feed, unless it has nothing but mirrors and keys of the process.
    """
    try:
        # The file may be a pipe, as `<(...)` of a shell makes one, or a device without an end.
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        if len(text) > FILE_BYTES_MAX:
            raise ConfigError(f"{path} cannot be a configuration: it is larger than {FILE_BYTES_MAX} bytes")
        loaded = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    tables, mirror_tables = _tables(loaded, FEED, path), _tables(loaded, MIRROR, path)
    common = _settings(loaded, str(path), PROCESS_KEYS)
    process = {name: common.pop(name) for name in PROCESS_KEYS if name in common}
    for name, value in process.items():
        PROCESS_KEYS[name].check(f"{path}: {name}", value)
    process = {name: PROCESS_READERS[name](value) for name, value in process.items()}
    mirrors = [
        MirrorConfig.of_table(table, f"{path}, mirror {number}") for number, table in enumerate(mirror_tables or (), 1)
    ]
    if tables is None:
        return process, [common] if common or not mirrors else [], mirrors
    feeds = [common | _settings(table, f"{path}, feed {number}") for number, table in enumerate(tables, 1)]
    return process, feeds, mirrors


def _tables(loaded: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]] | None:
    """Take the tables of one name out of a file, None where it has none. Raises ConfigError for anything else."""
    tables = loaded.pop(name, None)
    if tables is not None and not (
        isinstance(tables, list) and tables and all(isinstance(table, dict) for table in tables)
    ):
        raise ConfigError(f"{path}: {name} must be a list of tables; begin each with a line [[{name}]]")
    return tables


def _settings(table: Mapping[str, Any], where: str, more: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings of a table, and the keys in `more`; LENGTH, length and the flag's spelling are the same."""
    names = [*settings(), *MEMBER_KEYS, *more]
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.lower().replace("-", "_")
        if name in PROCESS_KEYS and name not in names:
            raise ConfigError(f"{where}: `{key}` holds for the whole process; put it above the first [[feed]]")
        if name not in names:
            raise ConfigError(f"{where}: unknown key `{key}`{_advice(name, names)}")
        if name in values:
            raise ConfigError(f"{where}: `{key}` is given twice, in different spelling")
        values[name] = value
    return values


def _advice(name: str, names: Collection[str]) -> str:
    """Return which key was probably meant, or where they all stand."""
    known = [*names, *ALIASES, FEED, MIRROR]
    near = next(iter(difflib.get_close_matches(name, known, n=1, cutoff=NEAR_MIN)), None)
    # A part of a longer name is near as well, whatever its share of it.
    near = near or next((known_name for known_name in names if name in known_name.split("_")), None)
    meant = ALIASES.get(near, near) if near is not None else None
    if meant is None:
        return "; `candleshm serve --help` lists the settings"
    return f"; did you mean {f'[[{meant}]]' if meant in (FEED, MIRROR) else meant}?"


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
