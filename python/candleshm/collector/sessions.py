"""The sessions of the markets behind TradFi perpetuals, as far as the exchange told them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from candleshm.exchanges.base import ScheduledSession

__all__ = ["NO_TRADING", "Sessions"]

NO_TRADING = "NO_TRADING"
# A schedule has two weeks at most; older sessions are kept for as long, so that their absent rows stay explained.
KEPT_MS = 60 * 86_400_000


class Sessions:
    """Each market's sessions, in order: those of the newest schedule, and older ones that it no longer has."""

    def __init__(self) -> None:
        self._markets: dict[str, tuple[ScheduledSession, ...]] = {}

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets whose sessions are known."""
        return tuple(self._markets)

    def take(self, schedule: Mapping[str, tuple[ScheduledSession, ...]]) -> None:
        """Take in a schedule."""
        for market, sessions in schedule.items():
            if sessions:
                first_ms, last_ms = sessions[0].start_ms, sessions[-1].end_ms
                older = [
                    session
                    for session in self._markets.get(market, ())
                    if session.end_ms <= first_ms and session.end_ms > last_ms - KEPT_MS
                ]
                self._markets[market] = (*older, *sessions)

    def name_of(self, market: str) -> str | None:
        """Return the market as the schedule names it, None when it has none: equities of the US need no country."""
        names = (market, f"US_{market}", market.removeprefix("US_"))
        return next((name for name in names if name in self._markets), None)

    def at(self, market: str, now_ms: int) -> ScheduledSession | None:
        """Return the session of a market at `now_ms`, exchange time."""
        for session in self._markets.get(market, ()):
            if session.start_ms <= now_ms < session.end_ms:
                return session
        return None

    def quiet_ms(self, market: str) -> list[tuple[int, int]]:
        """Return when a market does not trade, as half-open ranges in order; those that touch are one."""
        ranges: list[tuple[int, int]] = []
        for session in self._markets.get(market, ()):
            if session.kind != NO_TRADING:
                continue
            if ranges and session.start_ms <= ranges[-1][1]:
                ranges[-1] = (ranges[-1][0], max(ranges[-1][1], session.end_ms))
            else:
                ranges.append((session.start_ms, session.end_ms))
        return ranges

    def quiet_until_ms(self, market: str, now_ms: int) -> int:
        """Return the end of the newest stretch without trading that has begun by `now_ms`; 0 without any."""
        return max((end_ms for start_ms, end_ms in self.quiet_ms(market) if start_ms <= now_ms), default=0)
