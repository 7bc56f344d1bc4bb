"""How many instructions the core's steps execute: ``python benches/instructions.py [--write]``.

Counted by callgrind, so the machine's load and speed do not matter; the compiler's version does. Compared with the
committed counts in docs/benchmarks/instructions.json; a step that got worse by more than `NOISE` fails the run.
Instructions are not time: a step may wait for memory. What matters to users is measured by the other benches, beside
peers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMITTED = ROOT / "docs" / "benchmarks" / "instructions.json"
PROGRAM = ROOT / "target" / "release" / "examples" / "steps"
# What differs between two runs of the same program: seeds of hash maps.
NOISE = 0.01
# Each step, how often it is done, and a line about it.
STEPS = {
    "parse-page-1000": (4, "a response of 1000 rows becomes rows"),
    "parse-event": (200, "a stream event becomes a row"),
    "ingest-event": (200, "a stream event becomes a published live row"),
    "update-live-row": (200, "a response with a changed live row is merged and published"),
    "close-and-open": (200, "a row closes, the next one opens"),
    "correct-3-rows": (100, "three closed rows get other values"),
    "page-1000-equal": (8, "a page of 1000 rows that changes nothing"),
    "page-1000-changed": (4, "a page of 1000 rows that changes every row"),
    "copy-1440-rows": (50, "a private copy of 1440 x 12"),
    "copy-1440-states": (50, "the same with states"),
    "view-1440-rows": (2000, "a view of 1440 rows, and whether it is valid"),
    "newest-row": (2000, "a copy of the newest row"),
    "last-close": (20000, "the close of the newest row"),
}


def counted(step: str, rounds: int) -> int:
    """Return the instructions of a whole run."""
    words = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(PROGRAM), step, str(rounds)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"`{' '.join(words)}` failed: {result.stderr.strip()}")
    found = re.search(r"Collected : (\d+)", result.stderr)
    assert found is not None, result.stderr
    return int(found[1])


def per_round(step: str) -> float:
    """Return the instructions of one step: of a run with twice the rounds, less those of a run with the rounds."""
    rounds, _ = STEPS[step]
    return (counted(step, 2 * rounds) - counted(step, rounds)) / rounds


def main() -> int:
    parser = argparse.ArgumentParser(description="How many instructions the core's steps execute.")
    parser.add_argument("--write", action="store_true", help="make these the committed counts")
    arguments = parser.parse_args()
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--package", "candleshm", "--example", "steps"], cwd=ROOT, check=True
    )
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(STEPS, pool.map(per_round, STEPS), strict=True))
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {"steps": {}, "compiler": compiler}
    print(f"{'step':<20} {'instructions':>12} {'committed':>12} {'ratio':>7}")
    worse = []
    for step, count in found.items():
        before = committed["steps"].get(step)
        ratio = count / before if before else 1.0
        verdict = "worse" if ratio > 1 + NOISE else "better" if ratio < 1 - NOISE else ""
        worse += [step] if verdict == "worse" else []
        print(f"{step:<20} {count:>12,.0f} {before or count:>12,.0f} {ratio:>7.3f} {verdict:<7} {STEPS[step][1]}")
    if committed["compiler"] != compiler:
        print(
            f"the committed counts are of {committed['compiler']}, these of {compiler}: they may differ by that alone"
        )
    if arguments.write:
        COMMITTED.write_text(json.dumps({"compiler": compiler, "steps": found}, indent=1) + "\n")
        return 0
    if worse:
        print(f"worse by more than {NOISE:.0%}: {', '.join(worse)}; if it is meant, `--write` makes it the new count")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
