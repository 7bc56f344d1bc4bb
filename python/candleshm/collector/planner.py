"""What to ask next: (where a series stands, now) -> its next turns. Pure; the scheduler acts on them.

Every series has at most one request on its way, and turns are served first come, first served, so that no series and no
kind of turn starves another. A turn is one of

- *closing*: the oldest row that is not final has ended and settled, an answer asked for now makes it final. It gets a
  head start over everything else, and weight of its own;
- *tail*: the rows from the oldest that is not final to now, every `update_interval_seconds`;
- *backfill*: the newest missing range, a page at a time, newest first;
- *audit*: closed rows once more, to check them; planned by the scheduler, not here;
- *absence*: rows that the exchange did not have, once more; planned by `absences`.

While a series loads its tail is refreshed at leisure, and nothing of it counts as closing. Once it no longer trades
only its last candle is asked for, until that is final; its rows from before may still be backfilled.

Where a stream flows an event is as good as an answer: a tail falls due only after the stream was silent for too long,
and a closing turn only when the event that should close the candle is late. What an event left in doubt counts as not
final.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from candleshm.exchanges.base import INTERVAL_MS, Exchange, KlineRequest, candle_end_ms

__all__ = [
    "FetchTask",
    "Kind",
    "PollPolicy",
    "Position",
    "Progress",
    "Selection",
    "SeriesPlan",
    "choose",
    "closing_weight_of",
    "is_ending",
    "next_turns",
    "page_of",
    "request_for",
    "silence_of",
]

# A closing candle is served as if its turn had come this much earlier. Not absolutely first: with more closing candles
# than the weight allows (hundreds of symbols at 1s) everything else would wait for ever.
HEAD_START_SECONDS = 10.0
LOADING_TAIL_SECONDS = 30.0
# A candle that is over, but not yet final for want of a later row, is asked for again after this pause at least.
UNPROVEN_SECONDS = 1.0
# A series that has nothing more to give (a new listing without rows, a gap that does not shrink) is asked ever less;
# one that could not be loaded, and the last candle of one that no longer trades, down to once an hour.
FRUITLESS_SECONDS_MAX = 120.0
GIVEN_UP_SECONDS_MAX = 3600.0
# A stream that pushes changes only is asked about when it is silent for much longer than it lately was, and at pauses
# that double while its silence turns out to be honest.
QUIET_MAX = 4
PAUSES = 3.0
QUIET_SECONDS_MAX = 30.0  # half of the age at which readers refuse by default


class Position(Protocol):
    """Where a series stands in the block (see `SeriesState`)."""

    @property
    def newest_open_ms(self) -> int | None: ...
    @property
    def unsettled_open_ms(self) -> int | None: ...
    @property
    def missing(self) -> int: ...


class Progress(Position, Protocol):
    """What a response changed, and where the series stands since (see `Ingested`)."""

    @property
    def closed(self) -> int: ...
    @property
    def holes(self) -> int: ...


class Kind(Enum):
    """What a turn is for."""

    CLOSING = "closing"
    TAIL = "tail"
    BACKFILL = "backfill"
    AUDIT = "audit"
    ABSENCE = "absence"


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """How often to ask, the same for all series of a feed."""

    interval: str
    length: int
    update_interval_seconds: float
    settle_ms: int
    tail_limit: int
    silence_seconds: float = 0.0
    """How long the stream of a series may be silent."""
    late_ms: int = 0
    """How long after a candle's end the event that closes it may come."""

    @property
    def settle_seconds(self) -> float:
        """`settle_ms` in seconds."""
        return self.settle_ms / 1000


@dataclass(frozen=True, slots=True)
class FetchTask:
    """When a series is due (local seconds) and for what."""

    kind: Kind
    due_seconds: float
    rank_seconds: float
    """Order among the turns that are due: `due_seconds`, less the head start of a closing candle."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Whose turn it is: of all, and of the closing candles alone; and when the next one is due (local seconds)."""

    first: tuple[SeriesPlan, Kind] | None
    closing: tuple[SeriesPlan, Kind] | None
    next_seconds: float
    next_closing_seconds: float


