"""All blocks of this machine in one table, the ones that need attention first."""

from __future__ import annotations

from collections.abc import Sequence

from candleshm.commands.screen import Screen
from candleshm.commands.table import aligned
from candleshm.reader.figures import age
from candleshm.reader.health import Health
from candleshm.reader.notes import note

__all__ = ["Overview"]

HEADS = ("#", "NAME", "MARKET", "INTERVAL", "SYMBOLS", "STALE", "OLDEST", "MISSING", "WEIGHT", "STATE", "NOTE")
LEFT = ("NAME", "MARKET", "STATE", "NOTE")
# The words for blocks about which nothing is to be done.
CALM = {"ready", "loading"}


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
        lines = [f"{title}, {screen.alarm(f'{bad} need attention') if bad else screen.signed('all well', 1)}", ""]
        if shown:
            head, *rows = aligned(
                HEADS, [_row(place, health) for place, health in enumerate(shown, 1)], left=LEFT
            ).splitlines()
            lines.append(screen.heading(head))
            painted = [
                row if health.condition in CALM else screen.alarm(row) for row, health in zip(rows, shown, strict=True)
            ]
            lines += _cut(painted, self._room(len(lines) + len(unreadable)))
        else:
            lines.append("no blocks; `candleshm serve` or `candleshm demo` makes some")
        lines += [screen.alarm(line) for line in unreadable]
        if screen.is_terminal:
            lines += [
                "",
                screen.faint(f"number and Enter: one block; q: end{f'   {self._typed}' if self._typed else ''}"),
            ]
        return lines

    def _room(self, others: int) -> int | None:
        """Return how many blocks fit beside other lines and the hint; None when any number does."""
        return None if self._screen.height is None else max(2, self._screen.height - others - 2)

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


def _cut(rows: list[str], room: int | None) -> list[str]:
    if room is None or len(rows) <= room:
        return rows
    return [*rows[: room - 1], f"and {len(rows) - room + 1} more; a larger terminal or `candleshm ls` shows all"]


def _row(place: int, health: Health) -> tuple[str, ...]:
    return (
        str(place),
        health.name,
        health.market,
        health.interval,
        str(health.symbols),
        str(health.stale),
        age(health.oldest_age),
        f"{health.missing:,}",
        f"{health.weight_used}/{health.weight_limit}",
        health.condition,
        note(health),
    )
