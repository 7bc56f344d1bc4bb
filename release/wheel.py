"""Builds a wheel from the source distribution: `python -m release.wheel [--target TRIPLE]` writes it to dist/.

Every wheel is for the stable ABI of CPython 3.11, so one serves all later versions. It is linked by zig for glibc 2.17
(manylinux2014) or musl 1.2, whatever the machine has that builds it, and for another processor as well, as long as
rustup has the target's standard library. libcandleshm in it is built the same way.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from build_backend.native_library import ROOT, version
from release.source import DIST

__all__ = ["TARGETS", "main"]

GLIBC = "2.17"
TARGETS = {
    "x86_64-unknown-linux-gnu": "manylinux2014",
    "aarch64-unknown-linux-gnu": "manylinux2014",
    "x86_64-unknown-linux-musl": "musllinux_1_2",
    "aarch64-unknown-linux-musl": "musllinux_1_2",
}
"""The platforms that have wheels, and the policy that each has to fit."""
WORK = ROOT / "build" / "wheel"


def _unpack(archive: Path) -> Path:
    """Unpack the source distribution into a folder of a fixed name: its third-party crates stay built in between."""
    folder = WORK / archive.name.removesuffix(".tar.gz")
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(WORK, filter="data")
    # Cargo judges by the time of a file, and all of an archive are equally old.
    for path in folder.rglob("*"):
        os.utime(path)
    return folder


def _run(words: list[str], folder: Path) -> None:
    result = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=_environment(), check=False)
    if result.returncode:
        sys.exit(f"the wheel was not built, `{' '.join(words)}` said:\n{result.stdout}{result.stderr}")


def _environment() -> dict[str, str]:
    """Return what the builds see: the tools of this Python's environment first, and no flags of this machine.

    Paths in messages of a panic begin with the name of what they lie in, not with somebody's home.
    """
    kept = {name: value for name, value in os.environ.items() if name != "CARGO_BUILD_TARGET"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    cargo = os.environ.get("CARGO_HOME") or str(Path.home() / ".cargo")
    renamed = f"--remap-path-prefix={cargo}=cargo --remap-path-prefix={WORK}=candleshm"
    return kept | {"PATH": path, "CARGO_TARGET_DIR": str(WORK / "target"), "RUSTFLAGS": renamed}


def main() -> None:
    """Build one wheel into dist/."""
    parser = argparse.ArgumentParser(description="Build a wheel from the source distribution in dist/.")
    here = f"{platform.machine()}-unknown-linux-gnu"
    parser.add_argument("--target", default=here, choices=sorted(TARGETS), help="the platform; default: this one")
    target = parser.parse_args().target
    archive = DIST / f"candleshm-{version()}.tar.gz"
    if not archive.exists():
        sys.exit(f"{archive} is not there: run `make sdist` first")
    folder = _unpack(archive)
    exact = target if target.endswith("musl") else f"{target}.{GLIBC}"
    _run([sys.executable, "build_backend/native_library.py", "--target", exact], folder)
    words = f"maturin build --release --locked --zig --target {target} --compatibility {TARGETS[target]}"
    _run([*words.split(), "--auditwheel", "check", "--out", str(DIST)], folder)
    for wheel in DIST.glob(f"candleshm-{version()}-cp311-abi3-*{TARGETS[target]}_{target.split('-')[0]}*.whl"):
        print(wheel)


if __name__ == "__main__":
    main()
