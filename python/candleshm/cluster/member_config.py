"""The settings of a collector as a member of a cluster: under which name, and in how many shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from candleshm.config import Setting
from candleshm.names import BLOCK_NAMES, is_block_name

__all__ = ["MEMBER_KEYS", "SHARDS_MAX", "MemberConfig"]

SHARDS_MAX = 64

MEMBER_KEYS: Mapping[str, Setting] = {
    "as": Setting(
        "with a cluster: name of the block on this host (default: the feed's, which is --name)",
        BLOCK_NAMES,
        is_block_name,
    ),
    "shards": Setting(
        "with a cluster: into how many parts the symbols are divided among the collectors of the feed, so that these "
        "share the request weight; the same for all of them (default: 1)",
        f"a whole number, 1 to {SHARDS_MAX}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= SHARDS_MAX,
    ),
}
"""Keys of a feed that only a cluster gives a meaning."""


class MemberConfig(NamedTuple):
    """What a collector is in a cluster."""

    feed: str
    """The name of the feed, the same for all its collectors and mirrors."""
    shards: int = 1
