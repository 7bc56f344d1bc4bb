"""Checks what is in dist/ before it goes out: `python -m release.check [--tag TAG]` prints a line for each check.

It ends with 1 when a check fails. With a tag, as in the workflow of a release, the tag, the changelog and the links of
the README must be those of a release as well.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

from build_backend.native_library import ROOT, version
from release.contents import faults_of_source, faults_of_wheel
from release.source import DIST
from release.versions import faults_of_changelog, faults_of_tag, faults_of_versions

__all__ = ["main"]

IMPORTS = """
import subprocess, sys
def cost(code):
    timed = f"from time import perf_counter; start = perf_counter(); {code}; print(perf_counter() - start)"
    words = [sys.executable, "-I", "-c", timed]
    return min(float(subprocess.run(words, capture_output=True, check=True, text=True).stdout) for _ in range(9))
print(cost("import candleshm"), cost("import numpy"))
"""


def import_times(wheel: Path) -> tuple[float, float]:
    """Return how many seconds `import candleshm` and `import numpy` take where the wheel is installed."""
    with tempfile.TemporaryDirectory() as name:
        venv.create(name, with_pip=False)
        python = str(Path(name) / "bin" / "python")
        uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--python", python, str(wheel)]
        subprocess.run(uv, check=True)
        said = subprocess.run([python, "-c", IMPORTS], capture_output=True, check=True, text=True).stdout
    ours, numpy = said.split()
    return float(ours), float(numpy)


def rendering(files: list[Path]) -> list[str]:
    """Return what twine finds wrong with the description that PyPI would show."""
    words = [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    return [result.stdout.strip()] if result.returncode else []


def fits(wheel: Path) -> bool:
    """Say whether a wheel is for this processor and libc; maturin looked at the others when it built them."""
    libc = "manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"
    return libc in wheel.name and wheel.stem.endswith(platform.machine())


def policy(wheel: Path) -> list[str]:
    """Return why a wheel does not keep what its name promises; auditwheel looks at every library in it."""
    words = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    said = " ".join(result.stdout.split())
    promised = [tag for tag in ("manylinux_2_17_", "musllinux_1_2_") if tag in wheel.name]
    kept = promised and f'tag: "{promised[0]}' in said
    return [] if kept else [f"{wheel.name}: {said or result.stderr.strip()}"]


def checks(tag: str | None) -> Iterator[tuple[str, list[str]]]:
    """Yield each check's name and its faults."""
    yield f"the version is {version()} everywhere", faults_of_versions()
    yield "CHANGELOG.md says what is new", faults_of_changelog((ROOT / "CHANGELOG.md").read_text(), version(), tag)
    if tag:
        yield f"the tag {tag} is the version's, and here", faults_of_tag(tag)
    sources = [DIST / f"candleshm-{version()}.tar.gz"]
    wheels = sorted(DIST.glob(f"candleshm-{version()}-*.whl"))
    missing = [f"{path} is not there: run `make sdist`" for path in sources if not path.exists()]
    missing += [] if wheels else [f"{DIST} has no wheel of {version()}: run `make wheel`"]
    yield "source distribution and wheels are there", missing
    if missing:
        return
    for path in sources:
        yield f"{path.name}, {path.stat().st_size / 1e6:.1f} MB", faults_of_source(path, released=tag is not None)
    for wheel in wheels:
        yield f"{wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB", faults_of_wheel(wheel)
        if fits(wheel):
            yield f"{wheel.name}: its platform", policy(wheel)
    yield "PyPI can show the description", rendering([*sources, *wheels])


def main() -> None:
    """Print every check with its result."""
    parser = argparse.ArgumentParser(description="Check what is in dist/ before it goes out.")
    parser.add_argument("--tag", help="the tag of the release, such as v0.1.0")
    tag = parser.parse_args().tag
    failed = 0
    for name, faults in checks(tag):
        print(f"{'FAILED' if faults else 'ok    '} {name}", flush=True)
        for fault in faults:
            print(f"         {fault}")
        failed += bool(faults)
    for wheel in filter(fits, DIST.glob(f"candleshm-{version()}-*.whl")):
        ours, numpy = import_times(wheel)
        print(f"       import candleshm: {ours * 1e3:.0f} ms, {ours / numpy:.2f} times import numpy")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
