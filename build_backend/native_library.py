"""Builds libcandleshm and puts it, with its headers, where compilers look: `native_library.py PREFIX`.

Without PREFIX it goes into the Python package, from where the wheel takes it; with `--target TRIPLE` it is built for
that platform by zig (`cargo-zigbuild`). Else it needs cargo, and nothing beyond the standard library, because pip calls
it before anything is installed.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATE = ROOT / "rust" / "candleshm-c"
IN_PACKAGE = ROOT / "python" / "candleshm" / "native"
SOVERSION = 1
"""The number in the soname, which `build.rs` gives the library; it changes when a program has to be compiled anew."""
SHARED = f"libcandleshm.so.{SOVERSION}"


@contextmanager
def alone() -> Iterator[None]:
    """Wait for other builds of this clone: they put the same files into the package and into `target`."""
    folder = ROOT / "target"
    folder.mkdir(exist_ok=True)
    with (folder / "candleshm-build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another build in {ROOT}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(target: str | None) -> tuple[dict[str, Path], str]:
    """Return the paths of the libraries by their suffix, and what programs need beside the static one."""
    cargo = f"cargo-zigbuild rustc --target {target}" if target else "cargo rustc"
    command = f"{cargo} --release --locked --package candleshm-c --lib --message-format json-render-diagnostics"
    words = [*command.split(), "--", "--print", "native-static-libs"]
    # A shared library for musl finds the machine's libc, as everywhere.
    flags = os.environ.get("RUSTFLAGS", "")
    if target and "musl" in target:
        flags += " -C target-feature=-crt-static"
    environment = os.environ | ({"RUSTFLAGS": flags.strip()} if flags else {})
    result = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"libcandleshm was not built:\n{result.stderr}")
    for line in result.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == "candleshm_c":
            found = {Path(name).suffix: Path(name) for name in message["filenames"]}
    beside = re.search(r"native-static-libs: (.*)", result.stderr)
    # gcc adds its own library by itself, and with -static another one than this.
    return found, " ".join(word for word in beside[1].split() if word != "-lgcc_s") if beside else ""


def version() -> str:
    """Return the version of the workspace."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    return str(manifest["workspace"]["package"]["version"])


def install(prefix: Path, *, static: bool, target: str | None = None) -> None:
    """Build the library, and put everything into `include` and `lib` below `prefix`."""
    libraries, beside = build(target)
    include, lib = prefix / "include", prefix / "lib"
    for folder in (include, lib / "pkgconfig", lib / "cmake" / "candleshm"):
        folder.mkdir(parents=True, exist_ok=True)
    for header in (CRATE / "include").iterdir():
        shutil.copy(header, include)
    _replace(libraries[".so"], lib / SHARED)
    # The name that -lcandleshm looks for. Wheels hold no links, so it is a text that linkers understand.
    (lib / "libcandleshm.so").unlink(missing_ok=True)
    if static:
        _replace(libraries[".a"], lib / "libcandleshm.a")
        (lib / "libcandleshm.so").symlink_to(SHARED)
    else:
        (lib / "libcandleshm.so").write_text(f"/* for the linker */ INPUT({SHARED})\n", encoding="utf-8")
    words = {"VERSION": version(), "MAJOR": version().split(".")[0], "SOVERSION": str(SOVERSION)}
    words["STATIC_LIBRARIES"] = beside
    for template, folder in (
        ("candleshm.pc.in", lib / "pkgconfig"),
        ("candleshm-config.cmake.in", lib / "cmake" / "candleshm"),
        ("candleshm-config-version.cmake.in", lib / "cmake" / "candleshm"),
    ):
        text = (CRATE / template).read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        (folder / template.removesuffix(".in")).write_text(text, encoding="utf-8")


def _replace(source: Path, target: Path) -> None:
    """Copy a library to a new file: programs that run with the old one keep it."""
    new = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy(source, new)
    new.replace(target)


def main() -> None:
    """Build what the arguments say, when no other build of this clone runs."""
    parser = argparse.ArgumentParser(description="Build libcandleshm and put it where compilers look.")
    parser.add_argument("prefix", nargs="?", type=Path, help="such as /usr/local; default: into the Python package")
    parser.add_argument("--target", help="a platform, by zig: x86_64-unknown-linux-gnu.2.17")
    arguments = parser.parse_args()
    prefix = arguments.prefix
    with alone():
        install(prefix or IN_PACKAGE, static=prefix is not None, target=arguments.target)


if __name__ == "__main__":
    main()
