"""What libcandleshm reads from a block, as the JSON of `cases`: the keys that `candleshm.h` tells."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

import candleshm

__all__ = ["Series", "attached", "read", "series_of"]

HOLES_NAN, CLOSED_ONLY = 1, 16
OUTCOMES = {-1: "not_found", -2: "incompatible", -3: "corrupt"}
STATES = {2: "ready", 3: "superseded", 4: "closed"}
NUMBERS = ("generation", "length", "missing", "holes", "weight_used", "weight_limit", "banned_until_ms")
Rows = npt.NDArray[np.float64]


class _Health(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("size", "state", "ready", "loaded")),
        *(("market", ctypes.c_char * 8), ("interval", ctypes.c_char * 80), ("exchange", ctypes.c_char * 80)),
        ("price", ctypes.c_char * 8),
        *(
            (name, ctypes.c_uint64)
            for name in (
                *("generation", "length", "symbols", "symbol_capacity", "missing", "holes", "pid"),
                *("weight_used", "weight_limit", "failing", "polled", "stale"),
            )
        ),
        ("banned_until_ms", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("heartbeat_age_s", "oldest_age_s")),
    ]


class _Gap(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("start_ms", "end_ms")),
        *((name, ctypes.c_int32) for name in ("is_hole", "reserved")),
    ]


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(candleshm.library())
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    for name, arguments in {
        "cshm_attach": [ctypes.c_char_p, ctypes.c_double, pointer],
        "cshm_detach": [pointer],
        "cshm_get_health": [pointer, pointer],
        "cshm_symbol_count": [pointer],
        "cshm_symbol_name": [pointer, size, ctypes.c_char_p],
        "cshm_series_of": [pointer, ctypes.c_char_p, pointer],
        "cshm_series_free": [pointer],
        "cshm_last_close": [pointer, pointer],
        "cshm_live": [pointer, pointer, pointer],
        "cshm_age": [pointer, pointer],
        "cshm_revision": [pointer],
        "cshm_candles": [pointer, size, number, pointer, size, pointer],
        "cshm_gaps": [pointer, pointer, size],
        "cshm_view_open": [pointer, size, pointer],
        "cshm_view_column": [pointer, number],
        "cshm_view_complete": [pointer],
        "cshm_view_valid": [pointer],
        "cshm_view_close": [pointer],
    }.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int64
        if name in ("cshm_detach", "cshm_series_free", "cshm_view_close"):
            function.restype = None
        elif name == "cshm_view_column":
            function.restype = pointer
        elif name in ("cshm_attach", "cshm_live", "cshm_view_valid", "cshm_view_complete"):
            function.restype = number
    return library


class Series:
    """A symbol, read through the library."""

    def __init__(self, feed: ctypes.c_void_p, symbol: bytes, length: int) -> None:
        self._handle, self._length = ctypes.c_void_p(), length
        assert _library().cshm_series_of(feed, symbol, ctypes.byref(self._handle)) == 0
        self._columns = np.empty((12, length))
        self._states = np.empty(length, dtype=np.uint8)

    def free(self) -> None:
        _library().cshm_series_free(self._handle)

    def candles(self, n: int, *, closed_only: bool = False, states: bool = True) -> tuple[Rows, npt.NDArray[np.uint8]]:
        """Return rows (m, 12), NaN for empty slots, and their states if they are wanted: both until the next call."""
        count = _library().cshm_candles(
            self._handle,
            n,
            HOLES_NAN + CLOSED_ONLY * closed_only,
            self._columns.ctypes.data,
            self._length,
            self._states.ctypes.data if states else None,
        )
        assert count >= 0, count
        return self._columns[:, :count].T, self._states[:count]

    def view(self, n: int) -> tuple[Rows, bool, bool]:
        """Return a copy of a view's rows (m, 12), whether it was complete, and whether it was valid behind the copy."""
        handle = ctypes.c_void_p()
        count = _library().cshm_view_open(self._handle, n, ctypes.byref(handle))
        assert count >= 0, count
        rows = np.empty((count, 12))
        for column in range(12):
            values = ctypes.cast(_library().cshm_view_column(handle, column), ctypes.POINTER(ctypes.c_double))
            if count:
                rows[:, column] = np.ctypeslib.as_array(values, (count,))
        complete, valid = _library().cshm_view_complete(handle), _library().cshm_view_valid(handle)
        _library().cshm_view_close(handle)
        return rows, bool(complete), bool(valid)

    def newest(self) -> tuple[Rows, int]:
        """Return the newest row (12,) and its state."""
        row, state = np.empty(12), ctypes.c_int()
        assert _library().cshm_live(self._handle, row.ctypes.data, ctypes.byref(state)) == 0
        return row, state.value

    def number(self, name: str) -> float:
        value = ctypes.c_double()
        assert getattr(_library(), f"cshm_{name}")(self._handle, ctypes.byref(value)) == 0
        return value.value

    def revision(self) -> int:
        return int(_library().cshm_revision(self._handle))

    def gaps(self) -> list[list[int]]:
        found = (_Gap * self._length)()
        count = _library().cshm_gaps(self._handle, ctypes.byref(found), self._length)
        return [[gap.start_ms, gap.end_ms, gap.is_hole] for gap in found[:count]]


