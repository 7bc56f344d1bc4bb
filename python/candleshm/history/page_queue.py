"""The order in which pages are requested: newest first, some not before a moment, confirmations one per symbol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from candleshm.history.pages import Page
from candleshm.system.clock import Clock

__all__ = ["PageQueue"]

LOOK_SECONDS = 0.2


class PageQueue:
    """Pages that are to be requested. Except for `take` and `end`, call its methods while holding `changed`."""

    def __init__(self, clock: Clock, changed: threading.Condition) -> None:
        self._clock = clock
        self._changed = changed
        self._pages: list[Page] = []  # the newest last
        self._later: list[Page] = []  # not before a moment
        self._confirming: dict[str, Page] = {}  # by symbol, the page that confirms holes; one at a time
        self._in_flight = 0

    def fill(self, pages: Iterable[Page]) -> None:
        """Begin with these pages, the newest first; of one moment in the order in which they come."""
        self._pages = sorted(pages, key=lambda page: -page.end_ms)[::-1]

    def take(self, is_over: Callable[[], bool]) -> Page | None:
        """Wait for a page to request, until its `end`; None when nothing is left to do, or when `is_over`."""
        with self._changed:
            while not is_over():
                now_seconds = self._clock.monotonic_seconds()
                due = next((page for page in self._later if page.not_before_seconds <= now_seconds), None)
                if due is not None:
                    self._later.remove(due)
                elif self._pages:
                    due = self._pages.pop()
                elif not self._later and not self._in_flight:
                    return None
                if due is not None and (self.is_confirming(due) or not all(day.is_done for day in due.days)):
                    self._in_flight += 1
                    return due
                if due is None:
                    self._changed.wait(LOOK_SECONDS)
        return None

    def end(self) -> None:
        """A page that was taken has a response, or is back in the queue."""
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    def put_last(self, page: Page) -> None:
        """Request a page again after all others."""
        self._pages.insert(0, page)

    def postpone(self, page: Page, until_seconds: float) -> None:
        """Request a page again at that moment, local monotonic."""
        page.not_before_seconds = until_seconds
        self._later.append(page)

    def drop_empty(self, symbol: str, start_ms: int, begins_ms: int) -> list[Page]:
        """Remove and return the pages that end between the two: a response has shown that they hold no candle."""
        dropped = [
            page
            for page in self._pages
            if page.symbol == symbol and start_ms < page.end_ms <= begins_ms and not self.is_confirming(page)
        ]
        if dropped:
            self._pages = [page for page in self._pages if page not in dropped]
        return dropped

    def confirm(self, page: Page, until_seconds: float) -> None:
        """Request at that moment the page that confirms what its symbol does not have."""
        self._confirming[page.symbol] = page
        self.postpone(page, until_seconds)

    def is_confirming(self, page: Page) -> bool:
        """Whether the page confirms what its symbol does not have."""
        return self._confirming.get(page.symbol) is page

    def has_confirmation(self, symbol: str) -> bool:
        """Whether a page is on its way that confirms what this symbol does not have."""
        return symbol in self._confirming

    def end_confirmation(self, page: Page) -> None:
        """Let another page of that symbol confirm, if this one did."""
        if self.is_confirming(page):
            del self._confirming[page.symbol]
