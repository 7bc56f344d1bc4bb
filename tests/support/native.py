"""Programs in C and C++ that are compiled against the package, and told what to read over a pipe."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

import candleshm

__all__ = ["PROGRAMS", "WARNINGS", "Reader", "compiled", "doubles"]

PROGRAMS = Path(__file__).parent.parent / "native"
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
STANDARDS = {".c": ["-std=c11", "-D_GNU_SOURCE"], ".cpp": ["-std=c++17"]}


def compiled(compiler: str, source: Path, folder: Path, *options: str) -> Path:
    """Return the program that a compiler makes of a source and the package's library. Fails on any warning."""
    program = folder / f"{source.stem}-{compiler}"
    library = candleshm.library()
    words = [compiler, *STANDARDS[source.suffix], *WARNINGS, "-O2", *options, f"-I{candleshm.include()}", str(source)]
    words += [library, f"-Wl,-rpath,{Path(library).parent}", "-pthread", "-o", str(program)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return program


def doubles(words: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the numbers whose bits are these words."""
    return np.array([int(word, 16) for word in words], dtype=np.uint64).view(np.float64)


class Reader:
    """A running program that reads as it is told."""

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=120)
        finally:
            self._process.kill()
            self._process.wait()
        if kind is None:
            assert self._process.returncode == 0

    def begin(self, *words: object) -> None:
        """Tell it to make a call."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def result(self) -> list[str]:
        """Return the words of the call that was begun."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the program ended: {self._process.wait()}"
        return line.split()

    def __call__(self, *words: object) -> list[str]:
        """Make a call, and return what it returned and filled. Raises AssertionError when it failed."""
        result = self.tried(*words)
        assert int(result[0]) >= 0, result
        return result

    def tried(self, *words: object) -> list[str]:
        """Make a call that may fail, and return its words."""
        self.begin(*words)
        return self.result()

    def error(self, *words: object) -> tuple[str, str]:
        """Make a call that fails, and return the name and the message of the error."""
        code, name, *message = self.tried(*words)
        assert int(code) < 0
        return name, " ".join(message)