@contextmanager
def attached(name: str) -> Iterator[ctypes.c_void_p | int]:
    """Yield a feed of the library, or the number of the error."""
    feed = ctypes.c_void_p()
    error = _library().cshm_attach(name.encode(), 0.0, ctypes.byref(feed))
    if error:
        yield int(error)
        return
    try:
        yield feed
    finally:
        _library().cshm_detach(feed)


def read(name: str) -> dict[str, Any]:
    """Read the block of that name in every way there is."""
    with attached(name) as feed:
        if isinstance(feed, int):
            return {"open": OUTCOMES[feed]}
        health = _Health(size=ctypes.sizeof(_Health))
        assert _library().cshm_get_health(feed, ctypes.byref(health)) == 0
        return {
            "open": "ok",
            "state": STATES[health.state],
            **{name: health.__getattribute__(name).decode() for name in ("market", "price", "interval", "exchange")},
            **{name: health.__getattribute__(name) for name in NUMBERS},
            "ready": health.loaded,
            "collector": "in the future" if math.isinf(health.heartbeat_age_s) else "alive once",
            "series": [_reading(series, symbol, health.length) for symbol, series in series_of(feed, health.length)],
        }


def series_of(feed: ctypes.c_void_p, length: int) -> Iterator[tuple[str, Series]]:
    """Yield each symbol of a feed with its series, which ends with the next one."""
    for place in range(_library().cshm_symbol_count(feed)):
        name = ctypes.create_string_buffer(65)
        assert _library().cshm_symbol_name(feed, place, name) >= 0
        series = Series(feed, name.value, length)
        yield name.value.decode(), series
        series.free()


def _reading(series: Series, symbol: str, length: int) -> dict[str, Any]:
    newest, state = series.newest()
    rows, complete, valid = series.view(length)
    shown = [None if math.isnan(row[0]) else row.tolist() for row in rows] if valid else None
    return {
        "symbol": symbol,
        "last_close": series.number("last_close"),
        "age": "none" if math.isinf(series.number("age")) else "known",
        "revision": series.revision(),
        "newest": {"row": None if np.isnan(newest).all() else newest.tolist()}
        | ({"state": state} if state < 4 else {}),
        "candles": _slots(*series.candles(length)),
        "closed_only": _slots(*series.candles(length, closed_only=True)),
        "view": {"count": len(rows), "complete": complete, "valid": valid, "rows": shown},
        "gap_times_ms": series.gaps(),
    }


def _slots(rows: Rows, states: npt.NDArray[np.uint8]) -> dict[str, Any]:
    return {
        "open_times_ms": rows[:, 0].tolist(),
        "states": states.tolist(),
        "rows": [row.tolist() if state <= 3 else None for row, state in zip(rows, states, strict=True)],
    }
