"""The group of users with whom this process shares its blocks and its weight budget; without one nobody."""

from __future__ import annotations

import grp
import logging
import os

from candleshm import _core
from candleshm.errors import ConfigError, named_group

__all__ = ["VARIABLE", "group", "is_group", "share_with", "take_environment"]

logger = logging.getLogger(__name__)

VARIABLE = "CANDLESHM_GROUP"
# The number of the group, once this process shares with one.
_shared: list[int] = []


def group() -> int | None:
    """Return the number of the group, None without one. Raises ConfigError for one that cannot be used."""
    name = os.environ.get(VARIABLE)
    if not _shared and name:
        share_with(name)
    return _shared[0] if _shared else None


def share_with(name: str) -> None:
    """Share with a group from here on, also in processes that this one starts; with one other than before never.

    It is given by its name or number.

    Raises ConfigError when there is no such group, when this process is no member of it, or shares with another.
    """
    gid = _number(name)
    if gid not in {*os.getgroups(), os.getegid()} and os.geteuid() != 0:
        raise ConfigError(f"group cannot be `{name}`: this process is no member of group {named_group(gid)}")
    if _shared and _shared[0] != gid:
        raise ConfigError(f"group cannot be `{name}`: this process shares with group {named_group(_shared[0])} already")
    _shared[:] = [gid]
    os.environ[VARIABLE] = name  # for the processes that this one starts
    _core.share_with(gid)


def take_environment() -> None:
    """Share with the group that the environment names; one that cannot be used is logged, and shared with nobody."""
    try:
        group()
    except ConfigError as error:
        logger.warning("%s is not used: %s", VARIABLE, error)


def is_group(value: object) -> bool:
    """Return whether a value is the name of a group of this machine, or a number that may be one."""
    try:
        _number(value)
    except ConfigError:
        return False
    return True


def _number(name: object) -> int:
    text = str(name)
    if not isinstance(name, bool) and text.isascii() and text.isdigit() and int(text) < 2**32 - 1:
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise ConfigError(f"group cannot be `{text}`; allowed: a group of this machine, or its number") from None
