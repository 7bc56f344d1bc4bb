"""What can be a name: of a block, which becomes a file's name, and of a symbol, which goes into logs and addresses."""

from __future__ import annotations

import re

__all__ = ["BLOCK_NAMES", "SYMBOL_NAMES", "is_block_name", "is_symbol_name"]

BLOCK_NAMES = "1 to 200 of A-Z a-z 0-9 . _ - that do not begin with a dot"
SYMBOL_NAMES = "1 to 64 bytes without blanks and control characters"
SYMBOL_BYTES_MAX = 64

_BLOCK = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


def is_block_name(name: object) -> bool:
    """Say whether `name` can name a block: no slash, no leading dot, nothing that a shell or a log would take apart."""
    return isinstance(name, str) and _BLOCK.fullmatch(name) is not None


def is_symbol_name(name: object) -> bool:
    """Say whether `name` can be a symbol's. Some real ones are not ASCII; none could begin a line or hide one."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and " " not in name
        and 0 < len(name.encode("utf-8")) <= SYMBOL_BYTES_MAX
    )
