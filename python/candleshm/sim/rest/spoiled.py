"""Right responses made wrong: rows in no order, impossible rows, too many bytes, the wrong headers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from candleshm.sim.world.grid import DAY_MS, Grid

Rows = list[list[Any]]
Spoiling = Literal[
    "duplicated",
    "shuffled",
    "off_grid",
    "non_finite",
    "absurd",
    "jump",
    "future",
    "partial",
    "empty",
    "extra_column",
    "few",
    "slots",
]

_OFF_GRID_MS = 7
_FEW = 10


def _with_newest(rows: Rows, **columns: Any) -> Rows:
    """Return the rows, the newest one with other values in some columns."""
    names = ("open_ms", "open", "high", "low", "close", "volume")
    newest = [columns.get(name, value) for name, value in zip(names, rows[-1], strict=False)]
    return [*rows[:-1], [*newest, *rows[-1][len(names) :]]]


def _shuffled(rows: Rows) -> Rows:
    """Return the rows in an order that is neither ascending nor descending, and the same each time."""
    return rows[1::2] + rows[::2][::-1]


def _times_a_thousand(rows: Rows) -> Rows:
    return [[row[0], *(f"{float(price) * 1000:.8f}" for price in row[1:5]), *row[5:]] for row in rows]


_SPOILINGS: Mapping[str, Callable[[Rows], Rows]] = {
    "duplicated": lambda rows: [row for row in rows for _ in range(2)],
    "shuffled": _shuffled,
    "off_grid": lambda rows: [[row[0] + _OFF_GRID_MS, *row[1:]] for row in rows],
    "non_finite": lambda rows: _with_newest(rows, high="NaN", close="Infinity"),
    "absurd": lambda rows: _with_newest(rows, high=rows[-1][3], low=rows[-1][2] + "1", volume="-1"),
    "jump": _times_a_thousand,
    "future": lambda rows: [*rows, [rows[-1][0] + DAY_MS, *rows[-1][1:6], rows[-1][6] + DAY_MS, *rows[-1][7:]]],
    "partial": lambda rows: rows[: len(rows) // 2],
    "empty": lambda rows: [],
    "extra_column": lambda rows: [[*row, "0"] for row in rows],
    "few": lambda rows: rows[-_FEW:],
}


def spoil(body: bytes, spoiling: Spoiling, parameters: Mapping[str, str]) -> bytes:
    """Return a klines body, the response to a request with these parameters, with its rows spoiled.

    One without rows stays as it is.
    """
    rows = json.loads(body)
    if not isinstance(rows, list) or not rows:
        return body
    spoiled = _of_slots(rows, parameters) if spoiling == "slots" else _SPOILINGS[spoiling](rows)
    return json.dumps(spoiled, separators=(",", ":")).encode()


def _of_slots(rows: Rows, parameters: Mapping[str, str]) -> Rows:
    """Return what is left when `limit` counts the slots of the grid, whether or not there is a row."""
    grid = Grid.of(parameters["interval"], rows[0][0])
    newest_ms = grid.floor(int(parameters.get("endTime", rows[-1][0])))
    oldest_ms = grid.shift(newest_ms, 1 - int(parameters.get("limit", 500)))
    return [row for row in rows if row[0] >= oldest_ms]


def pad(body: bytes, size_bytes: int) -> bytes:
    """Return a body that means the same and has at least `size_bytes`."""
    return body + b" " * (size_bytes - len(body))
