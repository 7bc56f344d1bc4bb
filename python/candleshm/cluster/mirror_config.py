"""The settings of one mirror: which feed of the cluster, and what its block on this host is to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from candleshm.config import CollectorConfig, Setting, settings
from candleshm.errors import ConfigError
from candleshm.names import BLOCK_NAMES, is_block_name

__all__ = ["MIRROR_KEYS", "MirrorConfig"]

_OF_COLLECTORS = settings()
MIRROR_KEYS: Mapping[str, Setting] = {
    "name": Setting("name of the feed in the cluster, which is that of its collector", BLOCK_NAMES, is_block_name),
    "as": Setting("name of the block on this host (default: the feed's)", BLOCK_NAMES, is_block_name),
    "length": Setting(
        "candles kept of every symbol, the live one included (default: as many as the feed's collector keeps)",
        _OF_COLLECTORS["length"].allowed,
        _OF_COLLECTORS["length"].fits,
    ),
    "derive": Setting(
        "further intervals, made on this host of the feed's candles, each in a block of its own: 5m,1h:400",
        _OF_COLLECTORS["derive"].allowed,
        _OF_COLLECTORS["derive"].fits,
    ),
}
"""The keys of a `[[mirror]]` table, which are the flags of the command `mirror` as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorConfig:
    """A mirror of one feed. Raises ConfigError, naming the key, the value and what is allowed.

    >>> MirrorConfig(name="candleshm-spot-1m").block_name
    'candleshm-spot-1m'
    """

    name: str
    """Of the feed in the cluster."""
    local: str | None = None
    """Of the block on this host; None for the feed's."""
    length: int | None = None
    """Candles kept of every symbol; None for as many as the feed's collector keeps."""
    derive: Sequence[str] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value, key = getattr(self, field.name), _KEYS.get(field.name, field.name)
            if value is not None:
                MIRROR_KEYS[key].check(key, value)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> MirrorConfig:
        """Return the settings that keys of `MIRROR_KEYS` name; others are ignored. Raises ConfigError."""
        names = {field.name: _KEYS.get(field.name, field.name) for field in fields(cls)}
        return cls(**{name: given[key] for name, key in names.items() if given.get(key) is not None})

    @classmethod
    def of_table(cls, table: Mapping[str, Any], where: str) -> MirrorConfig:
        """Return the settings of a table of a file, which `where` names. Raises ConfigError for unknown keys too."""
        given = {key.lower().replace("-", "_"): value for key, value in table.items()}
        if unknown := next((key for key in given if key not in MIRROR_KEYS), None):
            raise ConfigError(f"{where}: unknown key `{unknown}`; a mirror has: {' '.join(MIRROR_KEYS)}")
        if "name" not in given:
            raise ConfigError(f"{where}: name is missing; give the name that the feed has in the cluster")
        try:
            return cls.of(given)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @property
    def block_name(self) -> str:
        """The name of the block on this host."""
        return self.local or self.name

    def as_collector(self, *, market: Any, price: Any, interval: str, length: int) -> CollectorConfig:
        """Return the settings that a collector of this block would have, with the names of derived blocks.

        `length` is that of the feed. Raises ConfigError for a length or derived intervals that do not fit the feed's.
        """
        config = CollectorConfig(market=market, price=price, interval=interval)
        return CollectorConfig(
            market=market,
            price=price,
            interval=interval,
            length=self.length or length,
            derive=self.derive,
            # Derived blocks of a block with the usual name have usual names as well.
            name=None if self.block_name == config.block_name else self.block_name,
        )


# `as` is no name in Python.
_KEYS = {"local": "as"}
