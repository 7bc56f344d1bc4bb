"""Where the library for C and C++ lies: its headers, and the shared library."""

from __future__ import annotations

from pathlib import Path

__all__ = ["include", "library"]

FOLDER = Path(__file__).parent


def include() -> str:
    """Return the folder of `candleshm.h` and `candleshm.hpp`, for `-I`.

    >>> candleshm.include()  # doctest: +SKIP
    '/home/ann/.venv/lib/python3.13/site-packages/candleshm/native/include'
    """
    return str(FOLDER / "include")


def library() -> str:
    """Return the path of the shared library, to link with or to load; pkg-config's and CMake's files lie beside it.

    >>> candleshm.library()  # doctest: +SKIP
    '/home/ann/.venv/lib/python3.13/site-packages/candleshm/native/lib/libcandleshm.so.1'
    """
    return str(FOLDER / "lib" / "libcandleshm.so.1")
