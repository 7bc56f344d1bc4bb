"""The directory of locks and ledgers that the processes of one user on this host share, or those of one group.

Everybody may write into `/tmp`: another user could create the directory first, put links there, or read its files. So
it must be a real directory of this user alone, and files in it must be plain files of this user alone. With a group
(`sharing`) directory and files must be the group's, whichever of its members made them, and nobody else's.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from candleshm.errors import ConfigError, named_group
from candleshm.system import sharing

__all__ = ["check_ours", "runtime_dir", "runtime_path", "share_file"]

VARIABLE = "CANDLESHM_RUNTIME_DIR"


def runtime_path() -> Path:
    """Return `${CANDLESHM_RUNTIME_DIR:-${XDG_RUNTIME_DIR:-/tmp}}/candleshm-$UID`, which may not exist.

    With a group it is `${CANDLESHM_RUNTIME_DIR:-/tmp}/candleshm-group-$GID`. Raises ConfigError for a group that cannot
    be used.
    """
    gid = sharing.group()
    # The directory of XDG belongs to one user.
    base = Path(os.environ.get(VARIABLE) or (gid is None and os.environ.get("XDG_RUNTIME_DIR")) or "/tmp")
    # A relative one would be another directory for every working directory; its specification says to ignore it.
    name = f"candleshm-{os.getuid()}" if gid is None else f"candleshm-group-{gid}"
    return (base if base.is_absolute() else Path("/tmp")) / name


def runtime_dir() -> Path:
    """Return `runtime_path`, made for this user or group alone. Raises ConfigError when it is another's, OSError."""
    path, gid = runtime_path(), sharing.group()
    if gid is None:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
    elif not path.exists():
        _make_shared(path, gid)
    check_ours(path, path.lstat(), stat.S_ISDIR)
    return path


def share_file(descriptor: int) -> None:
    """Give a new file in the directory to the group, where there is one. Raises OSError."""
    gid = sharing.group()
    if gid is not None:
        os.fchown(descriptor, -1, gid)
        os.fchmod(descriptor, 0o660)


def check_ours(path: Path, status: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    """Raise ConfigError unless `path`, whose lstat or fstat is `status`, is of that kind and this user's alone, or the
    group's.
    """
    if not is_kind(status.st_mode):
        raise ConfigError(f"locks and ledgers need plain files in a real directory, this is neither: `{path}`")
    gid = sharing.group()
    is_dir = stat.S_ISDIR(status.st_mode)
    if gid is not None:
        if status.st_gid != gid or status.st_mode & 0o007:
            mode = "770" if is_dir else "660"
            raise ConfigError(
                f"locks and ledgers must belong to group {named_group(gid)} alone; "
                f"chgrp {gid} and chmod {mode} `{path}`"
            )
        return
    if status.st_uid != os.getuid():
        raise ConfigError(f"locks and ledgers must belong to this user alone, but user {status.st_uid} owns `{path}`")
    if status.st_mode & 0o077:
        mode = "700" if is_dir else "600"
        raise ConfigError(
            f"locks and ledgers must belong to this user alone, others have access; chmod {mode} `{path}`"
        )


def _make_shared(path: Path, gid: int) -> None:
    """Make the directory of a group under another name, and rename it once it is the group's: others may look at it."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    draft.mkdir(mode=0o700)
    try:
        os.chown(draft, -1, gid)
        draft.chmod(0o770)
        # In place of an empty one as well, in which nobody has anything yet.
        draft.rename(path)
    except OSError:
        with suppress(OSError):
            draft.rmdir()
        if not path.exists():
            raise