@dataclass(slots=True)
class SeriesPlan:
    """What the scheduler remembers about one series. Local seconds, except names in _ms, which are exchange time."""

    symbol: str
    newest_open_ms: int | None = None
    unsettled_open_ms: int | None = None
    missing: int = 0
    missing_range_ms: tuple[int, int] | None = None  # the newest missing range, half-open
    tail_sent_seconds: float = -math.inf
    tail_sent_ms: int = 0
    answered_seconds: float = -math.inf
    backfilled_seconds: float = -math.inf
    fruitless: int = 0  # answers in a row, asked for missing rows, by which no row became final or known to be absent
    idle: int = 0  # the same, failed requests included
    tries: int = 0  # requests answered or failed while it loads
    failures: int = 0  # failed requests in a row
    refused: bool = False  # the newest request failed in a way that does not get better by itself
    retry_seconds: float = -math.inf
    loaded: bool = False
    given_up: bool = False  # could not be loaded: nobody waits for it, and it is asked ever less until it is loaded
    trading: bool = True
    ended_ms: int = 0  # when it was seen not to trade any more
    is_streamed: bool = False  # its stream is subscribed on an open connection
    heard_seconds: float = -math.inf  # when its stream brought the newest event
    quiet: int = 0  # how often in a row silence was honest
    pause_seconds: float = 0.0  # for how long its stream is silent now and then; 0 where silence is never honest
    suspect_ms: int | None = None  # oldest row that was closed, and has to be asked for again
    suspect_since_ms: int = 0  # by an answer asked for after this
    jitter_seconds: float = 0.0  # spreads the series of a feed, and the collectors of the world, within a moment
    turns: tuple[FetchTask, ...] = ()  # none while a request is on its way

    @property
    def is_empty(self) -> bool:
        """Whether the series has no row at all."""
        return self.newest_open_ms is None

    def follow(self, position: Position) -> None:
        """Take in where events have brought the series."""
        self.newest_open_ms = position.newest_open_ms
        self.unsettled_open_ms = position.unsettled_open_ms
        self.missing = position.missing

    def mark_suspect(self, open_ms: int, now_ms: int) -> None:
        """Let the rows from `open_ms` on be asked for again, by a request that leaves at `now_ms` or later."""
        self.suspect_ms = open_ms if self.suspect_ms is None else min(self.suspect_ms, open_ms)
        self.suspect_since_ms = now_ms

    def end(self, now_ms: int) -> None:
        """Note that it was seen not to trade any more at `now_ms`, exchange time."""
        self.trading, self.ended_ms = False, now_ms

    def fail(self, *, refused: bool) -> None:
        """Note a failed request; one that was `refused` would be refused again at once."""
        self.failures += 1
        self.idle += 1
        self.refused = refused
        if not self.loaded:
            self.tries += 1

    def learn(self, position: Progress, *, sent_seconds: float, sent_ms: int, now_seconds: float, kind: Kind) -> None:
        """Take in an answer that the writer has merged."""
        is_tail = kind in (Kind.TAIL, Kind.CLOSING)
        # Rows that missed their time, or left the window while they were missing, did not come by this answer.
        brought = position.newest_open_ms is not None if self.is_empty else position.closed + position.holes > 0
        if self.is_empty or kind is Kind.BACKFILL:
            self.fruitless = 0 if brought else self.fruitless + 1
            self.idle = 0 if brought else self.idle + 1
        elif position.missing > self.missing:
            self.fruitless = 0
        if is_tail and not self.trading:
            self.idle = 0 if brought else self.idle + 1
        if not self.loaded:
            self.tries += 1
        self.follow(position)
        self.answered_seconds = now_seconds
        self.failures = 0
        self.refused = False
        self.retry_seconds = -math.inf
        if is_tail:
            self.tail_sent_seconds = sent_seconds
            self.tail_sent_ms = sent_ms
        elif kind is Kind.BACKFILL:
            self.backfilled_seconds = now_seconds
        # A listing that twice had nothing is as loaded as it can be: new, and still without a trade.
        is_complete = self.missing == 0 and (self.fruitless >= 2 if self.is_empty else self.tail_sent_ms > 0)
        if is_complete and not self.loaded:
            self.loaded, self.given_up = True, False
            self.idle = self.tries = 0


def next_turns(series: SeriesPlan, cadence: PollPolicy, now_seconds: float, now_ms: int) -> tuple[FetchTask, ...]:
    """Return what a series without a request on its way waits for; nothing when nothing is left to do.

    `now_seconds` is local time and `now_ms` the exchange time that has surely been reached by then.
    """
    turns = []
    if series.trading or not series.loaded:
        if series.is_empty:
            due_seconds = series.answered_seconds + _pause_seconds(series, cadence)
            turns.append(_turn(Kind.TAIL, series, due_seconds))
        else:
            period_seconds = cadence.update_interval_seconds
            if not series.loaded:
                period_seconds = max(period_seconds, LOADING_TAIL_SECONDS)
            settled_ms = _settled_ms(series, cadence)
            tail_seconds = _tail_seconds(series, cadence, period_seconds)
            if series.tail_sent_ms >= settled_ms and series.unsettled_open_ms == series.newest_open_ms:
                # The answer did not show that it is newer than the candle: no later row was in it. It is asked for
                # again after as long as the candle is over, more and more seldom.
                over_seconds = (series.tail_sent_ms - settled_ms) / 1000
                pause_seconds = min(LOADING_TAIL_SECONDS, max(UNPROVEN_SECONDS, over_seconds))
                tail_seconds = min(tail_seconds, series.tail_sent_seconds + pause_seconds)
            if series.tail_sent_ms >= settled_ms and series.unsettled_open_ms != series.newest_open_ms:
                # The answer that should have made it final did not; events will not either.
                tail_seconds = min(tail_seconds, series.tail_sent_seconds + LOADING_TAIL_SECONDS)
            turns.append(_turn(Kind.TAIL, series, tail_seconds))
            if series.loaded and series.tail_sent_ms < settled_ms:
                turns.append(_turn(Kind.CLOSING, series, now_seconds + (settled_ms - now_ms) / 1000))
    elif is_ending(series, cadence):
        turns.append(_turn(Kind.CLOSING, series, _last_seconds(series, cadence, now_seconds, now_ms)))
    if series.missing_range_ms is not None or _lags(series, cadence):
        # Absence counts once two answers agree that were asked for `settle` apart. The pause runs from the last
        # backfill: tails come more often than it is long, and would put it off for ever.
        paused = series.fruitless > 0 and series.backfilled_seconds > -math.inf
        since_seconds = series.backfilled_seconds if paused else series.answered_seconds
        turns.append(_turn(Kind.BACKFILL, series, since_seconds + _pause_seconds(series, cadence)))
    return tuple(turns)


