"""Where locks and ledgers lie that the processes of one user on this host share."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from candleshm.errors import ConfigError

__all__ = ["runtime_dir"]


def runtime_dir() -> Path:
    """Return `${XDG_RUNTIME_DIR:-/tmp}/candleshm-$UID`, made for this user alone. Raises ConfigError, OSError."""
    path = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"candleshm-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    # /tmp belongs to everybody: whoever made the directory first could put links there.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(f"{path} is not a directory of this user alone; remove it, or set XDG_RUNTIME_DIR")
    return path
