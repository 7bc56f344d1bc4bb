"""Log lines that name the block they are about: several feeds of one process share one log."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

__all__ = ["BlockLog", "is_worth_logging"]


class BlockLog(logging.LoggerAdapter[logging.Logger]):
    """A module's logger with the name of a block in front of every message, and in each record as `block`.

    >>> BlockLog(logging.getLogger("candleshm"), "candleshm-spot-1m").process("loaded %d of %d symbols", {})[0]
    'candleshm-spot-1m: loaded %d of %d symbols'
    """

    def __init__(self, logger: logging.Logger, block_name: str) -> None:
        super().__init__(logger, {})
        self._block_name = block_name

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        """Return the message behind the name of the block, and the name for the record."""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "block": self._block_name}
        return f"{self._block_name.replace('%', '%%')}: {msg}", kwargs


def is_worth_logging(count: int) -> bool:
    """Return whether what happened so often in a row is logged again: the 1st, 2nd, 4th, 8th, ... time."""
    return count.bit_count() == 1
