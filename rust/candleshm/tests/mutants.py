"""Leave out one ordering of the protocol, or one check of a bound, after the other and demand that a test fails.

Each mutant is a small edit of the core: a fence dropped, a release store made relaxed, two steps swapped, a check left
out. It is applied to a copy of the crate, the tests that it should break run, and one of them must fail: for the
orderings a loom test with an assertion of its own, for the bounds any test in any way, a fault of the machine included.
A mutant that survives is an error unless its table says why nothing can show it, and one that the table calls redundant
must survive all tests named for it.

Usage: mutants.py TABLE [--jobs N] [--list] [WORD ...]; TABLE is `orderings` or `bounds`, words choose the mutants whose
names contain one of them.
"""

import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TABLES = Path(__file__).parent
REPOSITORY = Path(__file__).resolve().parents[3]
CRATE = Path("rust/candleshm")
TIMEOUT_SECONDS = 600
# An assertion of the tests, and of nothing else: not loom's own limits, not an index out of bounds in the core.
ASSERTION = re.compile(r"panicked at rust/candleshm/tests/loom/(\w+\.rs):\d+:\d+:\n([^\n]+)")
FAILED = re.compile(r"^    (\w+::\w+)$", re.MULTILINE)
# A panic anywhere, in a test or in the core, or a fault that ends the process.
FAILURE = re.compile(r"(panicked at [^\n]+:\n|process didn't exit successfully: )([^\n]+)")


@dataclass(frozen=True)
class Mutant:
    """One ordering or rule left out of one source file."""

    file: str
    name: str
    edits: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]
    """Orderings: names, or parts of names, of the loom tests to run. Bounds: files of tests, `lib` for the units."""
    redundant: str
    """Why none of them fails, or nothing."""

    def applied_to(self, original: str) -> str:
        """Return the file's text with the edits made. Raises ValueError where one does not occur exactly once."""
        mutated = original
        for old, new in self.edits:
            if mutated.count(old) != 1:
                raise ValueError(f"STALE: found {mutated.count(old)} times in {self.file}: {old!r}")
            mutated = mutated.replace(old, new)
        return mutated


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant."""

    mutant: Mutant
    as_expected: bool
    text: str
    seconds: float


def load_mutants(table: str) -> list[Mutant]:
    """Read a table."""
    return [
        Mutant(
            entry["file"],
            entry["name"],
            tuple((edit["old"], edit["new"]) for edit in entry["edits"]),
            tuple(entry["tests"]),
            entry.get("redundant", ""),
        )
        for entry in tomllib.loads((TABLES / f"{table}.toml").read_text())["mutant"]
    ]


def copy_workspace(target: Path) -> None:
    """Copy what cargo needs to build the crate's tests."""
    for name in ("Cargo.toml", "Cargo.lock"):
        shutil.copy(REPOSITORY / name, target / name)
    for name in ("rust", "benches", "docs"):
        shutil.copytree(REPOSITORY / name, target / name, ignore=shutil.ignore_patterns("target", "corpus"))


def loom_tests(workspace: Path, filters: Sequence[str]) -> tuple[int | None, str]:
    """Run the loom tests whose names contain one of the filters: (exit status or None at the time limit, output)."""
    environment = os.environ | {
        "RUSTFLAGS": "--cfg loom --allow warnings",
        "RUST_BACKTRACE": "0",
        "CARGO_TARGET_DIR": str(workspace / "target"),
        # Built once and run once: a quick build counts as much as a quick run.
        "CARGO_PROFILE_RELEASE_LTO": "off",
        "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "4",
        "CARGO_PROFILE_RELEASE_DEBUG": "false",
    }
    command = ["cargo", "test", "--release", "--quiet", "--package", "candleshm", "--test", "loom", "--jobs", "1"]
    return _run([*command, "--", "--test-threads", "1", *filters], workspace, environment)


