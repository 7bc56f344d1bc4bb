"""Which series are shown, and in which order, as chosen by keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from candleshm.reader.observation import SeriesFacts

__all__ = ["Selection", "by_attention"]

# Ages are compared in steps of so many seconds, or fresh series would change places with every frame.
AGE_STEP_SECONDS = 5.0
FILTER, ORDER, ENTER, ESCAPE, BACKSPACE = "/", "s", "\r\n", "\x1b", "\x7f\b"
TEXT_MAX = 32

Rank = Callable[[SeriesFacts], object]


def by_attention(max_age_seconds: float) -> Rank:
    """Return the order in which those that need attention stand first: empty, stale, incomplete, then by age."""

    def rank(facts: SeriesFacts) -> tuple[bool, float, int, float]:
        age_steps = facts.age_seconds if facts.is_empty else facts.age_seconds // AGE_STEP_SECONDS
        is_late = facts.is_empty or facts.is_stale(max_age_seconds)
        return not facts.trading, -age_steps if is_late else 0.0, -facts.missing, -age_steps

    return rank


def _falling(value: float) -> float:
    return math.inf if math.isnan(value) else -value


class Selection:
    """`s` goes on to the next order; `/` and a text show only the symbols that contain it, until Esc."""

    def __init__(self, max_age_seconds: float) -> None:
        self._orders: Mapping[str, Rank] = {
            "attention": by_attention(max_age_seconds),
            "symbol": lambda facts: facts.symbol,
            "change": lambda facts: _falling(facts.change),
            "age": lambda facts: (not facts.trading, -facts.age_seconds),
            "missing": lambda facts: (-facts.missing, -facts.holes),
        }
        self._order = "attention"
        self._text = ""
        self.is_typing = False
        """Whether keys belong to the text."""

    @property
    def hint(self) -> str:
        """What is chosen, and by which keys that changes."""
        if self.is_typing:
            return f"symbols with: {self._text}_   Enter: keep; Esc: all"
        shown = f", symbols with {self._text}" if self._text else ""
        return f"by {self._order}{shown}   s: order; /: search"

    def type(self, keys: str) -> None:
        """Take what was typed."""
        for key in keys:
            if key == ESCAPE:
                self._text, self.is_typing = "", False
            elif not self.is_typing:
                self._choose(key)
            elif key in ENTER:
                self.is_typing = False
            elif key in BACKSPACE:
                self._text = self._text[:-1]
            elif key.isprintable() and len(self._text) < TEXT_MAX:
                self._text += key.upper()

    def of(self, series: Iterable[SeriesFacts]) -> list[SeriesFacts]:
        """Return the series that are chosen, in order."""
        return sorted((facts for facts in series if self._text in facts.symbol), key=self._orders[self._order])  # type: ignore[arg-type]

    def _choose(self, key: str) -> None:
        if key == FILTER:
            self._text, self.is_typing = "", True
        elif key == ORDER:
            names = list(self._orders)
            self._order = names[(names.index(self._order) + 1) % len(names)]
