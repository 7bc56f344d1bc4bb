"""CSV as other programs leave it behind, in the form that ours is read in. Pure."""

from __future__ import annotations

import re

__all__ = ["plain_csv"]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTED = re.compile(rb'(?:(?<=[,\n])|\A)"([^"\r\n,]*)"(?=[,\r\n]|\Z)')
# Bounded: of a line of a million blanks each one would be looked at from each one before it.
_BLANKS = re.compile(rb"[ \t]{0,16}([,\r\n]|\A|\Z)[ \t]{0,16}")


def plain_csv(data: bytes) -> bytes:
    """Return a CSV file without byte order mark, quotes around values, blanks beside them, and empty lines at the end.

    Values and their order are as they were, and so are the numbers of the lines.
    """
    data = data.removeprefix(BYTE_ORDER_MARK)
    if b" " in data or b"\t" in data:
        data = _BLANKS.sub(rb"\1", data)
    if b'"' in data:
        data = _QUOTED.sub(rb"\1", data)
    end = data.rstrip(b"\r\n")
    return end + b"\n" if end != data else data
