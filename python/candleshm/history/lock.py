"""One writer at a time for the daily files of a series tree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from candleshm.errors import StoreInUse, StoreUnavailable
from candleshm.runtime import runtime_dir, runtime_path

__all__ = ["writing"]


@contextmanager
def writing(tree: Path) -> Iterator[None]:
    """Be the only writer of `tree` on this host.

    Raises StoreInUse at once when another process or thread is, StoreUnavailable where there is no place for a lock.

    The kernel lets go of the lock when its owner dies, however it dies. The lock file lies in the runtime directory,
    not in the tree: that may be read-only for readers, or be copied.
    """
    name = hashlib.sha256(str(tree.resolve()).encode()).hexdigest()[:32]
    try:
        lock = FileLock(runtime_dir() / f"store-{name}.lock", timeout=0, thread_local=False)
        lock.acquire()
    except Timeout:
        raise StoreInUse(str(tree)) from None
    except OSError as error:
        reason = f"cannot be locked in {runtime_path()} ({error.strerror}); set XDG_RUNTIME_DIR to a directory of yours"
        raise StoreUnavailable(str(tree), reason, error.errno or 0) from None
    try:
        yield
    finally:
        lock.release()
