"""The directory of locks and ledgers that the processes of one user on this host share.

Everybody may write into `/tmp`: another user could create the directory first, put links there, or read its files. So
it must be a real directory of this user alone, and files in it must be plain files of this user alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from candleshm.errors import ConfigError

__all__ = ["check_ours", "runtime_dir", "runtime_path"]


def runtime_path() -> Path:
    """Return `${XDG_RUNTIME_DIR:-/tmp}/candleshm-$UID`, which may not exist."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
    # A relative one would be another directory for every working directory; its specification says to ignore it.
    return (base if base.is_absolute() else Path("/tmp")) / f"candleshm-{os.getuid()}"


def runtime_dir() -> Path:
    """Return `runtime_path`, made for this user alone. Raises ConfigError when it is another's, OSError."""
    path = runtime_path()
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    check_ours(path, path.lstat(), stat.S_ISDIR)
    return path


def check_ours(path: Path, status: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    """Raise ConfigError unless `path`, whose lstat or fstat is `status`, is of that kind and this user's alone."""
    if not is_kind(status.st_mode):
        raise ConfigError(f"locks and ledgers need plain files in a real directory, this is neither: `{path}`")
    if status.st_uid != os.getuid():
        raise ConfigError(f"locks and ledgers must belong to this user alone, but user {status.st_uid} owns `{path}`")
    if status.st_mode & 0o077:
        mode = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise ConfigError(
            f"locks and ledgers must belong to this user alone, others have access; chmod {mode} `{path}`"
        )
