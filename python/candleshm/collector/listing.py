"""When the exchange's list of symbols is read again, and whether it is used. Pure.

The list is long, and expensive on SPOT, so it is read rarely while nothing happens. Whatever it may explain makes it be
read sooner: a series that lags behind the clock, a symbol that is refused as unknown, a symbol that stopped trading and
may come back. The longer such a reason lasts, the less often.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from candleshm.exchanges.base import ExchangeInfo
from candleshm.universe import implausibility

__all__ = ["Listing"]

# The list is not read again sooner, whatever the reason; and lists may take this part of the weight.
PAUSE_SECONDS = 30.0
WEIGHT_PART = 0.02
# A reason that has lasted for a while is worth another look after this part of that time.
AGE_PART = 0.1
# A list that cannot be believed is asked for again this late. It is believed once it has said the same for so long, and
# so often; one without any symbol never is.
SUSPECT_SECONDS = 60.0
BELIEVED_SECONDS = 300.0
BELIEVED_COUNT = 5


class Listing:
    """Belongs to the loop. Local seconds."""

    def __init__(self, refresh_seconds: float, weight: int, now_seconds: float) -> None:
        self._refresh_seconds = refresh_seconds
        self._weight = weight
        self._asked_seconds = now_seconds
        self._is_new = True  # nothing was read since the start
        self._wished = False
        self._suspect: ExchangeInfo | None = None
        self._suspect_count = 0
        self._suspect_seconds = 0.0
        self._wary_seconds = 0.0

    def ask(self, now_seconds: float) -> None:
        """Note that a request for the list leaves."""
        self._asked_seconds, self._is_new, self._wished = now_seconds, False, False

    def wish(self) -> None:
        """Let it be read again as soon as it may."""
        self._wished = True

    def due_seconds(self, since_seconds: Iterable[float], budget: int, window_seconds: float) -> float:
        """Return when to read it. `since_seconds` says since when each reason to look lasts.

        `budget` is the weight that may be spent in a window.
        """
        asked_seconds = self._asked_seconds
        least_seconds = max(PAUSE_SECONDS, window_seconds * self._weight / (WEIGHT_PART * budget))
        pause_seconds = self._refresh_seconds
        if self._wary_seconds:
            pause_seconds = min(pause_seconds, self._wary_seconds)
        for since in since_seconds:
            pause_seconds = min(pause_seconds, max(least_seconds, AGE_PART * (asked_seconds - since)))
        if self._wished:
            pause_seconds = min(pause_seconds, 0.0 if self._is_new else least_seconds)
        return asked_seconds + pause_seconds

    def judge(
        self,
        believed: ExchangeInfo,
        newer: ExchangeInfo,
        *,
        lagging: Collection[str],
        going_on: Collection[str],
        now_seconds: float,
    ) -> tuple[str | None, bool]:
        """Return what is odd about a newer list, None when nothing is; and whether it is used.

        The candles may bear an odd one out: those of `lagging` are late, those of `going_on` are not.
        """
        reason = implausibility(believed, newer)
        if reason is None:
            self._suspect = None
            # What was lost all at once may come back all at once.
            self._wary_seconds = self._wary_seconds * 2 if self._wary_seconds < self._refresh_seconds else 0.0
            return None, True
        if self._suspect is None or implausibility(self._suspect, newer) is not None:
            self._suspect_count, self._suspect_seconds = 0, now_seconds
        self._suspect = newer
        self._suspect_count += 1
        self._wary_seconds = SUSPECT_SECONDS
        has_lasted = now_seconds - self._suspect_seconds >= BELIEVED_SECONDS and self._suspect_count >= BELIEVED_COUNT
        lost = {symbol for symbol in believed.statuses if believed.is_trading(symbol) and not newer.is_trading(symbol)}
        is_borne_out = not lost.isdisjoint(lagging) and lost.isdisjoint(going_on)
        is_believed = bool(newer.statuses) and (has_lasted or is_borne_out)
        if is_believed:
            self._suspect = None
        return reason, is_believed
