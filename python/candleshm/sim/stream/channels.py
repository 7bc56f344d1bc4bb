"""One kline stream: what it sends at which moment. No socket and no clock: the caller passes the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from candleshm.sim.stream.names import Series
from candleshm.sim.stream.rules import STEP_MS, StreamRules
from candleshm.sim.world.candles import TRADES
from candleshm.sim.world.grid import MINUTE_MS, SECOND_MS
from candleshm.sim.world.tape import MOMENT_MS, MOMENTS, hash_key
from candleshm.sim.world.text import encode_events
from candleshm.sim.world.truth import Truth

# Texts are made for so many pushes at once, few enough not to hold up the others.
_CHUNK = 24
_PER_SECOND = SECOND_MS // MOMENT_MS
# A clock that jumps over more candles than this gets no pushes of those in between.
_CANDLES_BEHIND_MAX = 5


@dataclass(frozen=True, slots=True)
class Push:
    """One event: exchange time, the candle's opening by the grid, whether it is final, the object ``k`` as JSON."""

    at_ms: int
    open_ms: int
    closed: bool
    candle: str


class _Reel:
    """The pushes of one minute, as texts, made on demand."""

    def __init__(self, truth: Truth, series: Series, minute_ms: int, moments: list[int]) -> None:
        instrument = series.instrument
        self.version = truth.version
        self.minute_ms = minute_ms
        self._series = series
        try:
            self._growth = truth.growth(
                instrument.market, instrument.symbol, series.grid, minute_ms, price=instrument.kind
            )
        except KeyError:  # no longer listed
            self._growth = None
        self._moments = np.array(moments)
        self._texts: dict[int, str] = {}

    def state(self, at_ms: int) -> tuple[str, int] | None:
        """Return the candle as of ``at_ms`` as text, and how many trades it has; None when there is no candle."""
        growth = self._growth
        if growth is None:
            return None
        moment = (at_ms - self.minute_ms) // MOMENT_MS
        text = self._texts.get(moment)
        if text is None:
            later = self._moments[np.searchsorted(self._moments, moment, side="right") :]
            wanted = np.concatenate(([moment], later[: _CHUNK - 1]))
            texts = encode_events(
                self._series.instrument,
                self._series.grid.interval,
                growth.candles[:, wanted],
                growth.close_ms[wanted],
                growth.first_ids[wanted],
                growth.blocks[wanted],
            )
            self._texts = dict(zip(wanted.tolist(), texts, strict=True))
            text = texts[0]
        return text, int(growth.candles[TRADES, moment])


class Channel:
    """The pushes of one series from a moment on."""

    def __init__(self, truth: Truth, series: Series, rules: StreamRules, now_ms: int) -> None:
        instrument = series.instrument
        self.series = series
        self._truth = truth
        self._key = f"{truth.seed}/stream/{instrument.market}/{instrument.symbol}/{series.grid.interval}"
        if instrument.kind != "trade":
            self._key += f"/{instrument.kind}"
        self._period_ms = rules.period_ms[instrument.market]
        self._unchanged = rules.unchanged[instrument.market]
        self._late_ms = rules.close_late_ms
        steps = self._period_ms // STEP_MS
        self._phase_ms = hash_key(f"{truth.seed}/phase/{instrument.symbol}") % steps * STEP_MS
        # A candle that is no longer than a period is pushed when it closes and not before.
        self._closes_only = series.grid.interval == "1s" and self._period_ms >= SECOND_MS
        if self._closes_only:
            moments = set(range(_PER_SECOND - 1, MOMENTS, _PER_SECOND))
        else:
            moments = {(self._phase_ms + at) // MOMENT_MS for at in range(0, MINUTE_MS, self._period_ms)}
        self._moments = sorted(moments | {MOMENTS - 1})
        self._second_to_prepare = hash_key(self._key) % 60
        self._reels: list[_Reel] = []
        self._said: tuple[int, int] = (0, -1)
        self.start(now_ms)

    def start(self, now_ms: int) -> None:
        """Begin at ``now_ms``, with the last push of the candle before if it is still to come."""
        grid = self.series.grid
        self.open_ms = grid.shift(grid.floor(now_ms), -1)
        self._close_due_ms = self._close_ms(self.open_ms)
        if self._close_due_ms <= now_ms:
            self._turn()
        self._tick_ms = now_ms - (now_ms - self._phase_ms) % self._period_ms + self._period_ms
        self.next_ms = self._next()

    def _close_ms(self, open_ms: int) -> int:
        """Return when a candle's last push is due."""
        grid = self.series.grid
        end_ms = grid.shift(open_ms, 1)
        most = min(self._late_ms, (end_ms - open_ms) // 2) // STEP_MS + 1
        return end_ms + hash_key(f"{self._key}/{open_ms}") % most * STEP_MS

    def _turn(self) -> None:
        """Go on to the next candle."""
        self.open_ms = self.series.grid.shift(self.open_ms, 1)
        self._close_due_ms = self._close_ms(self.open_ms)

    def _next(self) -> int:
        return self._close_due_ms if self._closes_only else min(self._close_due_ms, self._tick_ms)

    def due(self, now_ms: int) -> Iterator[Push]:
        """Yield what is due by ``now_ms`` and was not yielded before, oldest first; sets `next_ms`."""
        grid = self.series.grid
        if grid.shift(self.open_ms, _CANDLES_BEHIND_MAX) < now_ms:
            self.start(now_ms)
        while self.next_ms <= now_ms:
            at_ms = self.next_ms
            if at_ms == self._close_due_ms:
                end_ms = grid.shift(self.open_ms, 1)
                state = self._state(end_ms - 1)
                if state is not None:
                    yield Push(at_ms, self.open_ms, True, state[0].replace('"x":false', '"x":true', 1))
                self._turn()
            else:
                # Events that were due while nobody called are replaced by what is true now.
                self._tick_ms = max(at_ms, now_ms - (now_ms - self._phase_ms) % self._period_ms) + self._period_ms
                if grid.floor(at_ms) == self.open_ms:
                    state = self._state(at_ms)
                    if state is not None and (self._unchanged or self._said != (self.open_ms, state[1])):
                        self._said = self.open_ms, state[1]
                        yield Push(at_ms, self.open_ms, False, state[0])
            self.next_ms = self._next()
        self._prepare(now_ms)

    def _state(self, at_ms: int) -> tuple[str, int] | None:
        return self._reel(at_ms // MINUTE_MS * MINUTE_MS).state(at_ms)

    def _reel(self, minute_ms: int) -> _Reel:
        for reel in self._reels:
            if reel.minute_ms == minute_ms and reel.version == self._truth.version:
                return reel
        reel = _Reel(self._truth, self.series, minute_ms, self._moments)
        self._reels = [*(old for old in self._reels if old.minute_ms >= minute_ms - MINUTE_MS), reel][-3:]
        return reel

    def _prepare(self, now_ms: int) -> None:
        """Prepare the next minute at this channel's own second, so that not all work falls on the full minute."""
        if now_ms // 1000 % 60 >= self._second_to_prepare:
            self._reel((now_ms // MINUTE_MS + 1) * MINUTE_MS)
