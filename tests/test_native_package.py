"""libcandleshm as compilers find it: header and exports, pkg-config, CMake, `make install-c`, and what checkers say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import candleshm
from candleshm import _core, columns
from tests.support.apt import installed
from tests.support.native import PROGRAMS, WARNINGS, Reader, compiled
from tests.test_panel import LENGTH, SYMBOLS, load, open_ms

ROOT = Path(__file__).parent.parent
HEADERS = Path(candleshm.include())
LIBRARY = Path(candleshm.library())
HEADER = (HEADERS / "candleshm.h").read_text()
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
# Every call, with a view that is overwritten in between.
SCRIPT = ["names", "health", "symbols", "series BTCUSDT", "last_close", "live", "age", "last_open_ms", "revision"]
SCRIPT += ["candles 16 1 20 1", "candles 16 0 16 0", "column 4 16 0", "gaps 4", "view 10", "view_columns"]
SCRIPT += ["view_valid", "view_check", "view_close", "view 4", "wait_open 0 0.01", "wait_closed 0 1 0.01"]
SCRIPT += ["interrupted_wait 0.05", "last 4 3", "panel 4 9 0 3", "panel 4 40 1 3", "nulls", "arguments", "threads 50"]
SCRIPT += ["error_name -6", "api", "series NOPE", "series ETHUSDT", "detach", "last_close"]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_wheel_that_pip_builds_from_the_sdist_holds_it(tmp_path: Path) -> None:
    maturin = [sys.executable, "-m", "maturin", "sdist", "--out", str(tmp_path)]
    run(*maturin, cwd=ROOT)
    (archive,) = tmp_path.glob("*.tar.gz")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CARGO_TARGET_DIR": str(ROOT / "target")}
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    run(*pip, archive, cwd=tmp_path, env=environment)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    folder = "candleshm/native"
    assert {name.removeprefix(f"{folder}/") for name in names if name.startswith(folder)} == {
        "__init__.py",
        "files.py",
        "include/candleshm.h",
        "include/candleshm.hpp",
        "lib/libcandleshm.so",
        "lib/libcandleshm.so.1",
        "lib/pkgconfig/candleshm.pc",
        "lib/cmake/candleshm/candleshm-config.cmake",
        "lib/cmake/candleshm/candleshm-config-version.cmake",
    }


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=SYMBOLS)
    load(writer, "BTCUSDT", 0, 20, leave_out=(12, 13))
    load(writer, "ETHUSDT", 0, 20)
    yield writer
    writer.close()


def run(*words: str | Path, **keywords: object) -> str:
    result = subprocess.run(words, capture_output=True, text=True, check=False, **keywords)  # type: ignore[call-overload]
    assert result.returncode == 0, result.stdout + result.stderr
    return str(result.stdout)


def declared() -> set[str]:
    code = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)
    return set(re.findall(r"\b(cshm_\w+)\(", code))


def exported(library: Path) -> set[str]:
    installed({"nm": "binutils"})
    lines = run("nm", "--dynamic", "--defined-only", library).splitlines()
    return {line.split()[-1] for line in lines}


def test_the_library_exports_what_the_header_declares_and_nothing_else() -> None:
    assert len(declared()) > 25
    assert exported(LIBRARY) == declared()


def test_the_header_of_the_package_is_that_of_the_tree() -> None:
    for header in (ROOT / "rust" / "candleshm-c" / "include").iterdir():
        assert (HEADERS / header.name).read_text() == header.read_text(), "run `make build`"


def test_the_numbers_of_the_header_are_those_of_python() -> None:
    numbers = dict(re.findall(r"\b(CSHM_\w+) = (-?\d+)", HEADER))
    states = {"EMPTY": 0, "LIVE": 1, "FINAL": 2, "VERIFIED": 3, "HOLE": 4, "MISSING": 5}
    assert {name: int(numbers[f"CSHM_{name}"]) for name in states} == states
    same = {"FINAL": "CLOSED"}
    assert {same.get(name, name): state for name, state in states.items()} == dict(candleshm.RowState.__members__)
    listed = re.search(r"enum \{\s*CSHM_OPEN_TIME_MS,(.*?)\}", HEADER, re.DOTALL)
    assert listed is not None
    names = ["OPEN_TIME_MS", *re.findall(r"CSHM_(\w+)", listed[1])]
    assert [getattr(columns, name) for name in names] == list(range(12))


def test_the_soname_and_the_api_have_the_same_number() -> None:
    installed({"readelf": "binutils"})
    dynamic = run("readelf", "--dynamic", "--wide", LIBRARY)
    (soname,) = re.findall(r"\(SONAME\).*\[(.*)\]", dynamic)
    assert soname == LIBRARY.name
    assert f"#define CSHM_API {soname.rpartition('.')[2]} " in HEADER
    needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\.so", dynamic))
    assert not {name for name in needed if "python" in name}


@pytest.mark.parametrize("compiler", ["gcc", "clang", "g++", "clang++"])
def test_the_headers_are_clean_in_every_standard(compiler: str, tmp_path: Path) -> None:
    installed({"gcc": "gcc", "g++": "g++", "clang": "clang", "clang++": "clang"})
    is_cpp = compiler.endswith("++")
    source = tmp_path / ("headers.cpp" if is_cpp else "headers.c")
    header = "candleshm.hpp" if is_cpp else "candleshm.h"
    source.write_text(f'#include "{header}"\n#include "{header}"\nint main(void) {{ return cshm_api() - CSHM_API; }}\n')
    strict = [*WARNINGS, "-Wconversion", "-Wshadow", "-Wundef", f"-I{HEADERS}", "-fsyntax-only"]
    for standard in ("c++17", "c++20") if is_cpp else ("c99", "c11", "c17"):
        run(compiler, f"-std={standard}", *strict, source)
    if is_cpp:
        source.write_text('#include "candleshm.h"\nint main() { return cshm_api() - CSHM_API; }\n')
        run(compiler, "-std=c++11", *strict, source)


def test_pkg_config_finds_it(tmp_path: Path) -> None:
    installed({"gcc": "gcc", "pkg-config": "pkg-config"})
    environment = {**os.environ, "PKG_CONFIG_PATH": str(LIBRARY.parent / "pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "candleshm", env=environment).split()
    assert run("pkg-config", "--modversion", "candleshm", env=environment).strip() == VERSION
    source = tmp_path / "api.c"
    source.write_text('#include "candleshm.h"\nint main(void) { return cshm_api() - CSHM_API; }\n')
    run("gcc", source, *flags, f"-Wl,-rpath,{LIBRARY.parent}", "-o", tmp_path / "api")
    run(tmp_path / "api")


def cmake(prefix: Path, folder: Path) -> Path:
    """Build a program in C++ with CMake against what is installed under a prefix."""
    installed({"cmake": "cmake", "g++": "g++", "make": "make"})
    folder.mkdir()
    shutil.copy(PROGRAMS / "reader.cpp", folder)
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\n"
        "project(reader CXX)\n"
        "set(CMAKE_CXX_STANDARD 17)\n"
        "find_package(Threads REQUIRED)\n"
        f"find_package(candleshm {VERSION} CONFIG REQUIRED)\n"
        "add_executable(reader reader.cpp)\n"
        "target_link_libraries(reader candleshm::candleshm Threads::Threads)\n"
    )
    run("cmake", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", folder / "build")
    return folder / "build" / "reader"


def test_cmake_finds_it(writer: _core.Writer, tmp_path: Path) -> None:
    with Reader(cmake(LIBRARY.parent.parent, tmp_path / "reader")) as reader:
        assert reader("attach", writer.name, 0) == ["0"]


def test_make_installs_it_under_a_prefix(writer: _core.Writer, tmp_path: Path) -> None:
    installed({"gcc": "gcc"})
    prefix = tmp_path / "prefix"
    run("make", "--no-print-directory", "install-c", f"PREFIX={prefix}", f"PYTHON={sys.executable}", cwd=ROOT)
    assert (prefix / "lib" / "libcandleshm.so").readlink() == Path(LIBRARY.name)
    assert exported(prefix / "lib" / LIBRARY.name) == declared()
    with Reader(cmake(prefix, tmp_path / "reader")) as reader:
        assert reader("attach", writer.name, 0) == ["0"]
    # The static library, with what pkg-config says that it needs.
    environment = {**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    beside = run("pkg-config", "--static", "--libs-only-l", "candleshm", env=environment).split()[1:]
    static = tmp_path / "static"
    options = [f"-I{prefix / 'include'}", "-D_GNU_SOURCE", "-std=c11", "-pthread"]
    run("gcc", *options, PROGRAMS / "reader.c", prefix / "lib" / "libcandleshm.a", *beside, "-o", static)
    with Reader(static) as reader:
        assert reader("attach", writer.name, 0) == ["0"]
        assert reader("symbols") == ["3", *SYMBOLS]


def play(writer: _core.Writer, reader: Reader) -> None:
    """Make every call once or more, most of them with answers."""
    assert reader("attach", writer.name, 0) == ["0"]
    for words in SCRIPT:
        reader.tried(words)
        if words == "view 4":
            load(writer, "BTCUSDT", 21, 120)
            assert reader.tried("view_valid") == ["0"]
    assert reader.tried("attach", "no-such-block", 0)[1] == "CSHM_NOT_FOUND"


def test_sanitizers_find_nothing(writer: _core.Writer, tmp_path: Path) -> None:
    installed({"gcc": "gcc"})
    options = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    program = compiled("gcc", PROGRAMS / "reader.c", tmp_path, *options)
    with Reader(program) as reader:
        play(writer, reader)


def test_valgrind_finds_nothing(writer: _core.Writer, tmp_path: Path) -> None:
    installed({"gcc": "gcc", "valgrind": "valgrind"})
    program = compiled("gcc", PROGRAMS / "reader.c", tmp_path, "-g")
    options = ["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect"]
    with Reader("valgrind", *options, program) as reader:
        play(writer, reader)


def test_a_loader_of_other_languages_reads_a_value(writer: _core.Writer) -> None:
    """As Julia, Node or Ruby do it: by the path of the library, without a header."""
    code = (
        "import ctypes, sys\n"
        "library = ctypes.CDLL(sys.argv[1])\n"
        "feed, series, close = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_double()\n"
        "assert library.cshm_attach(sys.argv[2].encode(), ctypes.c_double(0), ctypes.byref(feed)) == 0\n"
        "assert library.cshm_series_of(feed, b'BTCUSDT', ctypes.byref(series)) == 0\n"
        "assert library.cshm_last_close(series, ctypes.byref(close)) == 0\n"
        "print(close.value)\n"
    )
    assert run(sys.executable, "-c", code, LIBRARY, writer.name) == f"{1000 + 20}.0\n"
    assert candleshm.attach(writer.name)["BTCUSDT"].last_open_time_ms == open_ms(20)
