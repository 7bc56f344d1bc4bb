"""A day in the making: rows of responses put on its grid, and which slots are holes. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from candleshm._core import hole_apart_ms
from candleshm.exchanges.base import Market, Price
from candleshm.history.candles import Candles, Conflict, DayCandles, same_bits, slots_of, spans_of
from candleshm.history.day import Day, Grid

__all__ = ["Assembly", "Coverage"]

NEVER = -1
# The age of a row from the archive: every response of the exchange is newer.
ARCHIVED = 0


class Coverage:
    """The open times of which a response holds every candle that exists: `start_ms` to `end_ms`, half-open.

    `begins_ms` is where the symbol's candles begin, by this response alone: it held fewer than the limit although the
    request had no lower bound; None when it does not show that.
    """

    __slots__ = ("begins_ms", "end_ms", "start_ms")

    def __init__(self, rows: Candles, *, limit: int, asked_start_ms: int | None, end_ms: int, length_ms: int) -> None:
        oldest_ms = math.floor(rows[0, 0]) // length_ms * length_ms if len(rows) else end_ms
        self.end_ms = end_ms
        # A server may count slots instead of rows: then a response is short where there are holes, and goes back to the
        # first of its slots exactly. That does not show the beginning; the next page does.
        is_slots = len(rows) > 0 and oldest_ms == end_ms - limit * length_ms
        if len(rows) >= limit or is_slots:
            self.start_ms, self.begins_ms = oldest_ms, None
        else:
            # With a bound (COIN-M: 200 days) what lies below it is not known; longer silences count as the beginning.
            self.start_ms = 0 if asked_start_ms is None else asked_start_ms
            self.begins_ms = oldest_ms


class _Slots:
    """What is known of each slot of a day."""

    __slots__ = ("absent_ms", "before", "differing", "rows", "sent_ms", "verified")

    def __init__(self, count: int) -> None:
        self.rows = np.full((count, 12), np.nan)
        self.sent_ms = np.full(count, NEVER, np.int64)  # when the row was requested
        # First and last request whose response should have held the slot and did not.
        self.absent_ms = np.full((2, count), NEVER, np.int64)
        self.before = np.ones(count, bool)  # by every such response candles begin only later
        self.verified = np.zeros(count, bool)  # the archive had the same row
        self.differing: dict[int, Candles] = {}  # rows of the archive that the exchange contradicts, by slot


class Assembly:
    """One day of one symbol, from the first response until everything about it is known."""

    __slots__ = (
        "_fetched_ms",
        "_interval",
        "_slots",
        "confirmations",
        "day",
        "grid",
        "has_unusable_file",
        "is_done",
        "is_vague",
        "pages_left",
        "symbol",
        "uncut_ms",
    )

    def __init__(self, symbol: str, day: Day, grid: Grid, interval: str) -> None:
        self.symbol = symbol
        self.day = day
        self.grid = grid
        self.uncut_ms = grid.end_ms
        """End of the slots that belong to no page yet."""
        self.pages_left = 0
        self.is_done = False
        self.is_vague = False
        """Whether response after response left open which of its candles exist."""
        self.confirmations = 0
        """How often it was requested once more, to confirm holes."""
        self.has_unusable_file = False
        """Whether the archive has a file of this day that cannot be used."""
        self._interval = interval
        self._slots: _Slots | None = None
        self._fetched_ms: int | None = None

    @property
    def is_uncut(self) -> bool:
        """Whether some of its slots belong to no page yet."""
        return self.uncut_ms > self.grid.first_ms

    def cut_to(self, begins_ms: int) -> None:
        """Need no page for slots before `begins_ms`: a response has shown that no candle exists there."""
        if self.uncut_ms <= begins_ms:
            self.uncut_ms = self.grid.first_ms

    @property
    def _known(self) -> _Slots:
        """Made on first use: a download of years has thousands of days before it, and few in hand."""
        if self._slots is None:
            self._slots = _Slots(self.grid.count)
        return self._slots

    def take(self, rows: Candles, coverage: Coverage, sent_ms: int) -> None:
        """Take in a response requested at `sent_ms`, exchange time; its rows ascend and are final, or of other days."""
        rows = rows[slice(*np.searchsorted(rows[:, 0], (self.grid.first_ms, self.grid.end_ms)))]
        slots = slots_of(rows, self.grid)
        newer = sent_ms > self._known.sent_ms[slots]
        self._compare(slots[newer], rows[newer])
        self._known.rows[slots[newer]] = rows[newer]
        self._known.sent_ms[slots[newer]] = sent_ms
        covered = np.zeros(self.grid.count, bool)
        covered[self._part(coverage.start_ms, coverage.end_ms)] = True
        covered[slots] = False
        first, last = self._known.absent_ms
        first[covered & (first == NEVER)] = sent_ms
        first[covered] = np.minimum(first[covered], sent_ms)
        last[covered] = np.maximum(last[covered], sent_ms)
        before = np.zeros(self.grid.count, bool)
        if coverage.begins_ms is not None:
            before[self._part(0, coverage.begins_ms)] = True
        self._known.before &= before | ~covered
        self._fetched_ms = sent_ms if self._fetched_ms is None else min(self._fetched_ms, sent_ms)

    def take_archived(self, rows: Candles, fetched_ms: int) -> bool:
        """Take in rows of the archive, before any response of the exchange; return whether they are the whole day.

        `fetched_ms` is when they were requested, exchange time.
        """
        slots = slots_of(rows, self.grid)
        mine = (slots >= 0) & (slots < self.grid.count)
        if not mine.any():
            return False
        self._known.rows[slots[mine]] = rows[mine]
        self._known.sent_ms[slots[mine]] = ARCHIVED
        self._fetched_ms = fetched_ms
        return bool((self._known.sent_ms == ARCHIVED).all())

    def _compare(self, slots: npt.NDArray[np.int64], rows: Candles) -> None:
        """Compare rows of the archive with the exchange's, before these take their place."""
        known = self._known
        archived = (known.sent_ms[slots] == ARCHIVED) | known.verified[slots]
        slots, rows = slots[archived], rows[archived]
        if len(slots):
            same = same_bits(known.rows[slots], rows).all(axis=1)
            known.verified[slots] = same
            known.differing |= {int(slot): known.rows[slot].copy() for slot in slots[~same]}

    def conflicts(self) -> Iterator[Conflict]:
        """Yield where the exchange contradicts the archive; the exchange's rows stand."""
        for slot, row in sorted(self._known.differing.items()):
            yield Conflict(self.symbol, row, self._known.rows[slot])

    def unconfirmed(self, settle_ms: int) -> tuple[int, int] | None:
        """Return the slots, from the first to the last and half-open, of which it is open whether a candle exists.

        A slot is a hole once two responses lack it that were requested far enough apart, see `hole_apart_ms`.
        """
        first, last = self._known.absent_ms
        open_slots = np.flatnonzero(
            (self._known.sent_ms == NEVER) & ((first == NEVER) | (last - first < hole_apart_ms(settle_ms)))
        )
        return (int(open_slots[0]), int(open_slots[-1]) + 1) if len(open_slots) else None

    @property
    def last_absent_ms(self) -> int:
        """Exchange time of the newest request whose response lacked a row."""
        return int(self._known.absent_ms[1].max(initial=NEVER))

    @property
    def is_before_the_first(self) -> bool:
        """Whether the whole day lies before the symbol's first candle."""
        return bool((self._known.sent_ms == NEVER).all() and self._known.before.all())

    def trailing_ms(self) -> int | None:
        """Return from where to its end the day has no candles; None when its last slot has one."""
        held = np.flatnonzero(self._known.sent_ms != NEVER)
        last = int(held[-1]) + 1 if len(held) else 0
        return self.grid.first_ms + last * self.grid.length_ms if last < self.grid.count else None

    def candles(self, market: Market, price: Price = "trade", *, has_ended: bool) -> DayCandles:
        """Return the finished day; with `has_ended` the symbol's last candle lies before its trailing absence."""
        has_row = self._known.sent_ms != NEVER
        outside = ~has_row & self._known.before
        trailing_ms = self.trailing_ms()
        if has_ended and trailing_ms is not None:
            outside[self._part(trailing_ms, self.grid.end_ms)] = True
        return DayCandles(
            market=market,
            price=price,
            symbol=self.symbol,
            interval=self._interval,
            day=self.day,
            rows=self._known.rows[has_row],
            source="archive" if (self._known.sent_ms == ARCHIVED).any() else "exchange",
            fetched_ms=self._fetched_ms or 0,
            holes=spans_of(~has_row & ~outside, self.grid),
            outside=spans_of(outside, self.grid),
            verified=spans_of(self._known.verified, self.grid),
        )

    def archived(self, market: Market, price: Price = "trade") -> DayCandles | None:
        """Return what the archive has of a day that the exchange does not give; other candles are missing."""
        has_row = self._known.sent_ms == ARCHIVED
        if not has_row.any():
            return None
        return DayCandles(
            market=market,
            price=price,
            symbol=self.symbol,
            interval=self._interval,
            day=self.day,
            rows=self._known.rows[has_row],
            source="archive",
            fetched_ms=self._fetched_ms or 0,
        )

    def _part(self, start_ms: int, end_ms: int) -> slice:
        grid = self.grid
        start, end = (-(-(ms - grid.first_ms) // grid.length_ms) for ms in (start_ms, end_ms))
        return slice(min(max(start, 0), grid.count), min(max(end, 0), grid.count))
