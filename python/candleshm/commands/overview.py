"""All blocks of this machine in one table, the ones that need attention first."""

from __future__ import annotations

from collections.abc import Sequence

from candleshm.commands.screen import Screen
from candleshm.commands.table import aligned
from candleshm.reader.figures import age, kind_of, lag_of, role_of
from candleshm.reader.health import Health
from candleshm.reader.notes import note

__all__ = ["Overview"]

HEADS = ("#", "NAME", "MARKET", "INTERVAL", "SYMBOLS", "STALE", "OLDEST", "MISSING", "WEIGHT", "STATE", "NOTE")
CLUSTER_HEADS = ("ROLE", "SOURCE", "LAG")
LEFT = ("NAME", "MARKET", "ROLE", "SOURCE", "STATE", "NOTE")
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
        heads = (*HEADS[:-2], *CLUSTER_HEADS, *HEADS[-2:]) if is_clustered else HEADS
        cells = [_row(place, health, is_clustered=is_clustered) for place, health in enumerate(shown, 1)]
        head, *lines = aligned(heads, cells, left=LEFT).splitlines()
        rows = [
            line if health.condition in CALM else screen.alarm(line) for line, health in zip(lines, shown, strict=True)
        ]
        if screen.height is not None and len(rows) > (room := max(1, screen.height - 3 - len(below))):
            rows = [*rows[: room - 1], screen.faint(f"and {len(rows) - room + 1} more in no worse state")]
        return [title, "", screen.heading(head), *rows, *below]

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
        kind_of(health),
        health.interval,
        str(health.symbols),
        str(health.stale),
        age(health.oldest_age),
        f"{health.missing:,}",
        f"{health.weight_used}/{health.weight_limit}",
        *((role_of(health), health.source or "", lag_of(health)) if is_clustered else ()),
        health.condition,
        note(health),
    )
