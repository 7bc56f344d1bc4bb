"""What has to be in a wheel and a source distribution, and what must not."""

from __future__ import annotations

import re
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["faults_of_source", "faults_of_wheel"]

WHEEL_BYTES = 6_000_000
SOURCE_BYTES = 3_000_000
NEEDED_OF_WHEEL = {
    "candleshm/py.typed": "the mark that types are there",
    "candleshm/_core.pyi": "the types of the compiled module",
    "candleshm/_core*.so": "the compiled module",
    "candleshm/native/include/candleshm.h": "the header for C",
    "candleshm/native/include/candleshm.hpp": "the header for C++",
    "candleshm/native/lib/libcandleshm.so.1": "the library for C",
    "candleshm/native/lib/libcandleshm.so": "the name that linkers look for",
    "candleshm/native/lib/pkgconfig/candleshm.pc": "what pkg-config reads",
    "candleshm/native/lib/cmake/candleshm/candleshm-config.cmake": "what CMake reads",
    "candleshm/gateway/static/index.html": "the page",
    "candleshm/gateway/static/vendor/LICENSE": "the licence of the page's charts",
    "candleshm/gateway/static/vendor/NOTICE": "the notice of the page's charts",
    "candleshm-*.dist-info/licenses/LICENSE": "the licence",
    "candleshm-*.dist-info/licenses/THIRD-PARTY-LICENCES": "the licences of the compiled-in crates",
    "candleshm-*.dist-info/sboms/*.json": "the bill of materials",
    "candleshm_command/entry.py": "the beginning of the command",
    "candleshm-*.dist-info/entry_points.txt": "the command",
}
NEEDED_OF_SOURCE = {
    "PKG-INFO": "the metadata",
    "pyproject.toml": "what pip reads",
    "Cargo.lock": "the versions of the crates",
    "LICENSE": "the licence",
    "THIRD-PARTY-LICENCES": "the licences of the compiled-in crates",
    "build_backend/backend.py": "the build backend",
    "build_backend/native_library.py": "the build of libcandleshm",
    "rust/candleshm-c/include/candleshm.h": "the header for C",
    "python/candleshm/__init__.py": "the package",
    "python/candleshm_command/entry.py": "the beginning of the command",
}
FOREIGN_TO_WHEEL = ("*test*", "*/data/*", "*.rs", "*.toml", "*.pyc", "*.md", "*.ipynb", "*.parquet", "*.csv", "*.a")
FOREIGN_TO_SOURCE = (
    "*.so",
    "*.so.*",
    "*.pyc",
    "*.whl",
    "target/*",
    ".venv*",
    "python/candleshm/native/lib/*",
    "tests/*",
)
BUILDERS = re.compile(rb"/(?:home|root|Users)/[\w.-]*/?\.(?:cargo|rustup)/")


def _lists(names: list[str], needed: dict[str, str], foreign: tuple[str, ...], allowed: tuple[str, ...]) -> list[str]:
    faults = [
        f"{pattern} is missing: {what}"
        for pattern, what in needed.items()
        if not any(fnmatch(name, pattern) for name in names)
    ]
    for name in names:
        pattern = next((pattern for pattern in foreign if fnmatch(name, pattern)), None)
        if pattern and not any(fnmatch(name, each) for each in allowed):
            faults.append(f"{name} does not belong there (`{pattern}`)")
    return faults


def faults_of_wheel(path: Path) -> list[str]:
    """Return what is missing in a wheel, what should not be there, and whether it is too large."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        faults = _lists(names, NEEDED_OF_WHEEL, FOREIGN_TO_WHEEL, ("candleshm/gateway/static/vendor/README.md",))
        for name in names:
            if ".so" in name and (found := BUILDERS.search(wheel.read(name))):
                faults.append(f"{name} names a folder of the machine that built it: {found[0].decode()}")
    if "-abi3-" not in path.name:
        faults.append("it is not for the stable ABI: one wheel is to serve every CPython from 3.11 on")
    if path.stat().st_size > WHEEL_BYTES:
        faults.append(f"it has {path.stat().st_size} bytes, more than {WHEEL_BYTES}: was it stripped?")
    return faults


def faults_of_source(path: Path, *, released: bool) -> list[str]:
    """Return what is missing in a source distribution, and what should not be there.

    A released one has a README without links that lead nowhere on PyPI.
    """
    with tarfile.open(path) as source:
        top = path.name.removesuffix(".tar.gz")
        names = [member.name.removeprefix(f"{top}/") for member in source.getmembers() if member.isfile()]
        faults = _lists(names, NEEDED_OF_SOURCE, FOREIGN_TO_SOURCE, ())
        file = source.extractfile(f"{top}/PKG-INFO") if "PKG-INFO" in names else None
        text = file.read().decode() if file else ""
    relative = re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text)
    if released and relative:
        what = f"{len(relative)} links of the README lead nowhere on PyPI, such as {relative[0]}"
        faults.append(f"{what}: `make sdist REPOSITORY=https://HOST/OWNER/NAME`")
    if path.stat().st_size > SOURCE_BYTES:
        faults.append(f"it has {path.stat().st_size} bytes, more than {SOURCE_BYTES}")
    return faults
