"""One writer at a time for the daily files of a tree. The lock lies in the tree, so all writers meet it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from candleshm.errors import StoreInUse, StoreUnavailable
from candleshm.system.atomic_file import make_directory, open_plain
from candleshm.system.runtime_dir import runtime_dir

__all__ = ["LOCK_NAME", "writing"]

logger = logging.getLogger(__name__)

# Readers of whole directories leave out what begins with a dot, and so does `*`.
LOCK_NAME = ".candleshm.lock"
TRIES = 3
# Some network file systems have no locks.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


@contextmanager
def writing(tree: Path) -> Iterator[None]:
    """Be the only writer of `tree`, also among other users, cron jobs and containers with the same volume.

    Raises StoreInUse at once when another process or thread is, StoreUnavailable where the tree cannot be written.

    The kernel frees the lock when its owner dies. The file stays, so that nobody waits for a lock on a removed one; but
    a tree that was made here, and into which nothing was written, is removed again with it. Readers need no lock.
    """
    made = [path for path in (tree, *tree.parents) if not path.exists()]
    try:
        descriptor = _locked_in(tree)
        if descriptor is None:
            logger.warning("%s: its file system has no locks; only this user's writers on this host are excluded", tree)
            name = hashlib.sha256(str(tree.resolve()).encode()).hexdigest()[:32]
            descriptor = _locked(runtime_dir() / f"store-{name}.lock")
    except BlockingIOError:
        raise StoreInUse(str(tree)) from None
    except OSError as error:
        raise StoreUnavailable(str(tree), f"cannot be locked: {error.strerror or error}", error.errno or 0) from None
    try:
        yield
    finally:
        if made:
            _remove_empty(tree, made)
        if descriptor is not None:
            os.close(descriptor)


def _locked_in(tree: Path) -> int | None:
    """Make a tree and lock it, once more when another writer removed its own empty one meanwhile. Raises OSError."""
    for _ in range(TRIES):
        make_directory(tree)
        with suppress(FileNotFoundError):
            return _locked(tree / LOCK_NAME)
    make_directory(tree)
    return _locked(tree / LOCK_NAME)


def _remove_empty(tree: Path, made: Sequence[Path]) -> None:
    """Remove a tree with nothing but its lock, which this process has, and those parents that it had made."""
    with suppress(OSError):
        if os.listdir(tree) == [LOCK_NAME]:
            os.unlink(tree / LOCK_NAME)
            for path in made:
                path.rmdir()


def _locked(path: Path) -> int | None:
    """Open and lock a file, which is made where it is not there; None where there are no locks.

    Raises BlockingIOError when another has the lock, OSError.
    """
    while True:
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Removed by somebody, and perhaps made anew, between opening and locking.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False)):
                    return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in NO_LOCKS:
                return None
            raise
        os.close(descriptor)


def _opened(path: Path) -> int:
    """Open a lock file with the permissions of its directory. Raises OSError."""
    try:
        descriptor = open_plain(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return open_plain(path, os.O_RDWR)
    directory = os.stat(path.parent)
    with suppress(OSError):  # Not every file system has owners and modes.
        if os.geteuid() == 0 and directory.st_uid != 0:
            os.fchown(descriptor, directory.st_uid, directory.st_gid)
        writers = directory.st_mode & 0o022
        if writers & 0o020:
            os.fchown(descriptor, -1, directory.st_gid)
        os.fchmod(descriptor, 0o600 | writers | writers << 1)
    return descriptor
