"""What to request next: (where a series stands, now) -> its next tasks. Pure; the scheduler acts on them.

Every series has at most one request on its way, and tasks are served first come, first served, so that no series and no
kind of task starves another. A task is one of

- *closing*: the oldest row that is not final has ended and settled, a response requested now makes it final. It gets a
  head start over everything else, and weight of its own;
- *tail*: the rows from the oldest that is not final to now, every `update_interval_seconds`;
- *backfill*: the newest missing range, a page at a time, newest first;
- *confirm*: missing rows that a response lacked, once more when a second one counts; older pages do not wait for it;
- *audit*: closed rows once more, to check them; planned by the scheduler, not here;
- *hole*: rows that the exchange did not have, once more; planned by `hole_requests`.

The requests of a start, and backfills where many series need one, may be part of a burst (`ratelimit.budget`). While
the budget has room for it they pass what waits for weight; once it is spent, everything else passes them.

While a series loads its tail is refreshed rarely, and nothing of it counts as closing. Once it no longer trades
only its last candle is requested, until that is final; its rows from before may still be backfilled.

Where a stream flows an event is as good as a response: a tail falls due only after the stream was idle for too long,
and a closing task only when the event that should close the candle is late. A suspect row counts as not
final.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from candleshm.collector.series_plan import FetchTask, Kind, PollPolicy, SeriesPlan
from candleshm.exchanges.base import INTERVAL_MS, Exchange, KlineRequest, candle_end_ms

__all__ = [
    "Selection",
    "choose",
    "closing_weight_of",
    "idle_seconds_max",
    "is_ending",
    "loading_weight_of",
    "next_tasks",
    "page_between",
    "page_of",
    "request_for",
]

# A closing task is served as if it had been due this much earlier. Not absolutely first: with more closing candles
# than the weight allows (hundreds of symbols at 1s) everything else would wait for ever.
HEAD_START_SECONDS = 10.0
LOADING_TAIL_SECONDS = 30.0
# A candle that is over, but not yet final for want of a later row, is requested again after this pause at least.
UNPROVEN_SECONDS = 1.0
# A series that has nothing more to give (a new listing without rows, a gap that does not shrink) is requested less and
# less; one that could not be loaded, and the last candle of one that no longer trades, down to once an hour.
NO_PROGRESS_SECONDS_MAX = 120.0
GIVEN_UP_SECONDS_MAX = 3600.0
# A stream that pushes changes only is checked by REST when it is idle for much longer than it lately was, and at pauses
# that double while its responses show nothing newer.
PAUSES = 3.0
IDLE_SECONDS_MAX = 30.0  # half of the age at which readers refuse by default


@dataclass(frozen=True, slots=True)
class Selection:
    """Whose task it is, and when the next one is due (local seconds)."""

    first: tuple[SeriesPlan, Kind] | None
    """Of all tasks."""
    closing: tuple[SeriesPlan, Kind] | None
    """Of the closing candles."""
    steady: tuple[SeriesPlan, Kind] | None
    """Of what is no part of a burst."""
    loading: tuple[SeriesPlan, Kind] | None
    """Of what is part of a burst: a series that is not loaded, or one of many to be repaired."""
    backfills: int
    """Loaded series that have rows to be backfilled and no request on its way."""
    next_seconds: float
    next_closing_seconds: float


def next_tasks(series: SeriesPlan, policy: PollPolicy, now_seconds: float, now_ms: int) -> tuple[FetchTask, ...]:
    """Return what a series without a request on its way waits for; nothing when nothing is left to do.

    `now_seconds` is local time and `now_ms` the exchange time that has surely been reached by then.
    """
    tasks = []
    if series.trading or not series.loaded:
        if series.is_empty:
            due_seconds = series.response_seconds + _pause_seconds(series, policy, series.no_progress)
            tasks.append(_task(Kind.TAIL, series, due_seconds))
        else:
            period_seconds = policy.update_interval_seconds
            if not series.loaded:
                period_seconds = max(period_seconds, LOADING_TAIL_SECONDS)
            settled_ms = _settled_ms(series, policy)
            tail_seconds = _tail_seconds(series, policy, period_seconds)
            if series.tail_sent_ms >= settled_ms and series.unsettled_open_ms == series.newest_open_ms:
                # The response did not show that it is newer than the candle: no later row was in it. It is
                # requested again after as long as the candle is over, more and more seldom.
                over_seconds = (series.tail_sent_ms - settled_ms) / 1000
                pause_seconds = min(LOADING_TAIL_SECONDS, max(UNPROVEN_SECONDS, over_seconds))
                tail_seconds = min(tail_seconds, series.tail_sent_seconds + pause_seconds)
            if series.tail_sent_ms >= settled_ms and series.unsettled_open_ms != series.newest_open_ms:
                # The response that should have made it final did not; events will not either.
                tail_seconds = min(tail_seconds, series.tail_sent_seconds + LOADING_TAIL_SECONDS)
            tasks.append(_task(Kind.TAIL, series, tail_seconds))
            if series.loaded and series.tail_sent_ms < settled_ms:
                tasks.append(_task(Kind.CLOSING, series, now_seconds + (settled_ms - now_ms) / 1000))
    elif is_ending(series, policy):
        tasks.append(_task(Kind.CLOSING, series, _last_seconds(series, policy, now_seconds, now_ms)))
    if series.missing_range_ms is not None or _lags(series, policy):
        # The pause runs from the last backfill: tails come more often than it is long, and would put it off for ever.
        paused = series.no_progress > 0 and series.backfilled_seconds > -math.inf
        since_seconds = series.backfilled_seconds if paused else series.response_seconds
        tasks.append(_task(Kind.BACKFILL, series, since_seconds + _pause_seconds(series, policy, series.no_progress)))
    if series.unconfirmed_range_ms is not None:
        # A hole counts once two responses agree whose requests were sent the settle time apart.
        confirm_seconds = now_seconds + (series.confirm_from_ms - now_ms) / 1000
        if series.unconfirmed > 0:
            pause_seconds = _pause_seconds(series, policy, series.unconfirmed)
            confirm_seconds = max(confirm_seconds, series.unconfirmed_seconds + pause_seconds)
        tasks.append(_task(Kind.CONFIRM, series, confirm_seconds))
    return tuple(tasks)


def choose(serieses: Iterable[SeriesPlan], now_seconds: float, *, repairs_many: bool = False) -> Selection:
    """Return whose task it is at `now_seconds` (local time). Backfills load like a start where it `repairs_many`."""
    closing: tuple[SeriesPlan, Kind] | None = None
    steady: tuple[SeriesPlan, Kind] | None = None
    loading: tuple[SeriesPlan, Kind] | None = None
    closing_rank_seconds = steady_rank_seconds = loading_rank_seconds = math.inf
    next_seconds = next_closing_seconds = math.inf
    backfills = 0
    for series in serieses:
        for task in series.tasks:
            due_seconds = task.due_seconds
            is_closing = task.kind is Kind.CLOSING
            is_backfill = task.kind is Kind.BACKFILL and series.loaded
            backfills += is_backfill
            if due_seconds > now_seconds:
                if due_seconds < next_seconds:
                    next_seconds = due_seconds
                if is_closing and due_seconds < next_closing_seconds:
                    next_closing_seconds = due_seconds
                continue
            if is_closing and task.rank_seconds < closing_rank_seconds:
                closing, closing_rank_seconds = (series, task.kind), task.rank_seconds
            if not series.loaded or (is_backfill and repairs_many):
                if task.rank_seconds < loading_rank_seconds:
                    loading, loading_rank_seconds = (series, task.kind), task.rank_seconds
            elif task.rank_seconds < steady_rank_seconds:
                steady, steady_rank_seconds = (series, task.kind), task.rank_seconds
    first = loading if loading_rank_seconds < steady_rank_seconds else steady
    return Selection(first, closing, steady, loading, backfills, next_seconds, next_closing_seconds)


def request_for(
    series: SeriesPlan, kind: Kind, exchange: Exchange, policy: PollPolicy, now_ms: int, latest_ms: int | None = None
) -> KlineRequest:
    """Return the request that serves a task best for its weight.

    Exchange time has surely reached `now_ms`, and has surely not passed `latest_ms` (`now_ms` unless given).
    """
    interval, symbol = policy.interval, series.symbol
    length_ms = INTERVAL_MS[interval]
    oldest_ms = _oldest_unsettled_ms(series)
    if oldest_ms is None:
        # One more than the window shows: `closed_only` reads LENGTH rows below the live one.
        return exchange.newest(symbol, interval, min(policy.length + 1, exchange.page_limit))
    if kind is Kind.BACKFILL:
        missing_range_ms = series.missing_range_ms
        # A row left behind comes first, but one that never settles must not keep the missing ones from being requested.
        if missing_range_ms is None or (_lags(series, policy) and series.no_progress % 2 == 0):
            missing_range_ms = (oldest_ms, oldest_ms + (exchange.page_limit - 1) * length_ms)
        return page_of(symbol, missing_range_ms, exchange, policy, now_ms)
    if kind is Kind.CONFIRM and series.unconfirmed_range_ms is not None:
        return page_of(symbol, series.unconfirmed_range_ms, exchange, policy, now_ms)
    if series.loaded and not series.trading:
        # Futures give flat candles for months after the end of trading; what opened until then is its own.
        end_ms = max(series.ended_ms, series.newest_open_ms or 0)
        count = max(0, end_ms - oldest_ms) // length_ms + 2
        return exchange.until(symbol, interval, min(count, exchange.tail_limit), min(end_ms, now_ms))
    # From the oldest row that is not final to the live one, both included, and one for the candle that opens meanwhile.
    # The response ends with the newest row by the exchange's own clock, so the later bound counts.
    latest_ms = now_ms if latest_ms is None else latest_ms
    count = max(0, latest_ms - oldest_ms) // length_ms + 2
    return exchange.newest(symbol, interval, min(count, exchange.tail_limit))


def page_of(
    symbol: str, range_ms: tuple[int, int], exchange: Exchange, policy: PollPolicy, now_ms: int
) -> KlineRequest:
    """As `page_between`, of the interval of a policy."""
    return page_between(symbol, policy.interval, range_ms, exchange, now_ms)


def page_between(
    symbol: str, interval: str, range_ms: tuple[int, int], exchange: Exchange, now_ms: int
) -> KlineRequest:
    """Return the request for the newest page of a half-open range; exchange time has surely reached `now_ms`.

    The page has two more rows than the range: the one below shows that pages join, and the one above that the response
    is newer than the range.
    """
    start_ms, end_ms = range_ms
    count = -(-(end_ms - start_ms) // INTERVAL_MS[interval]) + 2
    newest_ms = candle_end_ms(interval, end_ms) - 1
    return exchange.until(symbol, interval, min(count, exchange.page_limit), min(newest_ms, now_ms))


def is_ending(series: SeriesPlan, policy: PollPolicy) -> bool:
    """Return whether the last candle of a series that no longer trades is still to be made final."""
    if series.trading or series.is_empty:
        return False
    return _has_provisional(series) or series.tail_sent_ms < series.ended_ms + policy.settle_ms


def closing_weight_of(count: int, exchange: Exchange, policy: PollPolicy, window_seconds: float) -> int:
    """Return what the closing candles of `count` series cost in a window, one round of them at least."""
    rounds = max(1, math.ceil(window_seconds * 1000 / INTERVAL_MS[policy.interval]))
    return count * rounds * exchange.newest("", policy.interval, 1).weight


def loading_weight_of(series: SeriesPlan, exchange: Exchange, policy: PollPolicy) -> int:
    """Return what the requests cost at least that a series needs until it is loaded."""
    if series.loaded or series.given_up:
        return 0
    missing = series.missing if series.tail_sent_ms else policy.length
    pages = math.ceil(missing / exchange.page_limit)
    return pages * exchange.newest("", policy.interval, exchange.page_limit).weight


def _task(kind: Kind, series: SeriesPlan, due_seconds: float) -> FetchTask:
    due_seconds = max(due_seconds + series.jitter_seconds, series.retry_seconds)
    head_start_seconds = HEAD_START_SECONDS if kind is Kind.CLOSING else 0.0
    return FetchTask(kind, due_seconds, due_seconds - head_start_seconds)


def idle_seconds_max(series: SeriesPlan, policy: PollPolicy) -> float:
    """Return how long the stream of a series may be idle before REST checks it."""
    stall_seconds = max(policy.stall_seconds, PAUSES * series.stream_pause_seconds) * 2.0**series.idle_responses
    return stall_seconds if stall_seconds <= policy.stall_seconds else min(IDLE_SECONDS_MAX, stall_seconds)


def _tail_seconds(series: SeriesPlan, policy: PollPolicy, period_seconds: float) -> float:
    """Return when the newest rows are to be requested: a period after the newest response or event."""
    if not series.is_streamed:
        return max(series.tail_sent_seconds, series.last_event_seconds) + period_seconds
    stall_seconds = idle_seconds_max(series, policy)
    # A response that shows nothing newer is as good as an event.
    pause_seconds = stall_seconds if series.idle_responses else period_seconds
    return max(series.tail_sent_seconds + pause_seconds, series.last_event_seconds + stall_seconds)


def _has_provisional(series: SeriesPlan) -> bool:
    """Return whether a series has a row that is not final, or is suspect."""
    newest_ms, unsettled_ms = series.newest_open_ms, series.unsettled_open_ms
    has_row = newest_ms is not None and unsettled_ms is not None and unsettled_ms <= newest_ms
    return has_row or series.suspect_ms is not None


def _last_seconds(series: SeriesPlan, policy: PollPolicy, now_seconds: float, now_ms: int) -> float:
    """Return when the last candle of a series that no longer trades is to be requested."""
    settled_ms = _settled_ms(series, policy) if _has_provisional(series) else series.ended_ms + policy.settle_ms
    if series.tail_sent_ms < settled_ms:
        return now_seconds + (settled_ms - now_ms) / 1000
    return (
        series.tail_sent_seconds
        + policy.settle_seconds
        + min(GIVEN_UP_SECONDS_MAX, 2.0 ** min(series.no_progress_tries, 16))
    )


def _pause_seconds(series: SeriesPlan, policy: PollPolicy, no_progress: int) -> float:
    """Return the pause after so many responses in a row that brought nothing."""
    if no_progress == 0:
        return 0.0
    longest_seconds = GIVEN_UP_SECONDS_MAX if series.given_up else NO_PROGRESS_SECONDS_MAX
    return policy.settle_seconds + min(longest_seconds, 0.25 * (2.0 ** min(no_progress - 1, 16) - 1))


def _oldest_unsettled_ms(series: SeriesPlan) -> int | None:
    oldest_ms = series.newest_open_ms if series.unsettled_open_ms is None else series.unsettled_open_ms
    return oldest_ms if oldest_ms is None or series.suspect_ms is None else min(oldest_ms, series.suspect_ms)


def _lags(series: SeriesPlan, policy: PollPolicy) -> bool:
    """Return whether a row that is not final lies too far back for a tail to contain it, as after an outage."""
    oldest_ms = _oldest_unsettled_ms(series)
    if series.newest_open_ms is None or oldest_ms is None:
        return False
    return series.newest_open_ms - oldest_ms > (policy.tail_limit - 2) * INTERVAL_MS[policy.interval]


def _settled_ms(series: SeriesPlan, policy: PollPolicy) -> int:
    """Return the exchange time from which a response makes the oldest row that is not final final."""
    oldest_ms = _oldest_unsettled_ms(series)
    assert oldest_ms is not None, "only a series with rows has one that can become final"
    wait_ms = max(policy.settle_ms, policy.late_ms) if series.is_streamed else policy.settle_ms
    return max(candle_end_ms(policy.interval, oldest_ms) + wait_ms, series.suspect_since_ms)
