"""Files that are replaced wholly or not at all, also when the process is killed or the machine stops.

The bytes go to a temporary file in the same directory and to the disk; then the name moves to them, and the directory
to the disk. A reader that opens the name finds the old file or the new one, never a part.

Other users may be allowed to write into that directory. So the temporary file is always a new one with a name that
cannot be guessed, and it is locked while it is written: an unlocked one was left by a writer that was killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["Directories", "make_directory", "open_plain", "read_ours", "remove_leftovers", "replace_file"]

TEMPORARY = ".tmp"


def replace_file(path: Path, data: bytes | Iterable[bytes], *, mode: int = 0o666) -> None:
    """Put `data` in the place of `path`; its directory must exist. A link under that name is replaced, not followed.

    Data too large for memory may come as an iterable of parts. The umask applies to `mode`. After an error the old file
    is unchanged and no other file is left. Raises OSError.
    """
    temporary, descriptor = _temporary(path, mode)
    try:
        try:
            for part in [data] if isinstance(data, bytes) else data:
                left = memoryview(part)
                while left:
                    left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
            os.replace(temporary, path)
        finally:
            os.close(descriptor)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync(path.parent)


def open_plain(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a plain file and return its descriptor. Links are not followed, and pipes and devices do not block.

    Raises OSError, also for anything but a plain file.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return descriptor


def read_ours(path: Path) -> bytes:
    """Return the content of a plain file that belongs to this user and that nobody else may write. Raises OSError."""
    descriptor = open_plain(path, os.O_RDONLY)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, f"user {status.st_uid} owns it", str(path))
        if status.st_mode & 0o022:
            raise PermissionError(errno.EPERM, "others may write it", str(path))
        return file.read()


def make_directory(path: Path) -> None:
    """Make a directory and its parents, so that they survive a power failure. Raises OSError."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    _sync(path.parent)


def remove_leftovers(directory: Path, name: str = "*") -> list[Path]:
    """Remove the temporary files that killed writers left of files `name` in `directory`, and return them."""
    return [path for path in directory.glob(f".{name}{TEMPORARY}") if _is_left(path)]


def _temporary(path: Path, mode: int) -> tuple[Path, int]:
    """Make a temporary file for `path`, and lock it."""
    while True:
        # The name does not end as the file's does, and starts with a dot: no reader of whole directories takes it.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
        try:
            descriptor = open_plain(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            continue
        with suppress(OSError):  # Without locks on this file system no leftovers can be recognised.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # It was removed before it was locked.


def _is_left(path: Path) -> bool:
    """Remove a temporary file that no process writes; return whether it was removed."""
    try:
        descriptor = open_plain(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_uid != os.geteuid():
            return False
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


class Directories:
    """The directories of one writer, whose threads may write into them at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._met: set[Path] = set()

    def prepare(self, path: Path) -> None:
        """Make a directory if it is missing; at the first call remove what killed writers left in it."""
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
