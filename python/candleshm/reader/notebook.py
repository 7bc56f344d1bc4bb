"""Small HTML tables: what Jupyter shows of feeds, series, panels, health and gaps."""

from __future__ import annotations

import html
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from candleshm.columns import CLOSE, OPEN_TIME_MS, VOLUME
from candleshm.errors import CandleShmError
from candleshm.row_state import RowState

if TYPE_CHECKING:
    from candleshm._core import Feed, Gap, Series

__all__ = ["COLUMNS_MAX", "ROWS_MAX", "feed_html", "gap_html", "series_html", "table", "utc"]

ROWS_MAX = 5
COLUMNS_MAX = 8
SYMBOLS_MAX = 10


def utc(ms: float) -> str:
    """Return a moment in epoch ms as people read it; the number itself where the calendar has none, as in damaged rows.

    >>> utc(1795867200000)
    '2026-11-28 12:00:00'
    """
    try:
        return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return str(ms)


def table(caption: str, heads: Iterable[object], rows: Iterable[Iterable[object]], foot: str = "") -> str:
    """Return a table in HTML. Every text is escaped: symbols are what an exchange sent."""

    def line(tag: str, cells: Iterable[object]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line("td", cells) for cells in rows)
    head = f"<p><code>{html.escape(caption)}</code></p><table><thead>{line('th', heads)}</thead>"
    return f"{head}<tbody>{body}</tbody></table>" + (f"<p>{html.escape(foot)}</p>" if foot else "")


def feed_html(feed: Feed) -> str:
    """Return the first symbols of a feed: newest candle, its close, and the age of the data."""
    try:
        rows = [_quoted(feed[symbol]) for symbol in feed.symbols[:SYMBOLS_MAX]]
        more = max(0, len(feed) - SYMBOLS_MAX)
    except CandleShmError as error:
        return table(repr(feed), ("error",), [[error]])
    return table(repr(feed), ("symbol", "open time, UTC", "close", "age, s"), rows, f"{more} more" if more else "")


def series_html(series: Series) -> str:
    """Return the newest rows of a series with their states."""
    heads = ("open time, UTC", "open", "high", "low", "close", "volume", "state")
    try:
        rows, states = series.snapshot(ROWS_MAX)
    except CandleShmError as error:
        return table(repr(series), ("error",), [[error]])
    cells = [
        [utc(row[OPEN_TIME_MS]), *row[1 : VOLUME + 1].tolist(), RowState(state).word]
        for row, state in zip(rows, states.tolist(), strict=True)
    ]
    return table(repr(series), heads, cells)


def gap_html(gap: Gap) -> str:
    """Return where a gap begins and ends, and of which kind it is."""
    return table("Gap", ("from, UTC", "to, exclusive", "kind"), [(utc(gap.start_ms), utc(gap.end_ms), gap.kind)])


def _quoted(series: Series) -> list[object]:
    open_ms = series.last_open_time_ms
    if open_ms is None:
        return [series.symbol, "no candle yet", "", ""]
    # Of one reading; stale data is shown as such, not as a price.
    try:
        row = series.live
    except CandleShmError:
        return [series.symbol, utc(open_ms), "stale", round(series.age, 1)]
    return [series.symbol, utc(row[OPEN_TIME_MS]), row[CLOSE], round(series.age, 1)]
