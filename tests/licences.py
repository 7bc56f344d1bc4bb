"""Licences of what is compiled into a wheel: ``make dependencies`` writes THIRD-PARTY-LICENCES, and a test compares.

MIT, BSD, ISC and Apache-2.0 ask that their text goes along with every copy. Which crates are in a wheel says
`cargo tree`, for every platform that wheels are built for; their texts lie in the sources that cargo fetched.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.dependencies import ROOT

__all__ = ["compiled_in", "document"]

TARGETS = [f"{machine}-unknown-linux-{libc}" for machine in ("x86_64", "aarch64") for libc in ("gnu", "musl")]
TEXTS = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE)", re.IGNORECASE)

HEAD = """\
Licences of the Rust crates that are compiled into candleshm's wheels
=====================================================================

candleshm itself has the licence in the file LICENSE. Its compiled parts (`_core`, `libcandleshm.so`) hold the crates
below, and parts of Rust's standard library. Where a crate leaves a choice, MIT was chosen, or else ISC. The page's
charts are TradingView Lightweight Charts (Apache-2.0), whose licence and notice lie beside them in
`candleshm/gateway/static/vendor`.

Written by `make dependencies`.
"""

STANDARD_LIBRARY = """\
Copyright (c) The Rust Project Contributors

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""


def compiled_in() -> set[tuple[str, str]]:
    """Return (name, version) of every crate in the module or in libcandleshm, on any platform that has a wheel."""
    words = "cargo tree --locked --edges no-dev,no-build,no-proc-macro --prefix none --package candleshm-python"
    found: set[tuple[str, str]] = set()
    for target in TARGETS:
        command = [*words.split(), "--package", "candleshm-c", "--target", target]
        text = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        # Our own are followed by their path.
        found |= set(re.findall(r"^(\S+) v(\S+)(?: \(\*\))?$", text, re.MULTILINE))
    return found


def document() -> str:
    """Return THIRD-PARTY-LICENCES: every text once, below the crates that have it."""
    words = ["cargo", "metadata", "--format-version", "1", "--locked"]
    packages = json.loads(subprocess.run(words, cwd=ROOT, capture_output=True, check=True, text=True).stdout)[
        "packages"
    ]
    wanted = compiled_in()
    crates: dict[str, list[str]] = {}
    for package in packages:
        if (package["name"], package["version"]) in wanted:
            text = "\n\n".join(_texts(Path(package["manifest_path"]).parent, package["license"] or ""))
            crates.setdefault(text, []).append(f"{package['name']} {package['version']} ({package['license']})")
    parts = [("Rust's standard library (MIT OR Apache-2.0)", STANDARD_LIBRARY)]
    parts += sorted(("\n".join(sorted(names)), text) for text, names in crates.items())
    return HEAD + "".join(f"\n{'-' * 80}\n{names}\n{'-' * 80}\n\n{text}\n" for names, text in parts)


def _texts(folder: Path, licence: str) -> list[str]:
    """Return the texts that go along with a crate: all of them, or those of the licence that was chosen."""
    files = sorted(path for path in folder.iterdir() if TEXTS.match(path.name) and path.is_file())
    if not files:
        raise SystemExit(f"{folder.name} has no licence text: ask its authors for one, and put it here by hand")
    for choice in ("MIT", "ISC") if re.search(r" OR |/", licence) else ():
        chosen = [path for path in files if path.name.upper().endswith(f"-{choice}")]
        if chosen:
            files = chosen
            break
    return ["\n".join(line.rstrip() for line in path.read_text("utf-8").strip().splitlines()) for path in files]


if __name__ == "__main__":
    sys.stdout.write(document())
