"""Several feeds on one grid: the mark price beside the index, or one market beside another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import numpy.typing as npt

from candleshm import _core
from candleshm.errors import ConfigError, UnknownSymbol
from candleshm.exchanges.base import DAY_MS, INTERVAL_MS
from candleshm.reader.feed import Feed
from candleshm.reader.panel import Panel

__all__ = ["Alignment", "align"]

# Candles that may close while the feeds are read one after the other.
SPARE_ROWS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """A panel of each feed, all of the same rows; see `align`. Iterating gives the panels, in the order of the feeds.

    >>> feeds = [candleshm.attach(name) for name in ("candleshm-um-mark-1m", "candleshm-um-index-1m")]  # doctest: +SKIP
    >>> mark, index = candleshm.align(feeds, "close", 100)  # doctest: +SKIP
    >>> basis = mark.array / index.array - 1  # (100, S)  # doctest: +SKIP
    """

    array: npt.NDArray[np.float64]
    """(B, n, S) for one field, (B, n, S, F) for several: feed, row, symbol, field; a private copy."""
    open_time_ms: npt.NDArray[np.int64]
    """(n,), ascending: of the candles of the first feed."""
    panels: tuple[Panel, ...]
    """(B,): `panels[b]` has `array[b]`, and the names that its feed has for the symbols."""
    blocks: tuple[str, ...]
    """(B,), the names of the blocks, in the order of the feeds."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.array.shape

    def __iter__(self) -> Iterator[Panel]:
        return iter(self.panels)

    def __len__(self) -> int:
        return len(self.panels)

    def __repr__(self) -> str:
        return f"<Alignment {', '.join(self.panels[0].fields)} {self.shape} of {', '.join(self.blocks)}>"


def align(
    feeds: Sequence[Feed],
    fields: str | Sequence[str] = "close",
    n: int | None = None,
    symbols: Sequence[str | Sequence[str]] | None = None,
) -> Alignment:
    """Return fields of several feeds side by side: (B, n, S) for one field, (B, n, S, F) for a list of fields.

    The rows are candles of the first feed. A feed of the same interval has its own candle of that open time there, and
    NaN where it has none. A feed of another interval has the newest candle that had closed by the end of the row: that
    of its last part where it is shorter, the one before where it is longer, and where it has a gap the value before
    that, as `Feed.asof`. Nothing from the future gets in.

    The last row is the newest one that no feed can change any more: each has it final, or has every candle final that
    ends with it or before. A feed that is behind holds all back. At the older end a feed whose window does not reach
    so far has NaN.

    Args:
        feeds: As `attach` returns them.
        fields: A column, such as "close", or a list of them.
        n: Rows. None: LENGTH of the first feed's block.
        symbols: The order of the columns; each a name that all feeds know it by, or a list of names, one for each feed.
            A feed of an index knows a contract by its pair as well: BTCUSD for BTCUSD_PERP. None: of the first feed
            that is not an index, those that trade, have candles, and are known to all other feeds.

    Raises:
        UnknownSymbol: A feed carries no such symbol.
        StaleData: As `Feed.panel`, of each feed with its own `max_age`.
        ConfigError: No feed, no common symbol, fields or `n` that cannot be used, or 3d candles on different grids.

    >>> feeds = [candleshm.attach(name) for name in ("candleshm-um-mark-1m", "candleshm-um-index-1m")]  # doctest: +SKIP
    >>> both = candleshm.align(feeds, ["high", "close"], 100).array  # (2, 100, S, 2)  # doctest: +SKIP
    >>> basis = both[0, ..., 1] / both[1, ..., 1] - 1  # of the closes, (100, S)  # doctest: +SKIP
    """
    if not isinstance(feeds, Sequence) or not feeds or not all(isinstance(feed, Feed) for feed in feeds):
        raise ConfigError(f"feeds must be a list of feeds, each as attach() returns it: `{feeds!r}`")
    if n is not None and (isinstance(n, bool) or not isinstance(n, Integral) or n < 1):
        raise ConfigError(f"n must be a positive integer: `{n}`")
    names = (fields,) if isinstance(fields, str) else tuple(fields)
    columns = _columns(feeds, names[0] if names else "close", symbols)
    newest = [feed.panel(fields=names, n=1, symbols=own) for feed, own in zip(feeds, columns, strict=True)]
    # Where a feed has no row yet there is none of all.
    end_ms = min(_end_ms(feed, feeds[0], panel) for feed, panel in zip(feeds, newest, strict=True))
    base = _rows(feeds[0], names, columns[0], newest[0], feeds[0].length if n is None else int(n), end_ms)
    opens_ms, ends_ms = base.open_time_ms, np.append(base.open_time_ms[1:], base.end_ms)[: len(base.open_time_ms)]
    # In memory symbol by symbol and field by field, as in every panel.
    flat = np.full((len(feeds), len(names), len(columns[0]), len(opens_ms)), np.nan)
    array = flat.transpose(0, 3, 2, 1)
    array[0] = base.array
    for values, feed, own, last in zip(array[1:], feeds[1:], columns[1:], newest[1:], strict=True):
        if feed.interval != feeds[0].interval:
            for place, name in enumerate(names):
                values[:, :, place] = feed.asof(name, ends_ms, own)
            continue
        other = _rows(feed, names, own, last, len(opens_ms), end_ms)
        _, ours, theirs = np.intersect1d(opens_ms, other.open_time_ms, assume_unique=True, return_indices=True)
        if len(opens_ms) and len(other.open_time_ms) and not len(ours) and feed.interval == "3d":
            raise ConfigError(f"3d candles of block `{feed.name}` open on other days than those of `{feeds[0].name}`")
        values[ours] = other.array[theirs]
    if isinstance(fields, str):
        array = array[..., 0]
    panels = [Panel(values, opens_ms, own, names, base.end_ms) for values, own in zip(array, columns, strict=True)]
    return Alignment(array, opens_ms, tuple(panels), tuple(feed.name for feed in feeds))


