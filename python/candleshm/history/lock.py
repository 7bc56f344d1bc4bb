"""One writer at a time for the daily files of a series tree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from candleshm.errors import StoreInUse
from candleshm.runtime import runtime_dir

__all__ = ["writing"]


@contextmanager
def writing(tree: Path) -> Iterator[None]:
    """Be the only writer of `tree` on this host. Raises StoreInUse at once when another process or thread is.

    The kernel lets go of the lock when its owner dies, however it dies. The lock file lies in the runtime directory,
    not in the tree: that may be read-only for readers, or be copied.
    """
    name = hashlib.sha256(str(tree.resolve()).encode()).hexdigest()[:32]
    lock = FileLock(runtime_dir() / f"store-{name}.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise StoreInUse(str(tree)) from None
    try:
        yield
    finally:
        lock.release()
