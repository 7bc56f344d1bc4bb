"""The examples of docs/native.md are compiled, and run against a block; so is the one at the head of candleshm.hpp."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import candleshm
from candleshm import _core
from tests.support.apt import installed
from tests.support.native import compiled
from tests.test_panel import LENGTH, SYMBOLS, load

PAGE = (Path(__file__).parent.parent / "docs" / "native.md").read_text()
DEFAULT_NAME = "candleshm-spot-1m"


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=SYMBOLS)
    for symbol in SYMBOLS:
        load(writer, symbol, 0, 20)
    writer.heartbeat()
    yield writer
    writer.close()


def example(language: str, writer: _core.Writer) -> str:
    """Return the page's one example in a language, for a block of the test, and impatient."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert DEFAULT_NAME in code
    return str(code).replace(DEFAULT_NAME, writer.name).replace("10.0", "0.1")


def printed(program: Path) -> list[str]:
    result = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def test_the_example_in_c(writer: _core.Writer, tmp_path: Path) -> None:
    installed({"gcc": "gcc"})
    source = tmp_path / "example.c"
    source.write_text(example("c", writer))
    first, second = printed(compiled("gcc", source, tmp_path))
    assert first.startswith("live: opened at ")
    assert second == f"close 1020.000000, sum {sum(range(1004, 1020)):.6f}, nothing closed in ten seconds"


def test_the_example_in_cpp(writer: _core.Writer, tmp_path: Path) -> None:
    installed({"g++": "g++"})
    source = tmp_path / "example.cpp"
    source.write_text(example("cpp", writer))
    lines = printed(compiled("g++", source, tmp_path))
    assert lines == ["1020 1011.5", "BTCUSDT 1019", "ETHUSDT 2019", "NEWUSDT 3019", "1019 nothing closed"]


def test_the_example_in_go(writer: _core.Writer, tmp_path: Path) -> None:
    installed({"go": "golang-go", "gcc": "gcc", "pkg-config": "pkg-config"})
    source = tmp_path / "example.go"
    source.write_text(example("go", writer))
    folder = Path(candleshm.library()).parent
    environment = {
        **os.environ,
        "PKG_CONFIG_PATH": str(folder / "pkgconfig"),
        "CGO_LDFLAGS": f"-Wl,-rpath,{folder}",
        "CGO_LDFLAGS_ALLOW": "-Wl,-rpath,.*",
        "GOCACHE": str(tmp_path / "cache"),
        "GOFLAGS": "-mod=mod",
    }
    words = ["go", "build", "-o", str(tmp_path / "example"), str(source)]
    result = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert printed(tmp_path / "example") == ["1020", "interrupted"]


def test_the_example_of_the_header(writer: _core.Writer, tmp_path: Path) -> None:
    installed({"g++": "g++"})
    header = (Path(candleshm.include()) / "candleshm.hpp").read_text()
    code = "".join(f"{line}\n" for line in re.findall(r"^//   (.*)$", header, re.MULTILINE))
    source = tmp_path / "example.cpp"
    source.write_text(
        "#include <iostream>\n#include <numeric>\n"
        f'#include "candleshm.hpp"\nint main() {{ {code} std::cout << mean << std::endl; }}\n'.replace(
            DEFAULT_NAME, writer.name
        )
    )
    assert printed(compiled("g++", source, tmp_path)) == ["1011.5"]
