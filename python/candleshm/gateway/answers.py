"""The candles that a request gets: from a block, made of smaller ones, out of daily files, joined without a seam.

An answer is whole or it is refused. What is read in the event loop is one series of a block; everything else is made in
a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from candleshm._core import candle_end_ms, klines_text
from candleshm.columns import OPEN_TIME_MS
from candleshm.errors import BlockError, StaleData, UnknownSymbol
from candleshm.exchanges.base import DAY_MS, INTERVAL_MS, Market
from candleshm.gateway.directory import BlockDirectory, divides, replay_flags
from candleshm.gateway.exchange_info import ExchangeInfos
from candleshm.gateway.files import DailyFiles
from candleshm.gateway.grid import Grid, is_same_grid
from candleshm.gateway.precision import SAMPLED_DECIMALS, Decimals
from candleshm.gateway.query import KlinesQuery
from candleshm.gateway.refusals import Refused
from candleshm.gateway.staleness import MAX_AGE_SECONDS, final_until_ms, has_ended, stale, utc
from candleshm.gateway.stretch import ALL_MS, Absent, Rows, Stretch
from candleshm.history.store import ParquetStore
from candleshm.reader.feed import Feed
from candleshm.row_state import RowState

__all__ = ["Answer", "Answers"]

# Rows and days of files that one answer may take.
ROWS_MAX = 500_000
DAYS_MAX = 2000
# Streams close a candle up to two seconds after its end, requests once the exchange's clock is `settle_seconds` past.
CLOSE_MS = 2500
# What a feed raises when its block goes or loses the symbol while it is read.
GONE = (BlockError, StaleData, UnknownSymbol)


class Answer(NamedTuple):
    """The body of a klines response, and the farthest source that it needed."""

    body: bytes
    source: str


class Answers:
    """Answers good queries from this machine. Methods may be called from any thread."""

    def __init__(
        self, directory: BlockDirectory, infos: ExchangeInfos, files: DailyFiles | None, max_age_seconds: float | None
    ) -> None:
        self._directory = directory
        self._infos = infos
        self._files = files
        self._max_age_seconds = max_age_seconds

    def at_once(self, query: KlinesQuery, now_ms: int | None) -> Answer | None:
        """Return what a block of the interval has, None where that does not answer the query.

        It takes one reading of a series, without a lock and without a system call. `now_ms` is the exchange's time.
        """
        if not is_same_grid(query.interval, query.zone_ms):
            return None
        low_ms, high_ms = query.bounds_ms(now_ms)
        for feed in self._directory.find(query.market, query.symbol, query.interval, query.price):
            is_derived = self._directory.is_derived(feed)
            try:
                series = feed[query.symbol]
                read = partial(
                    series.klines_text,
                    low_ms,
                    high_ms,
                    query.limit,
                    newest=query.is_newest,
                    decimals=self._decimals(query),
                    derived=is_derived,
                )
                # Before the rows: they are as new as that, or newer.
                is_fresh = series.age <= self._limit_seconds(query.market)
                final_ms = 0 if is_fresh else final_until_ms(feed, series)
                text = read()
                if not is_fresh and text.incomplete is None:
                    is_cut = text.rows == query.limit and not query.is_newest
                    last_ms = text.last_open_ms if is_cut else high_ms
                    if last_ms is None or last_ms >= final_ms:
                        if not has_ended(feed, series):
                            continue
                        text = read()
                if text.incomplete is not None:
                    continue
            except GONE:
                continue
            return Answer(text.body, "derived" if is_derived else "block")
        return None

    def awaits_close(self, query: KlinesQuery) -> bool:
        """Return whether an answer would hold a candle that has ended and is not final: it is closed in a moment.

        Until then a block has what the exchange pushed before its end. A block that is too old awaits nothing.
        """
        feeds = self._directory.find(query.market, query.symbol, query.interval, query.price)
        for interval in () if feeds else self._directory.intervals(query.market, query.price):
            if divides(interval, query.interval):
                feeds = [*feeds, *self._directory.find(query.market, query.symbol, interval, query.price)]
        return bool(feeds) and all(self._is_closing(feed, query) for feed in feeds)

    def _is_closing(self, feed: Feed, query: KlinesQuery) -> bool:
        now_ms = feed.exchange_ms()
        if now_ms is None:
            return False
        try:
            series = feed[query.symbol]
            age_seconds = series.age
            if age_seconds > self._limit_seconds(query.market):
                return False
            rows, states = series.snapshot(2, holes="nan")
        except GONE:
            return False
        # Candles as short as the time that it takes to close one always end before the last one is final: of these it
        # has to be enough that the exchange confirmed the series after the candle's end.
        is_short = INTERVAL_MS.get(feed.interval, DAY_MS) <= CLOSE_MS
        confirmed_ms = now_ms - 1000 * age_seconds
        ends_ms = [candle_end_ms(feed.interval, int(open_ms)) for open_ms in rows[:, OPEN_TIME_MS]]
        return any(
            state == RowState.LIVE
            and end_ms <= now_ms
            and not (is_short and confirmed_ms >= end_ms)
            and (query.end_ms is None or open_ms <= query.end_ms)
            for open_ms, end_ms, state in zip(rows[:, OPEN_TIME_MS], ends_ms, states, strict=True)
        )

    def made(self, query: KlinesQuery, now_ms: int | None) -> Answer:
        """Return the answer that takes more: smaller candles, daily files. Raises Refused, which says what it lacks."""
        if query.needs_now and now_ms is None:
            raise Refused(503, -1001, "the exchange's time is not known yet, and so not where the range ends")
        bounds_ms = query.bounds_ms(now_ms)
        lacks: list[Refused] = []
        blocks: list[Stretch] = []
        for feed, stretch in self._stretches(query):
            blocks.append(stretch)
            chosen = _chosen(query, stretch, bounds_ms)
            if isinstance(chosen, Answered):
                return self._answer(query, chosen)
            if chosen is not None:
                lacks.append(self._lack(query, feed, chosen))
        if self._files is not None:
            for store in self._files.stores(query.market, query.symbol, query.interval, query.price):
                for newer in (_newer(blocks, store.interval), None):
                    for stretch in _with_files(self._files, store, query, newer, bounds_ms):
                        chosen = _chosen(query, stretch, bounds_ms)
                        if isinstance(chosen, Answered):
                            return self._answer(query, chosen)
                        if chosen is None or chosen.kind == "missing":
                            break
        raise lacks[0] if lacks else self._not_carried(query)

    def is_unknown(self, query: KlinesQuery) -> bool:
        """Return whether neither the exchange's list nor a block has a symbol; False while there is no list."""
        listing = self._infos.listing(query.market)
        if listing is None or self._directory.has_symbol(query.market, query.symbol, query.price):
            return False
        return query.symbol not in (listing.pairs if query.price == "index" else listing.statuses)

    def _limit_seconds(self, market: Market) -> float:
        return MAX_AGE_SECONDS[market] if self._max_age_seconds is None else self._max_age_seconds

    def _stretches(self, query: KlinesQuery) -> Iterator[tuple[Feed, Stretch]]:
        """Yield what blocks have of the series, and of series of which its candles can be made, longest first."""
        for interval in self._directory.intervals(query.market, query.price):
            if interval != query.interval and not divides(interval, query.interval):
                continue
            for feed in self._directory.find(query.market, query.symbol, interval, query.price):
                try:
                    series = feed[query.symbol]
                    # Before the rows: what was confirmed later is newer than it seems.
                    is_fresh = series.age <= self._limit_seconds(query.market) or has_ended(feed, series)
                    is_derived = self._directory.is_derived(feed)
                    stretch = Stretch.of_block(feed, series, is_derived=is_derived, is_fresh=is_fresh)
                except GONE:
                    continue
                if stretch is not None:
                    yield feed, stretch

    def _answer(self, query: KlinesQuery, answered: Answered) -> Answer:
        return Answer(klines_text(np.ascontiguousarray(answered.rows), self._decimals(query)), answered.source)

    def _decimals(self, query: KlinesQuery) -> Decimals | None:
        return self._infos.decimals(query.market, query.symbol) if query.price == "trade" else SAMPLED_DECIMALS

    def _lack(self, query: KlinesQuery, feed: Feed, absent: Absent) -> Refused:
        """Return the refusal of a query that a block does not answer."""
        where = f"{query.symbol} {feed.interval} of block {feed.name}"
        if absent.kind == "missing":
            text = f"{where} lacks the candle of {utc(absent.at_ms)}, which is being fetched; try again in a moment"
            return Refused(503, -1001, text, 1.0)
        if absent.kind == "stale":
            try:
                age_seconds = feed[query.symbol].age
            except GONE:
                return Refused(503, -1001, f"block {feed.name} is gone; try again in a moment", 1.0)
            return stale(feed, query.symbol, age_seconds, self._limit_seconds(query.market), absent.at_ms)
        text = (
            f"whole candles of {query.interval} begin at {utc(absent.at_ms)} in {where}, after what was asked for; ask "
            f"for a later range, serve it with a larger --length, or start the gateway with --candle-dir or "
            f"--pass-through"
        )
        return Refused(503, -1001, text)

    def _not_carried(self, query: KlinesQuery) -> Refused:
        """Return the refusal of a query for which there is no block at all."""
        intervals = dict.fromkeys(
            feed.interval for feed in self._directory.of_market(query.market, query.price) if query.symbol in feed
        )
        of_price = "" if query.price == "trade" else f" with price {query.price}"
        if intervals:
            text = (
                f"candles of {query.interval} cannot be made of those that blocks have of {query.symbol}: "
                f"{' '.join(intervals)}; serve {query.interval}, or start the gateway with --pass-through"
            )
        elif (left_out := self._directory.left_out(query.market, query.symbol)) is not None:
            text = self._left_out(query, left_out)
        else:
            text = (
                f"no block on this machine carries {query.symbol} of {query.market}{of_price}; serve it, or start the "
                f"gateway with --pass-through"
            )
        return Refused(503, -1001, text)

    def _left_out(self, query: KlinesQuery, feed: Feed) -> str:
        """Return why a block that carries what was asked for does not answer, and what to do."""
        try:
            is_replay, exchange = feed.health.replayed_at is not None, feed.exchange
        except GONE:
            return f"block {feed.name}, which carried {query.symbol}, is gone; try again in a moment"
        if is_replay:
            return (
                f"block {feed.name} carries {query.symbol}, but it is a replay, of another time than now; start a "
                f"gateway with {replay_flags(feed)} to be answered from it"
            )
        return (
            f"block {feed.name} carries {query.symbol}, but its candles are those of "
            f"{exchange or 'an unknown exchange'}; a gateway answers with the candles of one exchange, which "
            f"--base-url names"
        )


