"""The benches: ``python benches/run.py [--quick] [--json FILE] [--against FILE] [--plots FOLDER] [R N W J A S B D]``.

Prints a table per measurement with p50, p99, the ratio to ours and the targets. A wrong answer fails the run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from comparison import worse
from rounds import Table, WrongAnswer, printed

WORKLOADS = {
    "R": "reads",
    "N": "wakes",
    "W": "merges",
    "J": "bodies",
    "A": "attaches",
    "S": "growth",
    "B": "claims",
    "D": "derives",
}
PEERS = (
    "numpy",
    "redis",
    "hiredis",
    "iceoryx2",
    "lmdb",
    "polars",
    "pandas",
    "orjson",
    "filelock",
    "pyrate-limiter",
    "requests",
)


def machine() -> dict[str, Any]:
    """Say what the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "peers": {peer: version(peer) for peer in PEERS},
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def tables(letters: list[str], *, quick: bool) -> Iterator[Table]:
    for letter in letters:
        yield from importlib.import_module(WORKLOADS[letter]).run(quick=quick)


def main() -> int:
    parser = argparse.ArgumentParser(description="How fast candleshm is, beside its peers.")
    parser.add_argument(
        "workloads", nargs="*", metavar="R|N|W|J|A|S|B|D", help="which workloads; all when none is named"
    )
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds: for a look, not for a record")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--against", type=Path, metavar="FILE", help="say what is worse than in that run")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write a plot per workload there")
    arguments = parser.parse_args()
    letters = arguments.workloads or list(WORKLOADS)
    if unknown := set(letters) - set(WORKLOADS):
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    found = []
    try:
        for table in tables(letters, quick=arguments.quick):
            print(printed(table), flush=True)
            found.append(table.as_dict())
    except WrongAnswer as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        result = {"machine": machine(), "quick": arguments.quick, "tables": found}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.against:
        committed = json.loads(arguments.against.read_text(encoding="utf-8"))["tables"]
        lines = list(worse(found, committed))
        print("\n".join(lines) or f"nothing is worse than in {arguments.against} by more than noise")
    if arguments.plots:
        importlib.import_module("plots").draw(found, arguments.plots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
