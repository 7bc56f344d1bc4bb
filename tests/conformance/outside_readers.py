"""The builds of `outsider.c`, the reader that was written from the format page alone."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

from tests.support import apt

__all__ = ["READERS", "SOURCE", "command"]

SOURCE = Path(__file__).with_name("outsider.c")
STRICT = ["-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
BUILDS = {
    "gcc": ({"gcc": "gcc"}, ["gcc"]),
    "clang": ({"clang": "clang"}, ["clang"]),
    "sanitized": ({"gcc": "gcc"}, ["gcc", *SANITIZED]),
}
"""For each build the programs that it needs, with their Debian packages, and its compiler."""
READERS = list(BUILDS)
EMULATED = {"aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross", "qemu-aarch64": "qemu-user"}
_folder = tempfile.TemporaryDirectory(prefix="candleshm-outsider-")


@functools.cache
def command(build: str) -> list[str]:
    """Build the reader once and return what runs it. `aarch64` runs in an emulator."""
    programs, compiler = BUILDS[build] if build != "aarch64" else (EMULATED, ["aarch64-linux-gnu-gcc", "-static"])
    apt.installed(programs)
    target = Path(_folder.name) / build
    subprocess.run([*compiler, *STRICT, "-o", str(target), str(SOURCE), "-lm"], check=True)
    return [*(["qemu-aarch64"] if build == "aarch64" else []), str(target)]
