"""Which symbols have no flowing stream, since when, and which lines the log gets. Pure: no clock, no log.

A symbol whose stream stalled, or lost its connection, is down until data flows for it again: a new connection or
another subscription is no recovery. A time in which any symbol is down is an outage; the log has one line at its start,
one at its end and a few between them, however often streams stop and flow meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

__all__ = ["Line", "Outage"]

SUMMARY_SECONDS = 300.0
# Everything has to flow for so long before an outage is over; twice as long after each that came soon after another.
CALM_SECONDS, CALM_SECONDS_MAX = 5.0, 300.0
SOON_SECONDS = 600.0
NAMES_SHOWN = 20


class Line(NamedTuple):
    """A line for the log."""

    is_warning: bool
    text: str


class Outage:
    """The symbols of one feed that are down."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}
        """The symbols that are down now, and since when."""
        self._began_seconds = self._flowed_seconds = self._logged_seconds = -math.inf
        self._ended_seconds = -math.inf
        self._lasts = False
        self._logged = 0
        self._calm_seconds = CALM_SECONDS

    def look(
        self,
        failed: Mapping[str, str],
        last_event_seconds: Mapping[str, float],
        wanted: Collection[str],
        idle: Collection[str],
        now_seconds: float,
    ) -> list[Line]:
        """Take in which streams do not flow, by symbol and with the reason; return the lines for the log.

        `idle` are symbols that may send nothing: on a connection that brings data for others.
        """
        for symbol, since in list(self.since.items()):
            flows = last_event_seconds.get(symbol, -math.inf) > since
            if symbol not in wanted or (symbol not in failed and (flows or symbol in idle)):
                del self.since[symbol]
        for symbol in failed:
            if symbol in wanted:
                self.since.setdefault(symbol, now_seconds)
        if self.since:
            self._flowed_seconds = math.inf
            return self._down(failed, len(wanted), now_seconds)
        self._flowed_seconds = min(self._flowed_seconds, now_seconds)
        if self._lasts and now_seconds - self._flowed_seconds >= self._calm_seconds:
            self._lasts, self._ended_seconds = False, now_seconds
            lasted_seconds = self._flowed_seconds - self._began_seconds
            return [Line(is_warning=False, text=f"every stream flows again, after {lasted_seconds:.0f} s")]
        return []

    def _down(self, failed: Mapping[str, str], wanted: int, now_seconds: float) -> list[Line]:
        count = len(self.since)
        if not self._lasts:
            is_soon = now_seconds - self._ended_seconds < SOON_SECONDS
            self._calm_seconds = min(2 * self._calm_seconds, CALM_SECONDS_MAX) if is_soon else CALM_SECONDS
            self._lasts, self._began_seconds, self._logged = True, now_seconds, 0
        is_more = count >= 2 * self._logged
        if not is_more and now_seconds - self._logged_seconds < SUMMARY_SECONDS:
            return []
        self._logged, self._logged_seconds = max(count, self._logged), now_seconds
        names = sorted(self.since)
        shown = " ".join(names[:NAMES_SHOWN]) + (" ..." if count > NAMES_SHOWN else "")
        reason = next((failed[name] for name in names if name in failed), "no data has arrived since")
        for_seconds = now_seconds - self._began_seconds
        since = f" for {for_seconds:.0f} s" if for_seconds >= 1 else ""
        text = f"{count} of {wanted} streams are stalled{since}: {shown} ({reason})"
        return [Line(is_warning=True, text=f"{text}; requested by REST meanwhile (failover)")]
