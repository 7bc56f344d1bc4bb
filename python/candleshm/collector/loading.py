"""When a start is over: every series is loaded or given up for now.

A series is given up when three requests in a row fail, or when its responses, valid as each may be, do not complete its
window. It is still requested, at growing intervals of at most an hour, and counts as loaded as soon as it is.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable

from candleshm.collector.series_plan import PollPolicy, SeriesPlan
from candleshm.collector.status import CollectorStatus
from candleshm.exchanges.base import Exchange
from candleshm.system.block_log import BlockLog
from candleshm.system.log_text import counted

__all__ = [
    "FAILURES_MAX",
    "Loading",
    "gives_up",
    "hopeless",
    "limited_delay_seconds",
    "refused_delay_seconds",
    "tries_max",
]

FAILURES_MAX = 3
# Requests in a row that brought nothing. A hole takes two responses, so this leaves room for servers that disagree.
IDLE_MAX = 6
# A window may take this many times the pages that it has, as when a relay cuts pages short, and some more.
PAGES_FACTOR = 10
TRIES_MIN = 20

# A refusal may be a mistake of one server, so a start tries again soon. Later the pauses double.
REFUSED_AGAIN_SECONDS = 1.0
REFUSED_SECONDS = 300.0
REFUSED_SECONDS_MAX = 3600.0
# A 429 stops the whole pool. A series that gets one again and again waits behind the others.
LIMITED_SECONDS = 5.0


def tries_max(exchange: Exchange, policy: PollPolicy) -> int:
    """Return how many requests the first load of a series may take."""
    # Any time will do: the bound of a page does not depend on where the page lies.
    page = exchange.until("", policy.interval, exchange.page_limit, 2**41)
    return TRIES_MIN + PAGES_FACTOR * math.ceil((policy.length + 1) / page.limit)


def hopeless(plan: SeriesPlan, most_tries: int) -> str | None:
    """Return why a start should not wait any longer for a series, None while it should."""
    if plan.failures >= FAILURES_MAX:
        return f"{plan.failures} requests in a row failed"
    if plan.no_progress_tries >= IDLE_MAX:
        return f"{plan.no_progress_tries} responses in a row brought none of the {plan.missing} missing candles"
    if plan.tries >= most_tries:
        return f"{plan.tries} responses left {plan.missing} candles missing"
    return None


def gives_up(plan: SeriesPlan, most_tries: int) -> str | None:
    """Give a series up that cannot be loaded, and return why; None where it is not, or was before."""
    reason = None if plan.loaded or plan.given_up else hopeless(plan, most_tries)
    if reason is not None:
        plan.given_up = True
    return reason


def refused_delay_seconds(plan: SeriesPlan) -> float:
    """Return the pause before a series is requested again whose newest request was refused."""
    if not plan.loaded and plan.failures < FAILURES_MAX:
        return REFUSED_AGAIN_SECONDS * plan.failures
    before = plan.failures - (1 if plan.loaded else FAILURES_MAX)
    return min(REFUSED_SECONDS_MAX, REFUSED_SECONDS * 2.0 ** min(max(0, before), 16))


def limited_delay_seconds(plan: SeriesPlan) -> float:
    """Return how long after a stop of the pool the series is requested whose request caused it."""
    return min(REFUSED_SECONDS_MAX, LIMITED_SECONDS * 2.0 ** min(plan.failures - 2, 16)) if plan.failures > 1 else 0.0


class Loading:
    """The start of a collector. Belongs to the loop; `done` and `filled` may be waited for by any thread."""

    def __init__(self, block_name: str, are_filled: Callable[[], bool]) -> None:
        """`are_filled` returns whether derived blocks have their older rows as well."""
        self._log = BlockLog(logging.getLogger(__name__), block_name)
        self._are_filled = are_filled
        self.done = threading.Event()
        self.filled = threading.Event()

    def ends_with(self, plans: Iterable[SeriesPlan]) -> bool:
        """Return whether the start is over now, and was not before."""
        return not self.done.is_set() and all(plan.loaded or plan.given_up for plan in plans)

    def fills_now(self) -> bool:
        """Return whether derived blocks are filled after the start, and were not before."""
        return self.done.is_set() and not self.filled.is_set() and self._are_filled()

    def end(self, status: CollectorStatus) -> None:
        """Log the end of the start, and let waiting threads go on."""
        missing = f"; given up for now: {' '.join(status.given_up)}" if status.given_up else ""
        if status.symbols:  # A standby of a cluster requests none.
            self._log.info("loaded %d of %s%s", status.loaded, counted(status.symbols, "symbol"), missing)
        self.done.set()
