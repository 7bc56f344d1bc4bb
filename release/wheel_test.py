"""Tests a wheel in every CPython that is here: `python -m release.wheel_test [--all] TESTS`.

Each gets a clean environment, in which pip installs the wheel from dist/ with no compiler and no cargo to be found.
The tests that follow are those of what users of a wheel rely on; they import what was installed, not this tree.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from build_backend.native_library import ROOT, version
from release.source import DIST

__all__ = ["VERSIONS", "interpreters", "main"]

VERSIONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]
"""Every CPython that the stable ABI of the wheel is loaded by; those that are not here are named."""
WHAT = """
import sys, sysconfig
print(*sys.version_info[:2], "no" if sysconfig.get_config_var("Py_GIL_DISABLED") else "GIL", sys.executable)
"""
EXTRAS = "web,metrics,pandas,polars,arrow"


def interpreters() -> dict[str, str]:
    """Return the path of a CPython with a GIL for each version, of those on PATH and those of pyenv."""
    found: dict[str, str] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for number in VERSIONS:
        names = [shutil.which(f"python{number}"), *sorted(map(str, pyenv.glob(f"{number}.*/bin/python{number}")))]
        for name in filter(None, [*names, sys.executable]):
            said = subprocess.run([name, "-c", WHAT], capture_output=True, text=True, check=False).stdout.split()
            if said[:3] == [*number.split("."), "GIL"]:
                found[number] = said[3]
                break
    return found


def wheel_of_this_machine() -> Path:
    """Return the wheel in dist/ that fits this processor and libc."""
    libc = "manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"
    wheels = sorted(DIST.glob(f"candleshm-{version()}-cp311-abi3-{libc}*_{platform.machine()}*.whl"))
    if not wheels:
        sys.exit(f"no wheel of {version()} for {libc} on {platform.machine()} in {DIST}: run `make wheel` first")
    return wheels[0]


def _run(words: list[str], what: str, **environment: str) -> None:
    result = subprocess.run(
        words,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode:
        sys.exit(f"{what} failed, `{' '.join(words)}` said:\n{result.stdout}{result.stderr}")


def test(python: str, wheel: Path, tests: list[str], processes: str) -> None:
    """Install the wheel into a clean environment of an interpreter, without a compiler, and run tests there."""
    with tempfile.TemporaryDirectory(prefix="candleshm-wheel-test-") as name:
        os.chmod(name, 0o755)  # Some tests drop privileges, and import afterwards.
        venv = Path(name) / "venv"
        inside = str(venv / "bin" / "python")
        _run([python, "-m", "venv", str(venv)], "making an environment")
        bare = {"PATH": str(venv / "bin"), "PYTHONPATH": ""}
        wanted = f"candleshm[{EXTRAS}] @ {wheel.as_uri()}"
        _run([inside, "-m", "pip", "install", "--quiet", wanted], f"installing {wheel.name}", **bare)
        code = f"import candleshm; assert candleshm.__file__.startswith({str(venv)!r}), candleshm.__file__"
        _run([inside, "-c", code], "importing candleshm", **bare)
        uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--python", inside]
        _run([*uv, "--group", "test"], "installing the tests' packages")
        path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
        words = [
            inside,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--numprocesses",
            processes,
            "--dist",
            "worksteal",
        ]
        result = subprocess.run([*words, *tests], cwd=ROOT, env=os.environ | {"PATH": path}, check=False)
        if result.returncode:
            sys.exit(f"tests of {wheel.name} failed with {python}")


def main() -> None:
    """Test the wheel of this machine."""
    parser = argparse.ArgumentParser(description="Test the wheel in dist/ in every CPython that is here.")
    parser.add_argument("--all", action="store_true", help="fail when a version of Python is not here")
    parser.add_argument("--processes", default="6", help="tests at a time")
    parser.add_argument("tests", nargs="+", help="files of tests")
    arguments = parser.parse_args()
    wheel = wheel_of_this_machine()
    found = interpreters()
    for number, python in found.items():
        print(f"CPython {number}: {python}, {wheel.name}", flush=True)
        test(python, wheel, arguments.tests, arguments.processes)
    absent = [number for number in VERSIONS if number not in found]
    if absent:
        print(f"not found, so not tested: CPython {', '.join(absent)}")
    if not found or (arguments.all and absent):
        sys.exit(1)


if __name__ == "__main__":
    main()
