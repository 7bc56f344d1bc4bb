"""Progress of a start or a download: a bar on a terminal, a log line every five seconds elsewhere."""

from __future__ import annotations

import logging
import math
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from candleshm.collector.status import CollectorStatus
from candleshm.commands.log import ERASE_LINE

__all__ = ["LoadingProgress", "ProgressLine"]

logger = logging.getLogger(__name__)

BAR_WIDTH_MIN, BAR_WIDTH_MAX = 8, 30
LINES_SECONDS = 5.0


class ProgressLine:
    """One line on stderr with the progress of a task; a context manager that erases it at the end."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._stream = sys.stderr
        self._is_terminal = sys.stderr.isatty()
        self._line_due_seconds = time.monotonic() + LINES_SECONDS

    def show(self, share: float | None, text: str) -> None:
        """Show `text`, and the share that is done as a bar and in percent where it is known."""
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
        elif time.monotonic() >= self._line_due_seconds:
            self._line_due_seconds = time.monotonic() + LINES_SECONDS
            logger.info("%s: %s", self._doing, text.strip())

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
        """Show the progress of all feeds together; one without a status does not count."""
        known = {name: status for name, status in statuses.items() if status is not None}
        total = sum(status.symbols * self._lengths[name] for name, status in known.items())
        share = 1 - sum(status.missing for status in known.values()) / total if total else 1.0
        self.show(share, _text(list(known.values())))


def _text(statuses: list[CollectorStatus]) -> str:
    """Return symbols, rows, weight and what is left; of several feeds' weights and times the largest."""
    loaded, symbols = sum(status.loaded for status in statuses), sum(status.symbols for status in statuses)
    weight = max((status.weight_used / status.weight_limit for status in statuses), default=0.0)
    words = [
        f"{loaded} of {symbols} symbols",
        f"{sum(status.rows for status in statuses):,} rows",
        f"weight {weight:.0%}",
    ]
    failing = sum(len(status.failing) for status in statuses)
    left_seconds = max((status.eta_seconds or 0.0 for status in statuses), default=0.0)
    if failing:
        words.append(f"{failing} failing")
    elif left_seconds:
        words.append(f"{math.ceil(left_seconds)} s left")
    return ", ".join(words)
