"""A small candlestick chart in characters: one column for each time slot, volume below, gaps marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from candleshm.columns import CLOSE, HIGH, LOW, OPEN, OPEN_TIME_MS, VOLUME
from candleshm.commands.table import decimal_column
from candleshm.row_state import RowState

__all__ = ["HEIGHT_MIN", "WIDTH_MIN", "Chart"]

WIDTH_MIN, HEIGHT_MIN = 10, 5
# A cell has an upper and a lower half; each is empty, wick or body. Rising bodies are thin, falling ones full.
RISING = {"  ": " ", " w": "╷", "w ": "╵", "ww": "│", " b": "╻", "b ": "╹", "bb": "┃", "wb": "╽", "bw": "╿"}
FALLING = {"  ": " ", " w": "╷", "w ": "╵", "ww": "│", " b": "▄", "b ": "▀", "bb": "█", "wb": "▄", "bw": "▀"}
BARS = " ▁▂▃▄▅▆▇█"
VOLUME_LINES = 2
MARKS = {RowState.HOLE: "·", RowState.MISSING: "?"}
PLAIN = str.maketrans("╷╵│╻╹┃╽╿▄▀█▁▂▃▅▆▇·", "|||:::||###..::##.")
UP, DOWN, FAINT, END = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True)
class Chart:
    """Rows and their states, oldest first, as a picture. Slots without a row are NaN but for their open time."""

    candles: npt.NDArray[np.float64]
    """Shape (n, 12)."""
    states: npt.NDArray[np.uint8]
    """Shape (n,)."""

    def lines(self, height: int, *, coloured: bool, plain: bool) -> list[str]:
        """Return `height` lines of prices, then volume and times; `plain` uses ASCII only."""
        present = np.isfinite(self.candles[:, CLOSE])
        if not present.any():
            return ["no candles yet"]
        low, high = float(np.nanmin(self.candles[:, LOW])), float(np.nanmax(self.candles[:, HIGH]))
        labels = _labels(low, high, height)
        columns = [self._column(index, low, high, height) for index in range(len(self.candles))]
        lines = [
            self._painted([column[line] for column in columns], coloured=coloured) + f"  {labels[line]}"
            for line in range(height)
        ]
        lines += [self._painted(list(bars), coloured=coloured) for bars in self._volume()]
        lines[-1] += "  volume"
        if marks := "".join(MARKS.get(RowState(state), " ") for state in self.states.tolist()).rstrip():
            lines.append(f"{marks}  · the exchange has none, ? missing")
        lines.append(self._times())
        return [line.translate(PLAIN).rstrip() for line in lines] if plain else [line.rstrip() for line in lines]

    def _column(self, index: int, low: float, high: float, height: int) -> str:
        """Return the characters of one candle, top down."""
        row = self.candles[index]
        if not math.isfinite(row[CLOSE]):
            return " " * height
        halves, span = height * 2, (high - low) or 1.0

        def place(price: float) -> int:
            return min(halves - 1, int((high - price) / span * halves))

        top, bottom = place(row[HIGH]), place(row[LOW])
        body_top, body_bottom = place(max(row[OPEN], row[CLOSE])), place(min(row[OPEN], row[CLOSE]))
        parts = "".join(
            "b" if body_top <= half <= body_bottom else "w" if top <= half <= bottom else " " for half in range(halves)
        )
        signs = FALLING if row[CLOSE] < row[OPEN] else RISING
        return "".join(signs[parts[half : half + 2]] for half in range(0, halves, 2))

    def _volume(self) -> list[str]:
        """Return the lines of the bars, top down."""
        volumes = np.nan_to_num(self.candles[:, VOLUME])
        steps = np.ceil(volumes / (volumes.max() or 1.0) * VOLUME_LINES * (len(BARS) - 1)).astype(int).tolist()
        full = len(BARS) - 1
        return [
            "".join(BARS[min(full, max(0, step - line * full))] for step in steps)
            for line in reversed(range(VOLUME_LINES))
        ]

    def _painted(self, cells: Sequence[str], *, coloured: bool) -> str:
        if not coloured:
            return "".join(cells)
        text, colour = [], ""
        for cell, row, state in zip(cells, self.candles, self.states.tolist(), strict=True):
            wanted = DOWN if row[CLOSE] < row[OPEN] else UP
            wanted = FAINT + wanted if state == RowState.LIVE else wanted
            if cell != " " and wanted != colour:
                text.append(f"{END}{wanted}")
                colour = wanted
            text.append(cell)
        return "".join(text) + END

    def _times(self) -> str:
        first, last = (_moment(self.candles[index, OPEN_TIME_MS]) for index in (0, -1))
        live = " (live)" if self.states[-1] == RowState.LIVE else ""
        room = len(self.candles) - len(first) - len(last)
        return f"{first}{' ' * max(1, room)}{last}{live}" if room > -len(last) else f"{first} to {last}{live}"


def _labels(low: float, high: float, height: int) -> list[str]:
    """Return a price for every third line, that of its middle."""
    step = (high - low) / height
    prices = [high - (line + 0.5) * step for line in range(height)]
    digits = max(0, min(8, 2 - math.floor(math.log10(step)))) if step > 0 else 8
    shown = decimal_column([round(price, digits) for price in prices])
    return [label if line % 3 == 0 else "" for line, label in enumerate(shown)]


def _moment(epoch_ms: float) -> str:
    return f"{datetime.fromtimestamp(epoch_ms / 1000, tz=UTC):%m-%d %H:%M}"
