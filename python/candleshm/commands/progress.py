"""How far a start is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from candleshm.scheduler import CollectorStatus

__all__ = ["ERASE_LINE", "LoadingProgress"]

logger = logging.getLogger("candleshm")

ERASE_LINE = "\r\x1b[K"
BAR_WIDTH = 30
LINES_SECONDS = 5.0


class LoadingProgress:
    """Shows on stderr each `CollectorStatus` it is called with; a context manager that takes its bar away again."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._stream = sys.stderr
        self._is_terminal = sys.stderr.isatty()
        self._line_due_seconds = time.monotonic() + LINES_SECONDS

    def __call__(self, status: CollectorStatus) -> None:
        """Show `status`."""
        share = 1 - status.missing / (status.symbols * self._length) if status.symbols else 1.0
        text = f"{share:4.0%}  {status.loaded} of {status.symbols} symbols{_rest_text(status)}"
        if self._is_terminal:
            filled = round(share * BAR_WIDTH)
            self._stream.write(f"{ERASE_LINE}loading [{'#' * filled}{' ' * (BAR_WIDTH - filled)}] {text}")
            self._stream.flush()
        elif time.monotonic() >= self._line_due_seconds:
            self._line_due_seconds = time.monotonic() + LINES_SECONDS
            logger.info("loading: %s", text.strip())

    def __enter__(self) -> Self:
        if self._is_terminal:
            self._stream.write("connecting")
            self._stream.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.erase()

    def erase(self) -> None:
        """Take the bar away, for other text in its place."""
        if self._is_terminal:
            self._stream.write(ERASE_LINE)
            self._stream.flush()


def _rest_text(status: CollectorStatus) -> str:
    if status.failing:
        return f", {len(status.failing)} failing"
    return "" if status.eta_seconds is None else f", about {status.eta_seconds:.0f} s left"
