"""Reads by libcandleshm from a program in C, which is compiled here and called for many reads at a time."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from material import WINDOW, FloatArray, symbol_name

import candleshm
from candleshm.columns import CLOSE


class _Told(ctypes.Structure):
    _fields_ = [
        ("series", ctypes.POINTER(ctypes.c_void_p)),
        ("symbols", ctypes.c_uint32),
        ("chance", ctypes.c_uint32),
        ("last", ctypes.c_uint32),
    ]


class Native:
    """All symbols of a block, attached from C."""

    def __init__(self, name: str, symbols: int) -> None:
        self._ours = ctypes.CDLL(candleshm.library())
        self._ours.cshm_view_column.restype = ctypes.POINTER(ctypes.c_double)
        with tempfile.TemporaryDirectory() as folder:
            self._program = ctypes.CDLL(str(_compiled(Path(folder))))
        self._program.view_and_live.restype = ctypes.c_void_p
        self._feed = ctypes.c_void_p()
        self._done(self._ours.cshm_attach(name.encode(), ctypes.c_double(0), ctypes.byref(self._feed)))
        series, self._views = (ctypes.c_void_p * symbols)(), (ctypes.c_void_p * symbols)()
        for symbol in range(symbols):
            place = ctypes.byref(series, symbol * 8)
            self._done(self._ours.cshm_series_of(self._feed, symbol_name(symbol).encode(), place))
            place, one = ctypes.byref(self._views, symbol * 8), ctypes.c_void_p(series[symbol])
            self._done(self._ours.cshm_view_open(one, ctypes.c_size_t(WINDOW), place))
        self._series = series
        self._told = _Told(ctypes.cast(series, ctypes.POINTER(ctypes.c_void_p)), symbols, 1, 0)
        self._row, self._columns = np.empty(12), np.empty((WINDOW, 12), order="F")

    def _done(self, answer: int) -> None:
        if answer < 0:
            self._ours.cshm_last_message.restype = ctypes.c_char_p
            raise RuntimeError(self._ours.cshm_last_message().decode())

    def _call(self, function: Any, count: int, target: FloatArray, *more: Any) -> Any:
        return function(ctypes.byref(self._told), ctypes.c_size_t(count), ctypes.c_void_p(target.ctypes.data), *more)

    def draw_only(self, count: int) -> None:
        """What is taken off: the loop, and drawing a symbol."""
        self._call(self._program.draw_only, count, self._row)

    def last_close(self, count: int) -> tuple[int, float]:
        """Return the symbol that was read last, and its close."""
        self._call(self._program.last_close, count, self._row)
        return self._told.last, float(self._row[0])

    def live(self, count: int) -> tuple[int, FloatArray]:
        """Return the symbol that was read last, and its newest row."""
        self._call(self._program.live, count, self._row)
        return self._told.last, self._row

    def view_and_live(self, count: int) -> tuple[int, int, FloatArray]:
        """Return the symbol that was read last, its view, which `column_of` closes, and its newest row."""
        view = self._call(self._program.view_and_live, count, self._row)
        return self._told.last, view, self._row

    def column_of(self, view: int) -> FloatArray | None:
        """Return a copy of the closes of a view and close it; None when it was overwritten."""
        handle = ctypes.c_void_p(view)
        column = np.ctypeslib.as_array(self._ours.cshm_view_column(handle, CLOSE), (WINDOW,)).copy()
        valid = self._ours.cshm_view_valid(handle)
        self._ours.cshm_view_close(handle)
        return column if valid else None

    def candles(self, count: int) -> tuple[int, FloatArray]:
        """Return the symbol that was copied last, and the copy."""
        self._call(self._program.candles, count, self._columns)
        return self._told.last, self._columns

    def copies(self, count: int) -> tuple[int, FloatArray]:
        """As `candles`, by memcpy without a look at the tags."""
        self._call(self._program.copies, count, self._columns, self._views)
        return self._told.last, self._columns


def _compiled(folder: Path) -> Path:
    program, source = folder / "native.so", Path(__file__).with_name("native.c")
    words = ["gcc", "-O2", "-shared", "-fPIC", f"-I{candleshm.include()}", str(source), candleshm.library()]
    subprocess.run([*words, f"-Wl,-rpath,{Path(candleshm.library()).parent}", "-o", str(program)], check=True)
    return program
