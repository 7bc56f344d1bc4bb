"""The command `read`: the newest rows of a series as a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from candleshm.columns import CLOSE, HIGH, LOW, NAMES, OPEN, OPEN_TIME_MS, TRADES, VOLUME, WHOLE
from candleshm.commands.chart import HEIGHT_MIN, WIDTH_MIN, Chart
from candleshm.commands.table import aligned, decimal_column
from candleshm.reader.feed import Feed
from candleshm.reader.figures import kind_of
from candleshm.row_state import RowState

__all__ = ["Rows", "chart_columns", "read_rows", "shown_chart"]

TABLE_ROWS = 20
# Beside the candles stand prices, below them volume, gaps and times.
CHART_LABEL_COLUMNS, CHART_OTHER_LINES, CHART_LINES_MAX = 14, 7, 24


@dataclass(frozen=True)
class Rows:
    """Rows of one series, oldest first, and what the table says above them."""

    title: str
    candles: npt.NDArray[np.float64]
    """Shape (n, 12)."""
    states: npt.NDArray[np.uint8]
    """Shape (n,)."""

    def as_table(self) -> str:
        """Return time, prices, volume, trades and state in aligned columns."""
        times = self.candles[:, OPEN_TIME_MS]
        precision = "milliseconds" if np.any(times % 1000) else "seconds"
        columns = [
            [datetime.fromtimestamp(ms / 1000, tz=UTC).replace(tzinfo=None).isoformat(" ", precision) for ms in times],
            *(decimal_column(self.candles[:, column].tolist()) for column in (OPEN, HIGH, LOW, CLOSE, VOLUME)),
            [f"{trades:.0f}" for trades in self.candles[:, TRADES]],
            [RowState(state).word for state in self.states.tolist()],
        ]
        heads = ("TIME (UTC)", "OPEN", "HIGH", "LOW", "CLOSE", "VOLUME", "TRADES", "STATE")
        return f"{self.title}\n{aligned(heads, list(zip(*columns, strict=True)), left=('TIME (UTC)', 'STATE'))}"

    def as_json(self) -> str:
        """Return a list of objects: the twelve columns by name, and `state` as a word."""
        lines = (json.dumps(dict(zip((*NAMES, "state"), row, strict=True))) for row in self._values())
        return "[" + ",\n ".join(lines) + "]\n"

    def as_csv(self) -> str:
        """Return lines with a header: the twelve columns and the state."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*NAMES, "state"))
        writer.writerows(self._values())
        return text.getvalue()

    def _values(self) -> list[list[float | int | str]]:
        return [
            [*(int(value) if column in WHOLE else value for column, value in enumerate(row)), RowState(state).word]
            for row, state in zip(self.candles.tolist(), self.states.tolist(), strict=True)
        ]


def read_rows(feed: Feed, symbol: str, n: int | None) -> Rows:
    """Return the newest `n` time slots of `symbol` that have a row; None: all. Raises UnknownSymbol, StaleData."""
    candles, states = feed[symbol].snapshot(n)
    return Rows(_title(feed, symbol), candles, states)


def chart_columns() -> int:
    """Return how many candles a chart has room for."""
    return max(WIDTH_MIN, shutil.get_terminal_size().columns - CHART_LABEL_COLUMNS)


def shown_chart(feed: Feed, symbol: str, n: int) -> str:
    """Return the newest `n` time slots as a candlestick chart that fits the terminal. Raises as `read_rows`."""
    candles, states = feed[symbol].snapshot(n, holes="nan")
    height = min(CHART_LINES_MAX, max(HEIGHT_MIN, shutil.get_terminal_size().lines - CHART_OTHER_LINES))
    coloured = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    lines = Chart(candles, states).lines(height, coloured=coloured, plain=plain)
    return "\n".join([_title(feed, symbol), *lines, ""])


def _title(feed: Feed, symbol: str) -> str:
    series = feed[symbol]
    age_text = f"confirmed {series.age:.1f} s ago" if math.isfinite(series.age) else "not confirmed yet"
    missing = sum(gap.kind == "missing" for gap in series.gaps())
    gaps_text = f", {missing} gaps still missing" if missing else ""
    return f"{symbol}  {kind_of(feed)} {feed.interval}  {feed.name}  {age_text}{gaps_text}"
