"""A log that writes equal lines less and less often."""

from __future__ import annotations

from candleshm.system.block_log import BlockLog, is_worth_logging

__all__ = ["RepeatedLog"]

# A kind of line that was not logged for so long starts over.
FORGET_SECONDS = 600.0


class RepeatedLog:
    """Logs a kind of line the 1st, 2nd, 4th, 8th ... time: a lasting fault costs a few lines, not one a second."""

    def __init__(self, log: BlockLog) -> None:
        self._log = log
        self._counts: dict[str, tuple[int, float]] = {}

    def count(self, kind: str, now_seconds: float) -> int:
        """Count one more line of a kind; return their number if this one is to be logged, else 0."""
        count, last_seconds = self._counts.get(kind, (0, now_seconds))
        count = 1 if now_seconds - last_seconds > FORGET_SECONDS else count + 1
        self._counts[kind] = (count, now_seconds)
        return count if is_worth_logging(count) else 0

    def write(self, level: int, kind: str, now_seconds: float, text: str, *arguments: object) -> None:
        """Log a line unless its kind was logged often already."""
        count = self.count(kind, now_seconds)
        if count == 1:
            self._log.log(level, text, *arguments)
        elif count:
            self._log.log(level, text + "; %d times so far", *arguments, count)