def bounds_tests(workspace: Path, files: Sequence[str]) -> tuple[int | None, str]:
    """Run these files of tests, with overflow checks and debug assertions on."""
    environment = os.environ | {"RUST_BACKTRACE": "0", "CARGO_TARGET_DIR": str(workspace / "target")}
    chosen = [word for file in files for word in (["--lib"] if file == "lib" else ["--test", file])]
    command = ["cargo", "test", "--profile", "checked", "--quiet", "--package", "candleshm", "--jobs", "1", *chosen]
    return _run(command, workspace, environment)


def _run(command: list[str], workspace: Path, environment: dict[str, str]) -> tuple[int | None, str]:
    running = subprocess.Popen(
        command,
        cwd=workspace,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        output, _ = running.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        # cargo and the tests it started.
        os.killpg(running.pid, signal.SIGKILL)
        return None, running.communicate()[0]
    return running.returncode, output


def judge(table: str, mutant: Mutant, workspace: Path) -> Verdict:
    """Apply one mutant to a workspace, run its tests and take it back."""
    begun = time.monotonic()

    def verdict(text: str, *, as_expected: bool) -> Verdict:
        return Verdict(mutant, as_expected, text, time.monotonic() - begun)

    path = workspace / CRATE / "src" / mutant.file
    original = path.read_text()
    try:
        path.write_text(mutant.applied_to(original))
    except ValueError as stale:
        return verdict(str(stale), as_expected=False)
    try:
        run = bounds_tests if table == "bounds" else loom_tests
        status, output = run(workspace, mutant.tests)
    finally:
        path.write_text(original)
    if status == 0:
        if table != "bounds" and "running 0 tests" in output:
            return verdict(f"NO TEST is called {', '.join(mutant.tests)}", as_expected=False)
        if mutant.redundant:
            return verdict(f"redundant: {mutant.redundant}", as_expected=True)
        return verdict("SURVIVED", as_expected=False)
    if table == "bounds":
        assertion = FAILURE.search(output)
        failed = sorted(set(re.findall(r"^    (\w+(?:::\w+)*)$", output, re.MULTILINE))) or ["the machine"]
    else:
        assertion = ASSERTION.search(output)
        failed = sorted(set(FAILED.findall(output)))
    if status is None or assertion is None or "error[E" in output:
        return verdict("NOT JUDGED: " + ("time limit" if status is None else output[-600:]), as_expected=False)
    text = f"caught by {', '.join(failed)}: {assertion[2].strip()[:90]}"
    if mutant.redundant:
        return verdict(f"NOT REDUNDANT, {text}", as_expected=False)
    return verdict(text, as_expected=True)


def main() -> int:
    """Judge the chosen mutants, print a line for each and return the exit status."""
    arguments = argparse.ArgumentParser(description="Mutate the core and run the tests that must notice.")
    arguments.add_argument("table", choices=["orderings", "bounds"], help="which mutants")
    arguments.add_argument("words", nargs="*", help="only mutants whose names contain one of these")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time")
    arguments.add_argument("--list", action="store_true", help="print the table and end")
    options = arguments.parse_args()
    mutants = [
        m for m in load_mutants(options.table) if not options.words or any(word in m.name for word in options.words)
    ]
    if options.list:
        for mutant in mutants:
            print(f"{mutant.file:<11} {mutant.name:<62} {', '.join(mutant.tests)}")
        return 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="candleshm-mutants-") as scratch:
        free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for job in range(options.jobs):
            workspace = Path(scratch) / str(job)
            workspace.mkdir()
            copy_workspace(workspace)
            free.put(workspace)

        def run(mutant: Mutant) -> Verdict:
            workspace = free.get()
            try:
                return judge(options.table, mutant, workspace)
            finally:
                free.put(workspace)

        surprises = 0
        with ThreadPoolExecutor(options.jobs) as pool:
            for verdict in pool.map(run, mutants):
                surprises += not verdict.as_expected
                mark = "ok " if verdict.as_expected else "BAD"
                name = f"{verdict.mutant.file:<11} {verdict.mutant.name:<62}"
                print(f"{mark} {verdict.seconds:5.0f}s {name} {verdict.text}", flush=True)
    redundant = sum(bool(m.redundant) for m in mutants)
    print(f"{len(mutants)} mutants, {redundant} redundant, {surprises} surprises, {time.monotonic() - begun:.0f} s")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
