"""Days of made-up candles with everything that history has, stored, and what was known of them at each moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from candleshm._core import INTERVAL_MS, Zone, candle_end_ms
from candleshm.columns import CLOSE, OPEN_TIME_MS
from candleshm.history.candles import Candles, DayCandles, Span, spans_of
from candleshm.history.day import Day, Grid, days_between
from candleshm.history.store import ParquetStore
from candleshm.reader.derivation import derive

FULL, HOLES, MISSING, LISTED, ENDED = "FULLUSDT", "HOLEUSDT", "GAPSUSDT", "NEWUSDT", "OLDUSDT"
SYMBOLS = (FULL, HOLES, MISSING, LISTED, ENDED)
NEVER_MS = 2**62


def random_rows(open_ms: Candles, length_ms: int, chance: np.random.Generator) -> Candles:
    """Return candles that rise and fall, some without a trade."""
    rows = np.zeros((len(open_ms), 12))
    rows[:, OPEN_TIME_MS], rows[:, 6] = open_ms, open_ms + length_ms - 1
    closes = 1000 + np.cumsum(chance.integers(-4, 5, len(rows))) / 4
    rows[:, CLOSE], rows[:, 1] = closes, np.concatenate(([1000.0], closes[:-1]))
    rows[:, 2] = rows[:, [1, 4]].max(axis=1) + chance.integers(0, 5, len(rows)) / 4
    rows[:, 3] = rows[:, [1, 4]].min(axis=1) - chance.integers(0, 5, len(rows)) / 4
    rows[:, 8] = chance.integers(1, 500, len(rows))
    rows[:, [5, 7, 9, 10]] = np.round(rows[:, [8]] * chance.random((len(rows), 4)), 3)
    flat = chance.random(len(rows)) < 0.05
    rows[flat, 1:5], rows[flat, 5], rows[flat, 7:11] = rows[flat][:, [1]], 0, 0
    rows[1:, 1] = np.where(flat[1:], rows[1:, 1], rows[1:, 1])
    return rows


@dataclass
class History:
    """Five symbols in files: whole, with holes, with missing candles, listed and ended inside the range."""

    interval: str
    zone: Zone
    rows: dict[str, Candles] = field(default_factory=dict)
    listed_ms: dict[str, int] = field(default_factory=dict)
    ended_ms: dict[str, int] = field(default_factory=dict)
    missing: dict[str, list[Span]] = field(default_factory=dict)
    bounds: tuple[int, int] = (0, 0)
    """From when to when there are days, open times of the base interval."""

    @property
    def length_ms(self) -> int:
        """Of a base candle."""
        return INTERVAL_MS[self.interval]

    def known(
        self, symbol: str, interval: str, now_ms: int, from_ms: int = 0, *, opens_are_seen: bool = False
    ) -> Candles:
        """Return the candles that had closed by `now_ms`, of base candles that open from `from_ms` on.

        Bigger ones are made of all candles first, and cut afterwards: what had closed depends on nothing later. That a
        base candle does not exist shows with the next one: with its close, or with `opens_are_seen` with its open.
        """
        rows = self.rows[symbol]
        rows = rows[rows[:, OPEN_TIME_MS] >= from_ms]
        if interval == self.interval or not len(rows):
            return rows[rows[:, OPEN_TIME_MS] + self.length_ms <= now_ms]
        # Absent candles before the first one are not known to be absent, unless that is the symbol's very first.
        listed_ms = self.listed_ms.get(symbol, -1)
        day = Day.of(max(0, listed_ms), self.zone)
        # Of one that was listed at midnight only the day before, without a file, shows it.
        is_shown = listed_ms > Grid.of(day, self.interval).first_ms or from_ms < day.start_ms
        is_whole = listed_ms >= from_ms and is_shown
        start_ms = 0 if is_whole else int(rows[0, OPEN_TIME_MS])
        end_ms = self.ended_ms.get(symbol, self.bounds[1])
        larger = derive(rows, interval, source=self.interval, start_ms=start_ms, end_ms=end_ms)
        opens_ms = larger[:, OPEN_TIME_MS].astype(np.int64)
        ends_ms = np.array([candle_end_ms(interval, open_ms) for open_ms in opens_ms.tolist()], np.int64)
        proofs = np.append(rows[:, OPEN_TIME_MS], NEVER_MS)[
            np.searchsorted(rows[:, OPEN_TIME_MS], ends_ms - self.length_ms)
        ].astype(np.int64)
        is_last = proofs == ends_ms - self.length_ms
        seen_ms = np.where(is_last | (not opens_are_seen), proofs + self.length_ms, proofs)
        gaps = self.missing.get(symbol, ())
        is_made = [
            not any(start < end and open_ms < stop for start, stop in gaps)
            for open_ms, end in zip(opens_ms.tolist(), ends_ms.tolist(), strict=True)
        ]
        return larger[np.array(is_made, bool) & (seen_ms <= now_ms)]


def stored_history(
    directory: Path, interval: str, first: str, last: str, zone_name: str, chance: np.random.Generator
) -> History:
    """Write days of UTC, or of another zone, for all five symbols, from `first` to `last`, both included."""
    zone = Zone(zone_name)
    store = ParquetStore(directory, "SPOT", interval, zone)
    days = list(days_between(Day.parse(first, zone), Day.parse(last, zone)))
    grids = [Grid.of(day, interval) for day in days]
    length_ms = INTERVAL_MS[interval]
    history = History(interval, zone, bounds=(grids[0].first_ms, grids[-1].end_ms))
    open_ms = np.concatenate([grid.first_ms + length_ms * np.arange(grid.count) for grid in grids]).astype(float)
    count = len(open_ms)
    with store.writing():
        for symbol in SYMBOLS:
            has_row, hole, verified, outside = np.ones(count, bool), np.zeros(count, bool), *np.zeros((2, count), bool)
            verified |= chance.random(count) < 0.3
            if symbol in (HOLES, MISSING):
                for start in chance.integers(1, count - 1, 4):
                    has_row[start : start + int(chance.integers(1, max(2, count // 20)))] = False
                has_row[0] = has_row[-1] = True
                hole = ~has_row if symbol == HOLES else hole
            if symbol == LISTED:
                place = int(chance.integers(1, count - 1))
                outside[:place], history.listed_ms[symbol] = True, int(open_ms[place])
            if symbol == ENDED:
                place = int(chance.integers(1, count - 1))
                outside[place:], history.ended_ms[symbol] = True, int(open_ms[place])
            has_row &= ~outside
            verified &= has_row
            rows = random_rows(open_ms, length_ms, chance)
            history.rows[symbol] = rows[has_row]
            whole = Grid(grids[0].first_ms, length_ms, count)
            history.missing[symbol] = list(spans_of(~(has_row | hole | outside), whole))
            written, start = [], 0
            for day, grid in zip(days, grids, strict=True):
                part = slice(start, start + grid.count)
                start += grid.count
                if symbol == LISTED and outside[part].all():
                    continue  # a download writes no day before the first candle
                written.append(
                    DayCandles(
                        market="SPOT",
                        symbol=symbol,
                        interval=interval,
                        day=day,
                        rows=rows[part][has_row[part]],
                        source="exchange",
                        fetched_ms=day.end_ms,
                        holes=spans_of(hole[part], grid),
                        outside=spans_of(outside[part], grid),
                        verified=spans_of(verified[part], grid),
                    )
                )
            store.write(*written)
    return history
