"""What can be a name: of a block, which becomes a file's name, and of a symbol, which goes into logs and URLs.

The core decides; the words for it are here.
"""

from __future__ import annotations

from candleshm._core import is_block_name, is_symbol_name

__all__ = ["BLOCK_NAMES", "SYMBOL_NAMES", "is_block_name", "is_symbol_name"]

BLOCK_NAMES = "1 to 200 of A-Z a-z 0-9 . _ - that do not begin with a dot"
SYMBOL_NAMES = "1 to 64 bytes without blanks, slashes and control characters"
