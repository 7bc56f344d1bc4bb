"""Programs of Debian that tests need, installed where they are absent and that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

__all__ = ["installed"]


def installed(programs: Mapping[str, str]) -> list[str]:
    """Return the paths of programs, given with the package of each. Raises RuntimeError that says what to install."""
    if missing := [package for program, package in programs.items() if shutil.which(program) is None]:
        command = f"apt-get install --yes --no-install-recommends {' '.join(missing)}"
        if os.getuid() != 0 or shutil.which("apt-get") is None:
            raise RuntimeError(f"these tests need programs that are absent; as root: {command}")
        # Several processes of the same run may come here.
        with FileLock(Path(tempfile.gettempdir()) / "candleshm-tests-apt.lock"):
            if any(shutil.which(program) is None for program in programs):
                for words in ("apt-get update", command):
                    result = subprocess.run(words.split(), capture_output=True, text=True, check=False)
                    if result.returncode:
                        raise RuntimeError(f"`{words}` failed, and these tests need it: {result.stderr}")
    paths = [shutil.which(program) for program in programs]
    assert all(paths)
    return [str(path) for path in paths]
