"""Files of unknown origin: read as a whole if they are regular files and not too large."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["read_plain"]


def read_plain(path: Path, bytes_max: int) -> bytes:
    """Return the content of a file. Raises OSError; ValueError when it is not a regular file, or has more bytes.

    A pipe or a device of that name does not block.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
        parts, left = [], bytes_max + 1
        while left and (part := file.read(min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    if not left:
        raise ValueError(f"larger than the limit of {bytes_max} bytes")
    return b"".join(parts)