def choose(serieses: Iterable[SeriesPlan], now_seconds: float) -> Selection:
    """Return whose turn it is at `now_seconds` (local time)."""
    first: tuple[SeriesPlan, Kind] | None = None
    closing: tuple[SeriesPlan, Kind] | None = None
    first_rank_seconds = closing_rank_seconds = next_seconds = next_closing_seconds = math.inf
    for series in serieses:
        for turn in series.turns:
            due_seconds = turn.due_seconds
            is_closing = turn.kind is Kind.CLOSING
            if due_seconds > now_seconds:
                if due_seconds < next_seconds:
                    next_seconds = due_seconds
                if is_closing and due_seconds < next_closing_seconds:
                    next_closing_seconds = due_seconds
                continue
            if is_closing and turn.rank_seconds < closing_rank_seconds:
                closing, closing_rank_seconds = (series, turn.kind), turn.rank_seconds
            if first is None or turn.rank_seconds < first_rank_seconds:
                first, first_rank_seconds = (series, turn.kind), turn.rank_seconds
    return Selection(first, closing, next_seconds, next_closing_seconds)


def request_for(
    series: SeriesPlan, kind: Kind, exchange: Exchange, cadence: PollPolicy, now_ms: int, latest_ms: int | None = None
) -> KlineRequest:
    """Return the request that serves a turn best for its weight.

    Exchange time has surely reached `now_ms`, and has surely not passed `latest_ms` (`now_ms` unless given).
    """
    interval, symbol = cadence.interval, series.symbol
    length_ms = INTERVAL_MS[interval]
    oldest_ms = _oldest_unsettled_ms(series)
    if oldest_ms is None:
        # One more than the window shows: `closed_only` reads LENGTH rows below the live one.
        return exchange.newest(symbol, interval, min(cadence.length + 1, exchange.page_limit))
    if kind is Kind.BACKFILL:
        missing_range_ms = series.missing_range_ms
        # A row left behind comes first, but one that never settles must not keep the missing ones from being asked for.
        if missing_range_ms is None or (_lags(series, cadence) and series.fruitless % 2 == 0):
            missing_range_ms = (oldest_ms, oldest_ms + (exchange.page_limit - 1) * length_ms)
        return page_of(symbol, missing_range_ms, exchange, cadence, now_ms)
    if series.loaded and not series.trading:
        # Futures give flat candles for months after the end of trading; what opened until then is its own.
        end_ms = max(series.ended_ms, series.newest_open_ms or 0)
        count = max(0, end_ms - oldest_ms) // length_ms + 2
        return exchange.until(symbol, interval, min(count, exchange.tail_limit), min(end_ms, now_ms))
    # From the oldest row that is not final to the live one, both included, and one for the candle that opens meanwhile.
    # The answer ends with the newest row by the exchange's own clock, so the later bound counts.
    latest_ms = now_ms if latest_ms is None else latest_ms
    count = max(0, latest_ms - oldest_ms) // length_ms + 2
    return exchange.newest(symbol, interval, min(count, exchange.tail_limit))


