"""Builds libcandleshm and puts it, with its headers, where compilers look: `native_library.py PREFIX`.

Without PREFIX it goes into the Python package, from where the wheel takes it. Needs cargo, and nothing beyond the
standard library, because pip calls it before anything is installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATE = ROOT / "rust" / "candleshm-c"
IN_PACKAGE = ROOT / "python" / "candleshm" / "native"
SOVERSION = 1
"""The number in the soname, which `build.rs` gives the library; it changes when a program has to be compiled anew."""
SHARED = f"libcandleshm.so.{SOVERSION}"


def build() -> tuple[dict[str, Path], str]:
    """Return the paths of the libraries by their suffix, and what programs need beside the static one."""
    command = "cargo rustc --release --locked --package candleshm-c --lib --message-format json-render-diagnostics"
    words = [*command.split(), "--", "--print", "native-static-libs"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
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


def install(prefix: Path, *, static: bool) -> None:
    """Build the library, and put everything into `include` and `lib` below `prefix`."""
    libraries, beside = build()
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


if __name__ == "__main__":
    if len(sys.argv) > 1:
        install(Path(sys.argv[1]), static=True)
    else:
        install(IN_PACKAGE, static=False)