def _columns(feeds: Sequence[Feed], field: str, symbols: Sequence[str | Sequence[str]] | None) -> list[tuple[str, ...]]:
    """Return, for each feed, its names of the symbols. Raises ConfigError, UnknownSymbol."""
    if isinstance(symbols, str):
        raise ConfigError(f"symbols cannot be the text `{symbols}`; allowed: a list such as ['BTCUSDT']")
    if symbols is None:
        lead = next((feed for feed in feeds if feed.price != "index"), feeds[0])
        carried = [[_name_in(feed, symbol) for feed in feeds] for symbol in lead.panel(field, n=1).symbols]
        rows = [[name for name in row if name is not None] for row in carried if None not in row]
        if not rows:
            raise ConfigError(
                "the feeds have no symbol in common; give symbols=[[name in the first, in the second], ...]"
            )
        return list(zip(*rows, strict=True))
    columns: list[tuple[str, ...]] = []
    for place, feed in enumerate(feeds):
        own = []
        for symbol in symbols:
            if not isinstance(symbol, str) and len(symbol) != len(feeds):
                raise ConfigError(f"symbols: `{symbol!r}` must have a name for each of the {len(feeds)} feeds")
            name = _name_in(feed, symbol) if isinstance(symbol, str) else symbol[place]
            if name is None or name not in feed:
                raise UnknownSymbol(str(symbol if name is None else name), feed.name)
            own.append(name)
        columns.append(tuple(own))
    return columns


def _name_in(feed: Feed, symbol: str) -> str | None:
    """Return the name of a symbol in a feed: its own or, in one of an index, its pair; None where it has neither."""
    pair = symbol.partition(":")[0].partition("_")[0]
    return symbol if symbol in feed else pair if feed.price == "index" and pair in feed else None


def _end_ms(feed: Feed, first: Feed, newest: Panel) -> int:
    """Return until when rows of the first feed may end: no candle of `feed` that is not final ends by then."""
    if feed.interval == first.interval or not len(newest.open_time_ms):
        return newest.end_ms
    return _core.candle_end_ms(feed.interval, newest.end_ms) - 1


def _rows(feed: Feed, fields: Sequence[str], symbols: Sequence[str], newest: Panel, n: int, end_ms: int) -> Panel:
    """Return the newest `n` rows that end by `end_ms`."""
    step_ms = INTERVAL_MS.get(feed.interval, DAY_MS)
    ahead = max(0, newest.end_ms - end_ms) // step_ms + SPARE_ROWS
    panel = feed.panel(fields=fields, n=n + ahead, symbols=symbols)
    ends_ms = np.append(panel.open_time_ms[1:], panel.end_ms)[: len(panel.open_time_ms)]
    last = int(np.searchsorted(ends_ms, end_ms, side="right"))
    rows = slice(max(0, last - n), last)
    return Panel(
        panel.array[rows],
        panel.open_time_ms[rows],
        panel.symbols,
        panel.fields,
        int(ends_ms[last - 1]) if last else 0,
    )