def page_of(
    symbol: str, range_ms: tuple[int, int], exchange: Exchange, cadence: PollPolicy, now_ms: int
) -> KlineRequest:
    """Return the request for the newest page of a half-open range; exchange time has surely reached `now_ms`.

    Two rows more than are asked for: the one below shows that the pages join, and the one above that the answer is
    newer than the rows in question.
    """
    start_ms, end_ms = range_ms
    length_ms = INTERVAL_MS[cadence.interval]
    count = -(-(end_ms - start_ms) // length_ms) + 2
    newest_ms = candle_end_ms(cadence.interval, end_ms) - 1
    return exchange.until(symbol, cadence.interval, min(count, exchange.page_limit), min(newest_ms, now_ms))


def is_ending(series: SeriesPlan, cadence: PollPolicy) -> bool:
    """Say whether the last candle of a series that no longer trades is still to be made final."""
    if series.trading or series.is_empty:
        return False
    return _has_provisional(series) or series.tail_sent_ms < series.ended_ms + cadence.settle_ms


def closing_weight_of(count: int, exchange: Exchange, cadence: PollPolicy, window_seconds: float) -> int:
    """Return what the closing candles of `count` series cost in a window, one round of them at least."""
    rounds = max(1, math.ceil(window_seconds * 1000 / INTERVAL_MS[cadence.interval]))
    return count * rounds * exchange.newest("", cadence.interval, 1).weight


def _turn(kind: Kind, series: SeriesPlan, due_seconds: float) -> FetchTask:
    due_seconds = max(due_seconds + series.jitter_seconds, series.retry_seconds)
    head_start_seconds = HEAD_START_SECONDS if kind is Kind.CLOSING else 0.0
    return FetchTask(kind, due_seconds, due_seconds - head_start_seconds)


def silence_of(series: SeriesPlan, cadence: PollPolicy) -> float:
    """Return how long the stream of a series may be silent before it is asked about."""
    silence_seconds = max(cadence.silence_seconds, PAUSES * series.pause_seconds) * 2.0**series.quiet
    return silence_seconds if silence_seconds <= cadence.silence_seconds else min(QUIET_SECONDS_MAX, silence_seconds)


def _tail_seconds(series: SeriesPlan, cadence: PollPolicy, period_seconds: float) -> float:
    """Return when the newest rows are to be asked for: a period after the newest answer or event."""
    if not series.is_streamed:
        return max(series.tail_sent_seconds, series.heard_seconds) + period_seconds
    silence_seconds = silence_of(series, cadence)
    # What an answer found honest is as good as heard.
    pause_seconds = silence_seconds if series.quiet else period_seconds
    return max(series.tail_sent_seconds + pause_seconds, series.heard_seconds + silence_seconds)


def _has_provisional(series: SeriesPlan) -> bool:
    """Say whether a series has a row that is not final, or is in doubt."""
    newest_ms, unsettled_ms = series.newest_open_ms, series.unsettled_open_ms
    has_row = newest_ms is not None and unsettled_ms is not None and unsettled_ms <= newest_ms
    return has_row or series.suspect_ms is not None


def _last_seconds(series: SeriesPlan, cadence: PollPolicy, now_seconds: float, now_ms: int) -> float:
    """Return when the last candle of a series that no longer trades is to be asked for."""
    settled_ms = _settled_ms(series, cadence) if _has_provisional(series) else series.ended_ms + cadence.settle_ms
    if series.tail_sent_ms < settled_ms:
        return now_seconds + (settled_ms - now_ms) / 1000
    return series.tail_sent_seconds + cadence.settle_seconds + min(GIVEN_UP_SECONDS_MAX, 2.0 ** min(series.idle, 16))


def _pause_seconds(series: SeriesPlan, cadence: PollPolicy) -> float:
    if series.fruitless == 0:
        return 0.0
    longest_seconds = GIVEN_UP_SECONDS_MAX if series.given_up else FRUITLESS_SECONDS_MAX
    return cadence.settle_seconds + min(longest_seconds, 0.25 * (2.0 ** min(series.fruitless - 1, 16) - 1))


def _oldest_unsettled_ms(series: SeriesPlan) -> int | None:
    oldest_ms = series.newest_open_ms if series.unsettled_open_ms is None else series.unsettled_open_ms
    return oldest_ms if oldest_ms is None or series.suspect_ms is None else min(oldest_ms, series.suspect_ms)


def _lags(series: SeriesPlan, cadence: PollPolicy) -> bool:
    """Say whether a row waits to become final that lies too far back for a tail to contain it, as after an outage."""
    oldest_ms = _oldest_unsettled_ms(series)
    if series.newest_open_ms is None or oldest_ms is None:
        return False
    return series.newest_open_ms - oldest_ms > (cadence.tail_limit - 2) * INTERVAL_MS[cadence.interval]


def _settled_ms(series: SeriesPlan, cadence: PollPolicy) -> int:
    """Return the exchange time from which an answer makes the oldest row that is not final final."""
    oldest_ms = _oldest_unsettled_ms(series)
    assert oldest_ms is not None, "only a series with rows has one that can become final"
    wait_ms = max(cadence.settle_ms, cadence.late_ms) if series.is_streamed else cadence.settle_ms
    return max(candle_end_ms(cadence.interval, oldest_ms) + wait_ms, series.suspect_since_ms)
