"""Progress of a start or a download: a bar on a terminal, a log line every five seconds elsewhere, more rarely if
it says nothing new.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from candleshm.collector.status import CollectorStatus
from candleshm.commands.log import ERASE_LINE
from candleshm.system.log_text import counted

__all__ = ["LoadingProgress", "ProgressLine"]

logger = logging.getLogger(__name__)

BAR_WIDTH_MIN, BAR_WIDTH_MAX = 8, 30
LINES_SECONDS, LINES_SECONDS_MAX = 5.0, 3600.0


class ProgressLine:
    """One line on stderr with the progress of a task; a context manager that erases it at the end."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._stream = sys.stderr
        self._is_terminal = sys.stderr.isatty()
        self._logged, self._logged_seconds = "", time.monotonic()
        self._pause_seconds = LINES_SECONDS

    def show(self, share: float | None, text: str, parts: Sequence[str] = ()) -> None:
        """Show `text`, and the share that is done as a bar and in percent where it is known.

        Where lines are logged, `parts` are logged instead, if there are any.
        """
        if share is not None:
            text = f"{share:4.0%}  {text}"
        if self._is_terminal:
            bar = ""
            if share is not None:
                room = shutil.get_terminal_size().columns - len(f"{self._doing} [] {text}") - 1
                width = min(max(room, BAR_WIDTH_MIN), BAR_WIDTH_MAX)
                filled = round(share * width)
                bar = f"[{'#' * filled}{' ' * (width - filled)}] "
            self._write(f"{self._doing} {bar}{text}")
        else:
            # What says nothing new comes at growing intervals.
            is_new, now = text != self._logged, time.monotonic()
            if now - self._logged_seconds < (LINES_SECONDS if is_new else self._pause_seconds):
                return
            self._pause_seconds = min(2 * (LINES_SECONDS if is_new else self._pause_seconds), LINES_SECONDS_MAX)
            self._logged, self._logged_seconds = text, now
            for line in parts or (text.strip(),):
                logger.info("%s: %s", self._doing, line)

    def __enter__(self) -> Self:
        if self._is_terminal:
            self._write("connecting")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.erase()

    def erase(self) -> None:
        """Erase the line, so that other text can take its place."""
        if self._is_terminal:
            self._write("")

    def _write(self, text: str) -> None:
        # The terminal may have been closed.
        with suppress(OSError):
            self._stream.write(f"{ERASE_LINE}{text}")
            self._stream.flush()


class LoadingProgress(ProgressLine):
    """Shows the progress of the collectors whose statuses it is called with."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        """`lengths` are the candles of a full window, by the name of the block."""
        super().__init__("loading")
        self._lengths = lengths

    def __call__(self, statuses: Mapping[str, CollectorStatus | None]) -> None:
        """Show the progress of all feeds together, in a log of each that loads; one without a status does not count."""
        known = {name: status for name, status in statuses.items() if status is not None}
        if known and not any(status.symbols for status in known.values()):
            self.show(None, "waiting for the rows of other hosts")
            return
        parts = [
            f"{name}: {self._share([name], [status]):.0%}  {_text([status])}"
            for name, status in known.items()
            if len(known) > 1 and not (status.is_loaded and status.is_filled)
        ]
        self.show(self._share(known, known.values()), _text(known.values()), parts)

    def _share(self, names: Iterable[str], statuses: Collection[CollectorStatus]) -> float:
        missing, total = 0, 0
        for name, status in zip(names, statuses, strict=True):
            missing += status.missing
            total += status.symbols * self._lengths[name]
        if not missing and (series := sum(status.derived_series for status in statuses)):
            return sum(status.derived_filled + status.derived_given_up for status in statuses) / series
        return 1 - missing / total if total else 1.0


def _text(statuses: Collection[CollectorStatus]) -> str:
    """Return symbols, rows, weight and time that are left; of several feeds the least weight and the longest time.

    Once all symbols are loaded, the older rows of derived blocks follow.
    """
    loaded, symbols = sum(status.loaded for status in statuses), sum(status.symbols for status in statuses)
    words = [f"{loaded} of {counted(symbols, 'symbol')}", f"{sum(status.rows for status in statuses):,} rows"]
    series = sum(status.derived_series for status in statuses)
    if series and all(status.is_loaded for status in statuses):
        filled, left = (sum(status.derived_filled for status in statuses), sum(s.derived_missing for s in statuses))
        words = [f"derived blocks: {filled} of {series} series filled", f"{left:,} rows to go"]
    shortest = min(statuses, key=lambda status: status.weight_left / max(1, status.weight_budget), default=None)
    if shortest is not None:
        words.append(f"{shortest.weight_left:,} of {shortest.weight_budget:,} weight left in this window")
    failing = sum(len(status.failing) for status in statuses)
    left_seconds = max((status.eta_seconds or 0.0 for status in statuses), default=0.0)
    if failing:
        words.append(f"{failing} failing")
    elif left_seconds:
        words.append(f"{math.ceil(left_seconds)} s to go")
    return ", ".join(words)
