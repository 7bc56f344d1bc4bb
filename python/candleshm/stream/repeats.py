"""Which of many lines that say the same are worth saying. Pure: times go in, judgements come out."""

from __future__ import annotations

__all__ = ["Repeats"]

# What did not happen for so long begins anew.
FORGET_SECONDS = 600.0


class Repeats:
    """Says a thing the first time, then the 2nd, 4th, 8th: a fault that stands costs a few lines, not one a second."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}

    def count(self, kind: str, now_seconds: float) -> int:
        """Count one more of a kind; return how many there were if this one is to be said, else 0."""
        count, last_seconds = self._counts.get(kind, (0, now_seconds))
        count = 1 if now_seconds - last_seconds > FORGET_SECONDS else count + 1
        self._counts[kind] = (count, now_seconds)
        return 0 if count & (count - 1) else count
