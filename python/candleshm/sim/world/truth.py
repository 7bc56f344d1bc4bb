"""What the simulated exchange knows: every candle, final or as of a moment, as a function of seed and time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from candleshm.sim.world.candles import (
    CLOSE,
    COLUMNS,
    HIGH,
    LOW,
    OPEN,
    OPEN_MS,
    QUOTE,
    TRADES,
    VOLUME,
    Ints,
    empty,
    flat,
    fold,
    grow,
)
from candleshm.sim.world.events import KNOWN_OUTAGES, BlockTrade, Outage, Restatement
from candleshm.sim.world.grid import DAY_MS, MINUTE_MS, SECOND_MS, Grid
from candleshm.sim.world.samples import minutes_of_values, moments_of_values
from candleshm.sim.world.series import ContinuousSeries, PriceSeries, as_of
from candleshm.sim.world.sessions import NO_TRADING, OffHours, sessions
from candleshm.sim.world.tape import (
    MINUTES_PER_DAY,
    MOMENT_MS,
    MOMENTS,
    coins_per_lot,
    day_of_minutes,
    moments_of_minutes,
)
from candleshm.sim.world.text import encode
from candleshm.sim.world.universe import QUARTERS, Instrument, Market, Price, default_universe

# A candle as JSON carries it: 12 columns, times and trades as int, the rest as decimal text.
Row = list[Any]

_TAPES_MAX = 512  # up to 115 KB each
_DAYS_MAX = 100_000  # 80 B each and Python's overhead
_MINUTES_MAX = 512  # 38 KB each
_MINUTES_AT_ONCE = 3
_SERIES_MAX = 4096

_MOMENTS_PER_SECOND = SECOND_MS // MOMENT_MS
# More than any symbol trades in a day, so that ids of different days do not meet.
_IDS_PER_DAY = 4_000_000


@dataclass(frozen=True)
class Growth:
    """A candle during one minute: its state after each of the minute's 480 moments of 125 ms, open times as sent.

    ``first_ids`` are the ids of each state's first trade, if it has any; the last one's is ``first + trades - 1``, less
    the block trades among them, of which ``blocks`` says how many there are.
    For ``1s`` every moment belongs to its own second's candle.
    """

    candles: Ints
    close_ms: Ints
    first_ids: Ints
    blocks: Ints


@dataclass(frozen=True)
class Day:
    """A symbol's last 24 hours in whole minutes and the one in progress, as REST shows them.

    ``last`` is the newest price, ``before`` the one before the 24 hours, both in ticks. ``candle`` has shape (10, 1);
    it is all zeros when there was no minute. ``last_lots`` is the volume of the newest trade, 0 without one.
    """

    start_ms: int
    candle: Ints
    last: int
    before: int
    last_lots: int
    first_id: int


class Truth:
    """Every candle of the simulated exchange.

    A pure function of the seed, the listed instruments and the changes made to it (outages, restatements, listings):
    the same call gives the same result in every process. ``late_ms`` is how long a trade takes to show in REST
    klines, so that a candle still changes for that long after its end. Methods may be called from any thread.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        symbols: int = 40,
        instruments: Iterable[Instrument] | None = None,
        outages: Iterable[Outage] = KNOWN_OUTAGES,
        late_ms: int = 300,
        as_of_ms: int | None = None,
        off_hours: OffHours = "flat",
    ) -> None:
        """``instruments`` replaces the default universe of ``symbols`` trading symbols per market at ``as_of_ms``.

        ``off_hours`` is what the klines of TradFi contracts are while their market is closed.
        """
        self.seed = seed
        self.late_ms = late_ms
        self._as_of_ms = time.time_ns() // 1_000_000 if as_of_ms is None else as_of_ms
        if instruments is None:
            instruments = default_universe(seed, symbols, self._as_of_ms)
        self._instruments = {(item.market, item.symbol): item for item in instruments}
        self._outages = tuple(outages)
        self._restatements: tuple[Restatement, ...] = ()
        self._blocks: tuple[BlockTrade, ...] = ()
        self._off_hours = off_hours
        self.version = 0
        """How often something about it changed; what was computed from an earlier version is out of date."""
        self._lock = threading.RLock()
        self._series = lru_cache(_SERIES_MAX)(self._find)
        self._tape = lru_cache(_TAPES_MAX)(self._record)
        self._day = lru_cache(_DAYS_MAX)(self._fold_day)
        self._moments_of_minute = lru_cache(_MINUTES_MAX)(self._trade_minute)
        self._ids: dict[tuple[Market, str], dict[int, int]] = {}

    def instruments(self, market: Market, now_ms: int | None = None) -> list[Instrument]:
        """Return what ``market`` lists, in the order of listing; quarterly contracts are those of ``now_ms``.

        Without ``now_ms`` they are those of the time for which the world was made.
        """
        now_ms = self._as_of_ms if now_ms is None else now_ms
        with self._lock:
            pairs: dict[str, list[Instrument]] = {}
            for item in self._instruments.values():
                if item.market == market:
                    pairs.setdefault(item.pair, []).append(item)
            return [item for items in pairs.values() for item in as_of(items, now_ms)]

    def instrument(self, market: Market, symbol: str) -> Instrument:
        """Return one listed instrument. Raises KeyError."""
        return self._instruments[market, symbol]

    def series(self, market: Market, symbol: str, price: Price = "trade") -> Instrument:
        """Return what the candles of a symbol are made of; with ``price`` its mark price or premium index.

        For ``index`` the symbol is a pair, and ``BTCUSDT:CURRENT_QUARTER`` is a continuous contract. Raises KeyError.
        """
        listed = self._instruments.get((market, symbol)) if price == "trade" else None
        return self._series(market, symbol, price) if listed is None else listed

    def _find(self, market: Market, symbol: str, price: Price) -> Instrument:
        with self._lock:
            return self._make(market, symbol, price)

    def _make(self, market: Market, symbol: str, price: Price) -> Instrument:
        if price == "trade":
            pair, _, contract_type = symbol.partition(":")
            return ContinuousSeries.of(self._contracts(market, pair), contract_type)
        if market == "SPOT":
            raise KeyError(price)
        if price != "index":
            return PriceSeries.of(self.instrument(market, symbol), price)
        contracts = self._contracts(market, symbol)
        if not contracts:
            raise KeyError(symbol)
        return PriceSeries.of(min(contracts, key=lambda item: (item.contract_type in QUARTERS, item.listed_ms)), price)

    def _contracts(self, market: Market, pair: str) -> list[Instrument]:
        return [item for item in self._instruments.values() if (item.market, item.pair) == (market, pair)]

    def enlist(self, instrument: Instrument) -> None:
        """List a symbol, or replace its definition."""
        with self._lock:
            self._instruments[instrument.market, instrument.symbol] = instrument
            self._forget()

    def delist(self, market: Market, symbol: str, at_ms: int) -> Instrument:
        """End a symbol's trading: SPOT goes BREAK and has no more candles, UM and CM go SETTLING and stay flat."""
        with self._lock:
            status = "BREAK" if market == "SPOT" else "SETTLING"
            ended = replace(self.instrument(market, symbol), delisted_ms=at_ms, status=status)
            self.enlist(ended)
            return ended

    def remove(self, market: Market, symbol: str) -> None:
        """Take a symbol off the list, as if it had never been there."""
        with self._lock:
            del self._instruments[market, symbol]
            self._forget()

    def add_outage(self, outage: Outage) -> None:
        """Make candles vanish."""
        with self._lock:
            self._outages += (outage,)
            self._forget()

    def end_outages(self) -> None:
        """Bring all vanished candles back, as when an exchange completes its history later."""
        with self._lock:
            self._outages = ()
            self._forget()

    def add_block_trade(self, trade: BlockTrade) -> None:
        """Let a block trade happen. Raises KeyError for a symbol that SPOT does not list."""
        with self._lock:
            self.instrument("SPOT", trade.symbol)
            self._blocks += (trade,)
            self._forget()

    @property
    def off_hours(self) -> OffHours:
        """What the klines of TradFi contracts are while their market is closed. Settable."""
        return self._off_hours

    @off_hours.setter
    def off_hours(self, off_hours: OffHours) -> None:
        with self._lock:
            self._off_hours = off_hours
            self._forget()

    def restate(self, restatement: Restatement) -> None:
        """Correct history. Raises KeyError for an unknown symbol, ValueError for a minute without trades."""
        with self._lock:
            row = self.kline(
                restatement.market, restatement.symbol, "1m", restatement.minute_ms, price=restatement.price
            )
            if row is None or row[0] != restatement.minute_ms or row[8] == 0:
                raise ValueError(f"no traded minute of {restatement.symbol} opens at `{restatement.minute_ms}`")
            self._restatements += (restatement,)
            self._forget()

    def _forget(self) -> None:
        self.version += 1
        self._series.cache_clear()
        self._tape.cache_clear()
        self._day.cache_clear()
        self._moments_of_minute.cache_clear()

    def grid(self, market: Market, symbol: str, interval: str, zone_ms: int = 0, *, price: Price = "trade") -> Grid:
        """Return the open times of a series. Raises KeyError for an unknown symbol or interval."""
        return Grid.of(interval, self.series(market, symbol, price).listed_ms, zone_ms)

    def kline(self, market: Market, symbol: str, interval: str, open_ms: int, *, price: Price = "trade") -> Row | None:
        """Return the final candle that contains ``open_ms`` as the exchange's 12 columns, None when there is none."""
        rows = self.klines(market, symbol, interval, open_ms, open_ms + 1, price=price)
        return rows[0] if rows else None

    def klines(
        self,
        market: Market,
        symbol: str,
        interval: str,
        start_ms: int,
        end_ms: int,
        *,
        now_ms: int | None = None,
        price: Price = "trade",
    ) -> list[Row]:
        """Return the candles of the slots that touch [start_ms, end_ms), final or as REST shows them at ``now_ms``.

        ``symbol`` and ``price`` are those of `series`. Raises KeyError for an unknown symbol or interval.
        """
        grid = self.grid(market, symbol, interval, price=price)
        texts = self.texts(market, symbol, grid, start_ms, end_ms, now_ms, price=price)
        rows: list[Row] = json.loads(f"[{','.join(text for _, text in texts)}]")
        return rows

    def floats(
        self,
        market: Market,
        symbol: str,
        interval: str,
        start_ms: int,
        end_ms: int,
        *,
        now_ms: int | None = None,
        price: Price = "trade",
    ) -> npt.NDArray[np.float64]:
        """Return `klines` as float64, shape (n, 12): every element is ``float(text)``."""
        rows = self.klines(market, symbol, interval, start_ms, end_ms, now_ms=now_ms, price=price)
        return np.array([[float(value) for value in row] for row in rows], dtype=np.float64).reshape(-1, 12)

    def live(self, market: Market, symbol: str, interval: str, now_ms: int, *, price: Price = "trade") -> Row | None:
        """Return the candle in progress as REST shows it at ``now_ms``."""
        rows = self.klines(market, symbol, interval, now_ms, now_ms + 1, now_ms=now_ms, price=price)
        return rows[0] if rows else None

    def first_ms(self, market: Market, symbol: str, *, price: Price = "trade") -> int:
        """Return the opening time of a series' first minute."""
        return self.series(market, symbol, price).listed_ms // MINUTE_MS * MINUTE_MS

    def texts(
        self,
        market: Market,
        symbol: str,
        grid: Grid,
        start_ms: int,
        end_ms: int,
        now_ms: int | None,
        *,
        price: Price = "trade",
    ) -> list[tuple[int, str]]:
        """Return (open time as sent, JSON row) of `klines`."""
        with self._lock:
            instrument = self.series(market, symbol, price)
            candles = self._candles(instrument, grid, start_ms, end_ms, now_ms)
            if candles.shape[1] == 0:
                return []
            candles, close_ms = self._times(instrument, grid, candles)
            return list(zip(candles[OPEN_MS].tolist(), encode(instrument, candles, close_ms), strict=True))

    def day(self, market: Market, symbol: str, now_ms: int) -> Day | None:
        """Return a symbol's last 24 hours at ``now_ms``; None before its first minute. Raises KeyError."""
        with self._lock:
            instrument = self.instrument(market, symbol)
            if now_ms < self.first_ms(market, symbol):
                return None
            start_ms = now_ms // MINUTE_MS * MINUTE_MS - DAY_MS
            minutes = self._minutes(instrument, max(start_ms, self.first_ms(market, symbol)), now_ms + 1, now_ms)
            ended_ms = instrument.delisted_ms
            before = self._close_before(instrument, start_ms if ended_ms is None else min(start_ms, ended_ms))
            traded = np.flatnonzero(minutes[TRADES])
            if len(traded) == 0:
                last = int(minutes[CLOSE, -1]) if minutes.shape[1] else before or 0
                return Day(start_ms, empty(1), last, last if before is None else before, 0, -1)
            candle = fold(minutes, np.full(minutes.shape[1], start_ms))
            opening = int(candle[OPEN, 0])
            return Day(
                start_ms,
                candle,
                int(candle[CLOSE, 0]),
                opening if before is None else before,
                self._last_lots(instrument, int(minutes[OPEN_MS, traded[-1]]), now_ms - self.late_ms),
                self._first_id(instrument, start_ms),
            )

    def _last_lots(self, instrument: Instrument, minute_ms: int, seen_ms: int) -> int:
        """Return the mean volume of the trades of a minute's last moment up to ``seen_ms``."""
        moments = self._moments_of(instrument, self._final_minutes(instrument, minute_ms, minute_ms + MINUTE_MS))
        last = np.flatnonzero((moments[TRADES] > 0) & (moments[OPEN_MS] <= seen_ms))[-1]
        return int(moments[VOLUME, last] // moments[TRADES, last])

    def growth(
        self, market: Market, symbol: str, grid: Grid, minute_ms: int, *, price: Price = "trade"
    ) -> Growth | None:
        """Return how the candle that contains a minute grows in it, as streams show it; None when there is none.

        Trades show at once here, in REST ``late_ms`` later; the last state of the last minute is the final candle.
        Raises KeyError for an unknown symbol.
        """
        with self._lock:
            instrument = self.series(market, symbol, price)
            minute = self._final_minutes(instrument, minute_ms, minute_ms + MINUTE_MS)
            if minute.shape[1] == 0:
                return None
            moments = self._prices_filled(instrument, minute, minute_ms)
            per_second = grid.interval == "1s"
            candles = grow(moments, _MOMENTS_PER_SECOND if per_second else moments.shape[1])
            if per_second:
                candles[OPEN_MS] = candles[OPEN_MS] // SECOND_MS * SECOND_MS
                trades_before = np.cumsum(moments[TRADES]) - candles[TRADES]
                first_ids = self._first_id(instrument, minute_ms) + trades_before
            else:
                open_ms = max(grid.floor(minute_ms), instrument.listed_ms // MINUTE_MS * MINUTE_MS)
                candles = _continued(self._before(instrument, grid, open_ms, minute_ms), candles)
                candles[OPEN_MS] = grid.floor(minute_ms)
                first_ids = np.full(candles.shape[1], self._first_id(instrument, open_ms))
            blocks = self._blocks_in(instrument, minute_ms if per_second else grid.floor(minute_ms), minute_ms)
            candles, close_ms = self._times(instrument, grid, candles)
            return Growth(candles, close_ms, first_ids, blocks)

    def _blocks_in(self, instrument: Instrument, start_ms: int, minute_ms: int) -> Ints:
        """Return how many block trades a candle that opened at ``start_ms`` has at each moment of a minute."""
        counts = np.zeros(MOMENTS, dtype=np.int64)
        if not self._blocks:
            return counts
        for day in range(start_ms // DAY_MS, minute_ms // DAY_MS + 1):
            for trade in self._blocks_of(instrument, day):
                if start_ms <= trade.minute_ms < minute_ms:
                    counts += 1
                elif trade.minute_ms == minute_ms:
                    counts[-1] += 1
        return counts

    def _before(self, instrument: Instrument, grid: Grid, start_ms: int, end_ms: int) -> Ints:
        """Return the final minutes of [start_ms, end_ms) as one candle, shape (10, 1), or none."""
        middle_ms = max(start_ms, end_ms // DAY_MS * DAY_MS) if grid.of_whole_days else start_ms
        days = [self._day(instrument, day) for day in range(start_ms // DAY_MS, middle_ms // DAY_MS)]
        candles = np.concatenate([*days, self._final_minutes(instrument, middle_ms, end_ms)], axis=1)
        return fold(candles, np.zeros(candles.shape[1], dtype=np.int64))

    def _first_id(self, instrument: Instrument, open_ms: int) -> int:
        """Return the id of the first trade from ``open_ms`` on.

        Ids are counted without a gap from the first requested day: nobody needs the years before it.
        """
        if instrument.kind != "trade":
            return 0
        day = open_ms // DAY_MS
        ids = self._ids.setdefault((instrument.market, instrument.symbol), {day: day * _IDS_PER_DAY})
        known = min(ids, key=lambda other: abs(other - day))
        while known < day:
            ids[known + 1] = ids[known] + self._ids_before(instrument, known, (known + 1) * DAY_MS)
            known += 1
        while known > day:
            ids[known - 1] = ids[known] - self._ids_before(instrument, known - 1, known * DAY_MS)
            known -= 1
        return ids[day] + self._ids_before(instrument, day, open_ms)

    def _ids_before(self, instrument: Instrument, day: int, open_ms: int) -> int:
        """Return how many trades of a UTC day before ``open_ms`` have an id; block trades have others."""
        tape = self._tape(instrument, day)
        blocks = sum(trade.minute_ms < open_ms for trade in self._blocks_of(instrument, day))
        return int(tape[TRADES, : np.searchsorted(tape[OPEN_MS], open_ms)].sum()) - blocks

    def _times(self, instrument: Instrument, grid: Grid, candles: Ints) -> tuple[Ints, Ints]:
        """Return the candles with open times as sent, and their close times."""
        opens = candles[OPEN_MS]
        if grid.interval == "1M":
            ends = np.array([grid.shift(open_ms, 1) for open_ms in opens.tolist()], dtype=np.int64)
        else:
            ends = opens + grid.step_ms
        closes = ends - 1
        for outage in self._outages:
            if not outage.concerns(instrument):
                continue
            if outage.cut_close:
                cut = (opens < outage.start_ms) & (outage.start_ms < ends) & (ends <= outage.end_ms)
                closes[cut] = outage.start_ms
            if outage.off_grid_ms and grid.interval == "1m":
                off = (opens >= outage.end_ms) & (opens < outage.off_grid_until_ms)
                candles = candles.copy()
                candles[OPEN_MS, off] += outage.off_grid_ms
                closes[off] += outage.off_grid_ms
        return candles, closes

    def _candles(self, instrument: Instrument, grid: Grid, start_ms: int, end_ms: int, now_ms: int | None) -> Ints:
        if now_ms is not None:
            end_ms = min(end_ms, now_ms + 1)
        start_ms = max(start_ms, instrument.listed_ms // MINUTE_MS * MINUTE_MS)
        if end_ms <= start_ms:
            return empty()
        start_ms = grid.floor(start_ms)
        end_ms = grid.shift(grid.floor(end_ms - 1), 1)
        if grid.interval == "1s":
            return self._seconds(instrument, start_ms, end_ms, now_ms)
        if not grid.of_whole_days:
            candles = self._minutes(instrument, start_ms, end_ms, now_ms)
        else:
            # Days that ended and settled are cached; the rest of the range is made of its minutes.
            settled_ms = end_ms if now_ms is None else min(end_ms, (now_ms - self.late_ms) // DAY_MS * DAY_MS)
            first, last = start_ms // DAY_MS, max(start_ms, settled_ms) // DAY_MS
            days = [self._day(instrument, day) for day in range(first, last)]
            candles = np.concatenate([*days, self._minutes(instrument, last * DAY_MS, end_ms, now_ms)], axis=1)
        return candles if grid.interval == "1m" else fold(candles, grid.floors(candles[OPEN_MS]))

    def _fold_day(self, instrument: Instrument, day: int) -> Ints:
        """Return the candle of a whole UTC day, shape (10, 1), or none."""
        tape = self._tape(instrument, day)
        return fold(tape, tape[OPEN_MS] // DAY_MS * DAY_MS)

    def _record(self, instrument: Instrument, day: int) -> Ints:
        """Return the final minutes of a UTC day."""
        if isinstance(instrument, ContinuousSeries):
            return self._spliced(instrument, day)
        opens = day * DAY_MS + np.arange(MINUTES_PER_DAY, dtype=np.int64) * MINUTE_MS
        present = opens >= instrument.listed_ms // MINUTE_MS * MINUTE_MS
        halted = np.zeros(MINUTES_PER_DAY, dtype=np.bool_)
        ended_ms = instrument.delisted_ms
        if ended_ms is not None and instrument.flat_after_end:
            if ended_ms <= opens[0]:
                return flat(opens, int(self._tape(instrument, (ended_ms - 1) // DAY_MS)[CLOSE, -1]))
            halted |= opens >= ended_ms
        elif ended_ms is not None:
            present &= opens < ended_ms
        for outage in self._outages:
            if outage.concerns(instrument):
                present &= ~((outage.start_ms <= opens) & (opens + MINUTE_MS <= outage.end_ms))
                halted |= (opens + MINUTE_MS > outage.start_ms - outage.halted_ms) & (opens < outage.start_ms)
        closed = self._closed(instrument, opens)
        if self._off_hours == "absent":
            present &= ~closed
        halted |= closed
        if isinstance(instrument, PriceSeries):
            first = day * MINUTES_PER_DAY
            values = self._values(instrument, first, MINUTES_PER_DAY)
            return minutes_of_values(instrument.kind, first, values)[:, present]
        voice = instrument.voice(self.seed)
        candles = day_of_minutes(voice, day, present, halted)
        if closed[0] and candles.shape[1] and candles[OPEN_MS, 0] == opens[0]:
            self._stay_flat(instrument, candles, closed[present])
        changes: list[Restatement | BlockTrade] = [*self._restated(instrument, day), *self._blocks_of(instrument, day)]
        for change in changes:
            at = np.flatnonzero(candles[OPEN_MS] == change.minute_ms)
            if voice.coins_per_lot_tick:
                unit = coins_per_lot(voice, (candles[OPEN, at] + candles[CLOSE, at]) >> 1)
            else:
                unit = candles[CLOSE, at]
            candles[VOLUME, at] += change.lots
            candles[QUOTE, at] += change.lots * unit
            candles[TRADES, at] += 1
        return candles

    def _closed(self, instrument: Instrument, opens: Ints) -> npt.NDArray[np.bool_]:
        """Return the minutes of a day in which a TradFi contract's market is closed and nobody trades."""
        closed = np.zeros(len(opens), dtype=np.bool_)
        if not instrument.hours or instrument.kind != "trade" or self._off_hours == "trade":
            return closed
        for session in sessions(instrument.hours, int(opens[0]), int(opens[0]) + DAY_MS):
            if session.kind == NO_TRADING:
                closed |= (session.start_ms <= opens) & (opens < session.end_ms)
        return closed

    def _stay_flat(self, instrument: Instrument, candles: Ints, closed: npt.NDArray[np.bool_]) -> None:
        """Flatten a day that begins while the market is closed at the close before it, up to its first trade."""
        close = self._close_before(instrument, int(candles[OPEN_MS, 0]) - 1)  # of the day before
        if close is None:
            return
        first = np.flatnonzero(~closed & (candles[TRADES] > 0))
        flattened = slice(0, int(first[0]) if len(first) else candles.shape[1])
        candles[:, flattened] = flat(candles[OPEN_MS, flattened], close)

    def _spliced(self, series: ContinuousSeries, day: int) -> Ints:
        """Return the final minutes of a UTC day, each of the contract that the series stands for at the time."""
        start_ms, end_ms = day * DAY_MS, (day + 1) * DAY_MS
        parts = [
            self._final_minutes(part.contract, max(start_ms, part.start_ms), min(end_ms, part.end_ms))
            for part in series.parts
            if part.start_ms < end_ms and start_ms < part.end_ms
        ]
        return np.concatenate(parts, axis=1) if parts else empty()

    def _restated(self, instrument: Instrument, day: int) -> Iterable[Restatement]:
        return (
            change
            for change in self._restatements
            if (change.market, change.symbol, change.price) == (instrument.market, instrument.symbol, instrument.kind)
            and change.minute_ms // DAY_MS == day
        )

    def _blocks_of(self, instrument: Instrument, day: int) -> list[BlockTrade]:
        """Return the block trades of a UTC day."""
        if instrument.market != "SPOT":
            return []
        return [
            trade for trade in self._blocks if trade.symbol == instrument.symbol and trade.minute_ms // DAY_MS == day
        ]

    def _close_before(self, instrument: Instrument, open_ms: int) -> int | None:
        """Return the close of the newest minute before ``open_ms``, None at the very beginning."""
        first_day = instrument.listed_ms // DAY_MS
        for day in range(open_ms // DAY_MS, first_day - 1, -1):
            tape = self._tape(instrument, day)
            index = int(np.searchsorted(tape[OPEN_MS], open_ms))
            if index:
                return int(tape[CLOSE, index - 1])
        return None

    def _final_minutes(self, instrument: Instrument, start_ms: int, end_ms: int) -> Ints:
        parts = [empty()]
        for day in range(start_ms // DAY_MS, -(-end_ms // DAY_MS)):
            tape = self._tape(instrument, day)
            low, high = np.searchsorted(tape[OPEN_MS], (start_ms, end_ms))
            parts.append(tape[:, low:high])
        return parts[-1] if len(parts) == 2 else np.concatenate(parts, axis=1)

    def _minutes(self, instrument: Instrument, start_ms: int, end_ms: int, now_ms: int | None) -> Ints:
        """Return minutes that open in [start_ms, end_ms), as REST shows them at ``now_ms``."""
        if now_ms is None:
            return self._final_minutes(instrument, start_ms, end_ms)
        candles = self._final_minutes(instrument, start_ms, min(end_ms, now_ms + 1))
        seen_ms = now_ms - self.late_ms
        open_ms = seen_ms // MINUTE_MS * MINUTE_MS
        settled = int(np.searchsorted(candles[OPEN_MS], open_ms))
        if settled == candles.shape[1]:
            return candles
        opens = candles[OPEN_MS, settled:]
        tail = []
        if opens[0] == open_ms:
            tail.append(self._minute_at(instrument, candles[:, settled : settled + 1], seen_ms))
            close = int(tail[0][CLOSE, 0])
        else:
            close = self._close_seen(instrument, seen_ms, candles[:, settled : settled + 1])
        tail.append(flat(opens[len(tail) :], close))
        return np.concatenate([candles[:, :settled], *tail], axis=1)

    def _close_seen(self, instrument: Instrument, seen_ms: int, fallback: Ints) -> int:
        """Return the newest price that shows at ``seen_ms``."""
        open_ms = seen_ms // MINUTE_MS * MINUTE_MS
        minute = self._final_minutes(instrument, open_ms, open_ms + MINUTE_MS)
        if minute.shape[1]:
            return int(self._minute_at(instrument, minute, seen_ms)[CLOSE, 0])
        before = self._close_before(instrument, open_ms)
        return int(fallback[OPEN, 0]) if before is None else before

    def _moments_of(self, instrument: Instrument, minutes: Ints) -> Ints:
        """Return the trades inside final minutes, shape (10, 480 * minutes); a few minutes are cached."""
        if minutes.shape[1] > _MINUTES_AT_ONCE:
            return self._trade(instrument, minutes)
        parts = [self._moments_of_minute(instrument, *minute) for minute in minutes.T.tolist()]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _trade_minute(self, instrument: Instrument, *minute: int) -> Ints:
        return self._trade(instrument, np.array(minute, dtype=np.int64)[:, None])

    def _trade(self, instrument: Instrument, minutes: Ints) -> Ints:
        """Return the moments of minutes, restatements included: what a minute has beyond its draw trades last."""
        if isinstance(instrument, ContinuousSeries):
            return self._trade_spliced(instrument, minutes)
        if isinstance(instrument, PriceSeries):
            return self._sample(instrument, minutes)
        moments = moments_of_minutes(instrument.voice(self.seed), minutes)
        extra = minutes[VOLUME:] - moments[VOLUME:].sum(axis=2)
        if extra.any():
            rows = np.flatnonzero(extra.any(axis=0))
            moments[OPEN : CLOSE + 1, rows, -1] = minutes[CLOSE, rows]
            moments[VOLUME:, rows, -1] += extra[:, rows]
        return moments.reshape(COLUMNS, -1)

    def _values(self, series: PriceSeries, first_minute: int, minutes: int) -> Ints:
        """Return the values of minutes, restatements included."""
        values = series.basket(self.seed).values(series.kind, first_minute, minutes, series.worth)
        for change in self._restatements:
            minute = change.minute_ms // MINUTE_MS - first_minute
            name = (change.market, change.symbol, change.price)
            if name == (series.market, series.symbol, series.kind) and 0 <= minute < minutes:
                values[minute, -1] += change.lots
        return values

    def _sample(self, series: PriceSeries, minutes: Ints) -> Ints:
        """Return the samples of minutes, which need not follow each other."""
        first = int(minutes[OPEN_MS, 0]) // MINUTE_MS
        count = int(minutes[OPEN_MS, -1]) // MINUTE_MS - first + 1
        values = self._values(series, first, count)[minutes[OPEN_MS] // MINUTE_MS - first]
        return moments_of_values(series.kind, minutes[OPEN_MS], values).reshape(COLUMNS, -1)

    def _trade_spliced(self, series: ContinuousSeries, minutes: Ints) -> Ints:
        moments = []
        for part in series.parts:
            inside = (part.start_ms <= minutes[OPEN_MS]) & (minutes[OPEN_MS] < part.end_ms)
            if inside.any():
                moments.append(self._moments_of(part.contract, minutes[:, inside]))
        return np.concatenate(moments, axis=1)

    def _minute_at(self, instrument: Instrument, minute: Ints, seen_ms: int) -> Ints:
        """Return a final minute as it showed at ``seen_ms``: the trades up to then."""
        if not minute[TRADES, 0]:
            return minute
        moments = self._moments_of(instrument, minute)
        seen = moments[:, : (seen_ms - int(minute[OPEN_MS, 0])) // MOMENT_MS + 1]
        seen = seen[:, seen[TRADES] > 0]
        if seen.shape[1]:
            return fold(seen, np.full(seen.shape[1], minute[OPEN_MS, 0]))
        close = self._close_before(instrument, int(minute[OPEN_MS, 0]))
        return flat(minute[OPEN_MS], int(minute[OPEN, 0]) if close is None else close)

    def _prices_filled(self, instrument: Instrument, minutes: Ints, first_ms: int, shown_ms: int | None = None) -> Ints:
        """Return the moments of final minutes from ``first_ms`` on, without the trades after ``shown_ms``.

        A moment without a trade is flat at the price before it, which is what `fold` expects.
        """
        moments = self._moments_of(instrument, minutes).copy()
        if shown_ms is not None:
            moments[VOLUME:, moments[OPEN_MS] > shown_ms] = 0
        before = self._close_before(instrument, first_ms)
        index = np.where(moments[TRADES] > 0, np.arange(moments.shape[1]), -1)
        last = np.maximum.accumulate(index)
        price = np.where(last < 0, int(minutes[OPEN, 0]) if before is None else before, moments[CLOSE, last])
        moments[OPEN : CLOSE + 1] = price
        return moments

    def _seconds(self, instrument: Instrument, start_ms: int, end_ms: int, now_ms: int | None) -> Ints:
        """Return seconds that open in [start_ms, end_ms), as REST shows them at ``now_ms``."""
        first_ms = start_ms // MINUTE_MS * MINUTE_MS
        minutes = self._final_minutes(instrument, first_ms, end_ms)
        if minutes.shape[1] == 0:
            return empty()
        shown_ms = None
        if now_ms is not None:
            end_ms = min(end_ms, now_ms + 1)
            shown_ms = now_ms - self.late_ms
        moments = self._prices_filled(instrument, minutes, first_ms, shown_ms)
        opens = moments[OPEN_MS] // SECOND_MS * SECOND_MS
        wanted = (start_ms <= opens) & (opens < end_ms)
        for outage in self._outages:
            if outage.concerns(instrument):
                wanted &= ~((outage.start_ms <= opens) & (opens + SECOND_MS <= outage.end_ms))
        return fold(moments[:, wanted], opens[wanted])


def _continued(before: Ints, candles: Ints) -> Ints:
    """Return states of a candle's last minute with what came before that minute, shape (10, 1) or none, added."""
    if before.shape[1] == 0 or not before[TRADES, 0]:
        return candles
    traded = candles[TRADES] > 0
    out = candles.copy()
    out[OPEN] = before[OPEN]
    out[HIGH] = np.where(traded, np.maximum(before[HIGH], candles[HIGH]), before[HIGH])
    out[LOW] = np.where(traded, np.minimum(before[LOW], candles[LOW]), before[LOW])
    out[VOLUME:] += before[VOLUME:]
    return out
