"""Changing text on stdout: redrawn in place on a terminal, appended every two seconds elsewhere."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from types import TracebackType
from typing import Self

__all__ = ["Screen"]

FRAME_SECONDS = 0.125
APPENDED_SECONDS = 2.0
# No cursor, and lines that are too long are cut instead of wrapped; then both as before.
TAKE, GIVE_BACK = "\x1b[?25l\x1b[?7l", "\x1b[?25h\x1b[?7h"
STYLES = re.compile("\x1b\\[[0-9;]*m")
INDENT = "  "
UP, DOWN, FAINT, STRONG, ALARM, HEADING = "32", "31", "2", "1", "1;31", "7"


class Screen:
    """The lines of stdout that a program keeps rewriting; a context manager."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._is_coloured = self.is_terminal and not os.environ.get("NO_COLOR")
        self._shown = 0
        self.frame_seconds = FRAME_SECONDS if self.is_terminal else APPENDED_SECONDS
        """How long to wait between two frames."""

    def signed(self, text: str, value: float) -> str:
        """Return `text` green when `value` is above zero, red when below, where there are colours."""
        return self._styled(text, UP) if value > 0 else self._styled(text, DOWN) if value < 0 else text

    def faint(self, text: str) -> str:
        """Return `text` for remarks beside the numbers."""
        return self._styled(text, FAINT)

    def strong(self, text: str) -> str:
        """Return `text` for the one thing that a frame is about."""
        return self._styled(text, STRONG)

    def alarm(self, text: str) -> str:
        """Return `text` for a value that needs attention."""
        return self._styled(text, ALARM)

    def heading(self, text: str) -> str:
        """Return `text` as a line above others, as wide as the terminal."""
        return self._styled(f"{text:<{shutil.get_terminal_size().columns}}", HEADING) if self._is_coloured else text

    @property
    def height(self) -> int | None:
        """Lines that a frame may have; None when any number fits."""
        return shutil.get_terminal_size().lines - 1 if self.is_terminal else None

    @property
    def width(self) -> int | None:
        """Characters that a line may have; None when any number fits.

        Behind the last place of a terminal, what clears the rest of a line would clear that place.
        """
        return shutil.get_terminal_size().columns - 1 if self.is_terminal else None

    def wrapped(self, text: str) -> list[str]:
        """Return a text that is not styled in parts, each of which fits a line that `folded` begins."""
        if self.width is None:
            return [text]
        room = max(1, self.width - len(INDENT))
        return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)

    def folded(self, parts: Sequence[str], between: str) -> list[str]:
        """Return the lines that `parts` make with `between` them; a part that does not fit begins a new line."""
        lines = [parts[0]]
        for part in parts[1:]:
            joined = f"{lines[-1]}{between}{part}"
            if self.width is not None and len(STYLES.sub("", joined).rstrip()) > self.width:
                lines[-1] += between.rstrip()
                lines.append(f"{INDENT}{part}")
            else:
                lines[-1] = joined
        return lines

    def show(self, lines: Sequence[str]) -> None:
        """Show a frame in place of the last one, cut at the height of the terminal."""
        if self.is_terminal:
            lines = lines[: self.height]
            rewind = f"\x1b[{self._shown}F" if self._shown else ""
            self._shown = len(lines)
            # One write, so that half a frame is never visible.
            self._write(rewind + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        else:
            self._write("".join(f"{line}\n" for line in lines) + "\n")

    def restore(self) -> None:
        """Give the terminal back as it was, also after another process that showed frames was killed."""
        if self.is_terminal:
            self._write(GIVE_BACK)

    def __enter__(self) -> Self:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # An encoding without arrows is no reason to fail.
        if self.is_terminal:
            self._write(TAKE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[m" if self._is_coloured else text

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