class Answered(NamedTuple):
    """The rows of an answer, and the farthest source that they needed."""

    rows: Rows
    source: str


def _chosen(query: KlinesQuery, stretch: Stretch, bounds_ms: tuple[int | None, int | None]) -> Answered | Absent | None:
    """Return the rows of a query that a stretch has, or why it lacks some; None when its candles do not make those."""
    zone_ms = query.zone_ms
    if zone_ms % INTERVAL_MS[stretch.interval] and not is_same_grid(stretch.interval, zone_ms):
        return None
    anchor_ms = 0
    if query.interval == "3d":
        # Each symbol has a grid of its own, from the day of its first candle on.
        if zone_ms or (stretch.interval != "3d" and stretch.start_ms != ALL_MS) or not len(stretch.rows):
            return None
        anchor_ms = int(stretch.rows[0, OPEN_TIME_MS]) // DAY_MS * DAY_MS
    grid = Grid(query.interval, zone_ms, anchor_ms)
    if stretch.interval != query.interval or not is_same_grid(query.interval, zone_ms):
        if stretch.interval == query.interval:
            return None
        stretch = stretch.resampled(grid)
    rows = stretch.choose(grid, *bounds_ms, query.limit, newest=query.is_newest)
    return rows if isinstance(rows, Absent) else Answered(rows, stretch.farthest)


