"""What the core of a replay asks for its rows."""

from __future__ import annotations

from candleshm import _core
from candleshm.errors import CandleShmError
from candleshm.replaying.day_rows import DayRows

__all__ = ["Source"]


class Source:
    """The rows of a replay, of its interval and of 1s, as its core asks for them."""

    def __init__(self, base: DayRows, seconds: DayRows | None) -> None:
        """Nothing is read yet."""
        self.base = base
        self.failure: CandleShmError | None = None
        """What went wrong while files were read; the replay has ended then."""
        self._seconds = seconds

    def more(self, core: _core.Replay, moment_ms: int) -> int:
        """Give rows until those of `moment_ms` are given, and return up to when all are. Raises as `DayRows.give`."""
        base, seconds = self.base, self._seconds
        try:
            while base.given_ms <= moment_ms and not base.is_done:
                base.give(core)
            while seconds is not None and seconds.given_ms < base.given_ms:
                seconds.give(core, is_inside=True)
        except CandleShmError as error:
            self.failure = error
            raise
        return base.given_ms

    def close(self) -> None:
        """End the reading. May be called twice."""
        self.base.close()
        if self._seconds is not None:
            self._seconds.close()
