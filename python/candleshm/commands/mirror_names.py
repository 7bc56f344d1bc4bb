"""The names of the blocks that mirrors make beside the feeds of the same file: no block has two owners."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path

from candleshm._core import MARKETS, PRICES
from candleshm.cluster.mirror_config import MirrorConfig
from candleshm.config import CollectorConfig, derived_name
from candleshm.errors import ConfigError

__all__ = ["refuse_shared_names"]


def refuse_shared_names(feeds: Sequence[CollectorConfig], mirrors: Sequence[MirrorConfig], path: Path | None) -> None:
    """Raise ConfigError for a block that a mirror of the file at `path` has in common with a feed or another mirror."""
    owners = {name: f"feed {number}" for number, config in enumerate(feeds, 1) for name in config.block_names}
    for number, mirror in enumerate(mirrors, 1):
        for name in _names_of(mirror):
            other = owners.setdefault(name, f"mirror {number}")
            if other != f"mirror {number}":
                raise ConfigError(
                    f"{path}: {other} and mirror {number} both have the block `{name}`; give one of them another name "
                    "by `as`"
                )


def _names_of(mirror: MirrorConfig) -> tuple[str, ...]:
    """Return the names of a mirror's blocks, as far as they follow from its settings."""
    name = mirror.block_name
    stem = name.rpartition("-")[0] if _is_usual(name) else name
    return (name, *(derived_name(stem, text.partition(":")[0]) for text in mirror.derive))


def _is_usual(name: str) -> bool:
    """Return whether a block has this name by default; then it ends in the interval, as those of derived blocks do."""
    for market, price in product(MARKETS, PRICES):
        with suppress(ConfigError):
            if CollectorConfig(market=market, price=price, interval=name.rpartition("-")[2]).block_name == name:
                return True
    return False