def _newer(blocks: Sequence[Stretch], interval: str) -> Stretch | None:
    """Return what blocks have in the interval of files, which goes on where these end; None without any."""
    found = [
        stretch if stretch.interval == interval else stretch.resampled(Grid(interval))
        for stretch in blocks
        if stretch.interval == interval or divides(stretch.interval, interval)
    ]
    return max(found, key=lambda stretch: (stretch.is_fresh, -stretch.start_ms), default=None)


def _with_files(
    files: DailyFiles,
    store: ParquetStore,
    query: KlinesQuery,
    newer: Stretch | None,
    bounds_ms: tuple[int | None, int | None],
) -> Iterator[Stretch]:
    """Yield files and what goes on behind them, as one: as far as an answer without holes needs, then ever farther."""
    low_ms, high_ms = bounds_ms
    grid = Grid(query.interval, query.zone_ms)
    end_ms = None if high_ms is None else grid.end_ms(grid.floor_ms(high_ms))
    if newer is not None:
        end_ms = newer.end_ms if end_ms is None else min(end_ms, newer.end_ms)
    start_ms = 0 if low_ms is None else grid.floor_ms(low_ms)
    most_ms = min(ROWS_MAX * INTERVAL_MS[store.interval], DAYS_MAX * DAY_MS)
    if end_ms is None:
        if query.is_newest:
            return  # Files do not reach the present.
        end_ms = start_ms + most_ms
    reach_ms = (query.limit + 2) * (31 * DAY_MS if query.interval == "1M" else INTERVAL_MS[query.interval])
    from_ms, to_ms = start_ms, end_ms
    while True:
        if query.is_newest:
            from_ms = max(start_ms, grid.floor_ms(end_ms - reach_ms))
        else:
            to_ms = min(end_ms, start_ms + reach_ms)
        if to_ms - from_ms > most_ms:
            return
        stretch = _joined(files, store, query.symbol, newer, from_ms, to_ms)
        if stretch is None:
            return
        yield stretch
        if (from_ms, to_ms) == (start_ms, end_ms) or stretch.start_ms > from_ms:
            return
        reach_ms *= 4


def _joined(
    files: DailyFiles, store: ParquetStore, symbol: str, newer: Stretch | None, from_ms: int, to_ms: int
) -> Stretch | None:
    if newer is not None and newer.start_ms <= from_ms:
        return None  # It has all that there is, and has not answered.
    older = files.stretch(store, symbol, from_ms, to_ms if newer is None else min(to_ms, newer.start_ms))
    if newer is None or older is None or to_ms <= newer.start_ms:
        return older
    return newer.joined_to(older) if older.end_ms >= newer.start_ms else None
