"""Files that are replaced wholly or not at all, also when the process is killed or the machine stops.

The bytes go to a temporary file in the same directory and to the disk; then the name moves to them, and the directory
to the disk. Whoever opens the name finds the old file or the new one, never a part.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["Directories", "make_directory", "remove_leftovers", "replace_file"]

TEMPORARY = ".tmp"


def replace_file(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Put `data` in the place of `path`; its directory has to exist, and nobody else may write it. Raises OSError.

    Data too large to be in memory at once may come in parts, which are asked for while the file is written.

    After an error the old file is as it was, and nothing else is left.
    """
    # The name does not end as the file's does, and starts with a dot: no reader of whole directories takes it for one.
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            for part in [data] if isinstance(data, bytes) else data:
                left = memoryview(part)
                while left:
                    left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory and those above it, so that they survive a power cut. Raises OSError."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    _sync(path.parent)


def remove_leftovers(directory: Path) -> list[Path]:
    """Remove the temporary files that killed writers left in `directory`, and return them."""
    left = list(directory.glob(f".*{TEMPORARY}"))
    for path in left:
        path.unlink(missing_ok=True)
    return left


class Directories:
    """The directories that one writer meets; its threads may write into them at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._met: set[Path] = set()

    def prepare(self, path: Path) -> None:
        """Make a directory where it is not there, and at the first meeting remove what killed writers left in it."""
        with self._lock:
            make_directory(path)
            if path not in self._met:
                remove_leftovers(path)
                self._met.add(path)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
