"""The table of a block's series, one in a line, as `top` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from candleshm.commands.screen import Screen
from candleshm.reader.figures import age, change, price
from candleshm.reader.observation import SeriesFacts

__all__ = ["SeriesTable"]

NAME_WIDTH = 12
# The last columns with their widths, and in which order a narrow terminal does without them.
LAST = {"HOLES": 6, "REV": 5, "BY": 10}
FIRST_TO_GO = ("REV", "BY", "HOLES")


class SeriesTable:
    """The head and the rows of one frame, with as many columns as the terminal has room for."""

    def __init__(
        self, screen: Screen, series: Sequence[SeriesFacts], max_age_seconds: float, *, has_report: bool
    ) -> None:
        """Series older than `max_age_seconds` are marked. Who keeps one fresh is shown where there is a report."""
        self._screen = screen
        self._max_age_seconds = max_age_seconds
        self._name_width = max([NAME_WIDTH, *(len(facts.symbol) for facts in series)])
        first = f"{'LIVE CLOSE':>16} {'CHANGE':>10} {'AGE':>8}  {'STATE':<8} {'MISSING':>7}"
        head = f"{'SYMBOL':<{self._name_width}} {first}"
        self._last = [name for name in LAST if has_report or name != "BY"]
        for name in FIRST_TO_GO:
            width = len(head) + sum(LAST[each] for each in self._last)
            if screen.width is not None and width > screen.width:
                self._last = [each for each in self._last if each != name]
        self.head = f"{head}{self._last_of({name: name for name in LAST})}"
        """The line above the rows."""

    def row(self, facts: SeriesFacts, source: str) -> str:
        """Return the line of a series, which `source` keeps fresh."""
        screen = self._screen
        name = f"{facts.symbol:<{self._name_width}}"
        age_text = f"{age(facts.age_seconds):>8}"
        missing = f"{facts.missing or '-':>7}"
        cells = {"HOLES": str(facts.holes or "-"), "REV": str(facts.revision or "-"), "BY": source}
        last = self._last_of(cells).rstrip()
        if not facts.trading:
            return screen.faint(
                f"{name} {price(facts.close):>16} {'-':>10} {age_text}  {'delisted':<8} {missing}{last}"
            )
        is_stale = facts.is_stale(self._max_age_seconds)
        return (
            f"{screen.alarm(name) if is_stale else name} {price(facts.close):>16} "
            f"{screen.signed(change(facts.change), facts.change)} {screen.alarm(age_text) if is_stale else age_text}  "
            f"{facts.state:<8} {screen.alarm(missing) if facts.missing else missing}{last}"
        )

    def _last_of(self, cells: Mapping[str, str]) -> str:
        """Return the last columns of a line."""
        right = "".join(f"{cells[name]:>{LAST[name]}}" for name in self._last if name != "BY")
        return f"{right}  {cells['BY']}" if "BY" in self._last else right
