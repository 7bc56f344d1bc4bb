"""When nobody waits for a series any longer, and when one that was refused is asked again. Pure.

A start waits until every series is loaded or given up. A series is given up when three requests in a row fail, or when
its answers, valid as each may be, do not complete its window. It is still requested, at growing intervals of
at most an hour, and counts as loaded as soon as it is.
"""

from __future__ import annotations

import math

from candleshm.collector.planner import PollPolicy, SeriesPlan
from candleshm.exchanges.base import Exchange

__all__ = ["FAILURES_MAX", "hopeless", "limited_delay_seconds", "refused_delay_seconds", "tries_max"]

FAILURES_MAX = 3
# Requests in a row that brought nothing. A hole takes two answers, so this leaves room for servers of different minds.
IDLE_MAX = 6
# A window may take so many times the pages that it has, as when a front cuts the pages short, and some more.
PAGES_FACTOR = 10
TRIES_MIN = 20

# A refusal may be a mistake of one server, so a start tries again soon. Later it is asked in pauses that double.
REFUSED_AGAIN_SECONDS = 1.0
REFUSED_SECONDS = 300.0
REFUSED_SECONDS_MAX = 3600.0
# A 429 stops the whole pool. Whoever gets one again and again waits behind the others, so that they have their turns.
LIMITED_SECONDS = 5.0


def tries_max(exchange: Exchange, cadence: PollPolicy) -> int:
    """Return how many requests the first load of a series may take."""
    # Any moment will do: where a page is bounded by time as well, it is so wherever it lies.
    page = exchange.until("", cadence.interval, exchange.page_limit, 2**41)
    return TRIES_MIN + PAGES_FACTOR * math.ceil((cadence.length + 1) / page.limit)


def hopeless(plan: SeriesPlan, most_tries: int) -> str | None:
    """Return why nobody should wait any longer for a series to be loaded, None while there is hope."""
    if plan.failures >= FAILURES_MAX:
        return f"{plan.failures} requests in a row failed"
    if plan.idle >= IDLE_MAX:
        return f"{plan.idle} answers in a row brought none of the {plan.missing} candles that are missing"
    if plan.tries >= most_tries:
        return f"{plan.tries} answers left {plan.missing} candles missing"
    return None


def refused_delay_seconds(plan: SeriesPlan) -> float:
    """Return when to ask again for a series whose newest request was refused for good."""
    if not plan.loaded and plan.failures < FAILURES_MAX:
        return REFUSED_AGAIN_SECONDS * plan.failures
    before = plan.failures - (1 if plan.loaded else FAILURES_MAX)
    return min(REFUSED_SECONDS_MAX, REFUSED_SECONDS * 2.0 ** min(max(0, before), 16))


def limited_delay_seconds(plan: SeriesPlan) -> float:
    """Return how long after the end of a stop of the pool to ask for a series whose request brought the stop about."""
    return min(REFUSED_SECONDS_MAX, LIMITED_SECONDS * 2.0 ** min(plan.failures - 2, 16)) if plan.failures > 1 else 0.0
