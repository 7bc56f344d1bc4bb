"""All blocks of this machine in one table, the ones that need attention first."""

from __future__ import annotations

from collections.abc import Sequence

from candleshm.commands.screen import Screen
from candleshm.commands.table import fitted
from candleshm.reader.figures import age, kind_of, lag_of, role_of
from candleshm.reader.health import Health
from candleshm.reader.notes import note

__all__ = ["Overview"]

HEADS = ("#", "NAME", "STATE", "MARKET", "INTERVAL", "SYMBOLS", "STALE", "OLDEST", "MISSING", "WEIGHT")
CLUSTER_HEADS = ("ROLE", "SOURCE", "LAG")
REMARKS = "NOTE"
LEFT = ("NAME", "STATE", "MARKET", "ROLE", "SOURCE", REMARKS)
# What a narrow terminal does without, in this order: what one block shows in full, then what its name says.
FIRST_TO_GO = ("WEIGHT", "SYMBOLS", "SOURCE", "INTERVAL", "MARKET", "MISSING", "ROLE", "LAG")
# The words for blocks about which nothing is to be done.
CALM = {"ready", "loading", "replay"}


class Overview:
    """The frames of all blocks. A number that is typed stands for the block in that line."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._names: tuple[str, ...] = ()
        self._typed = ""

    def frame(self, blocks: Sequence[Health], unreadable: Sequence[str]) -> list[str]:
        """Return the lines for these blocks, and for what is to be said of those that cannot be read."""
        screen = self._screen
        shown = sorted(blocks, key=lambda health: (health.condition in CALM, health.name))
        self._names = tuple(health.name for health in shown)
        bad = sum(health.condition not in CALM for health in shown)
        title = f"{screen.strong(str(len(shown)))} blocks, {sum(health.symbols for health in shown):,} series"
        title += f", {screen.alarm(f'{bad} need attention') if bad else screen.signed('all well', 1)}"
        if screen.is_terminal:
            title += screen.faint(f"   number and Enter: one block; q: end   {self._typed}".rstrip())
        below = [screen.alarm(line) for line in unreadable]
        if not shown:
            return [title, "", "no blocks; `candleshm serve` or `candleshm demo` makes some", *below]
        is_clustered = any(health.source is not None for health in shown)
        head, *lines = fitted(
            (*HEADS, *(CLUSTER_HEADS if is_clustered else ()), REMARKS),
            [_row(place, health, is_clustered=is_clustered) for place, health in enumerate(shown, 1)],
            left=LEFT,
            width=screen.width,
            first_to_go=FIRST_TO_GO,
            narrowed="NAME",
        )
        rows = [
            lines_of if health.condition in CALM else [screen.alarm(line) for line in lines_of]
            for lines_of, health in zip(lines, shown, strict=True)
        ]
        table = self._cut(rows, len(below))
        return [title, "", screen.heading(head[0]), *table, *below]

    def _cut(self, rows: Sequence[Sequence[str]], below: int) -> list[str]:
        """Return the lines of as many rows as the terminal has room for above `below` further lines."""
        screen = self._screen
        lines = [line for lines_of in rows for line in lines_of]
        if screen.height is None or len(lines) <= (room := max(1, screen.height - 3 - below)):
            return lines
        shown, cut = 0, list[str]()
        while len(cut) + len(rows[shown]) < room:
            cut += rows[shown]
            shown += 1
        return [*cut, screen.faint(f"and {len(rows) - shown} more in no worse state")]

    def chosen(self, typed: str) -> str | None:
        """Return the name of the block that was chosen by what is typed, None while none is."""
        for key in typed:
            if key in "\r\n":
                place, self._typed = self._typed, ""
                if place and 1 <= int(place) <= len(self._names):
                    return self._names[int(place) - 1]
            elif key.isascii() and key.isdigit():
                self._typed += key
            else:
                self._typed = ""
        return None


def _row(place: int, health: Health, *, is_clustered: bool) -> tuple[str, ...]:
    return (
        str(place),
        health.name,
        health.condition,
        kind_of(health),
        health.interval,
        str(health.symbols),
        str(health.stale),
        age(health.oldest_age),
        f"{health.missing:,}",
        f"{health.weight_used}/{health.weight_limit}",
        *((role_of(health), health.source or "", lag_of(health)) if is_clustered else ()),
        note(health),
    )
