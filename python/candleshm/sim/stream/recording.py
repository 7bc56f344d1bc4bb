"""Recorded stream frames: what a real exchange sent, to be sent again."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"(\d+(?:\.\d+)?): (\{.*\})")
_COMBINED = re.compile(r'\{"stream":"([^"]*)","data":(.*)\}')


@dataclass(frozen=True)
class RecordedFrame:
    """One event of a combined stream: when it was received, in seconds, the stream's name, its JSON as recorded."""

    received_seconds: float
    stream: str
    data: str


@dataclass(frozen=True)
class Recording:
    """The frames of a connection in their order."""

    frames: tuple[RecordedFrame, ...]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Recording:
        """Read a file with a frame per line: ``<seconds>: {"stream":...,"data":...}``; other lines are passed over.

        Raises OSError, and ValueError when the file holds no frame.
        """
        frames = []
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            taken = _LINE.fullmatch(line.strip())
            combined = _COMBINED.fullmatch(taken[2]) if taken else None
            if taken and combined:
                frames.append(RecordedFrame(float(taken[1]), combined[1], combined[2]))
        if not frames:
            raise ValueError(f"no line is a frame of a combined stream: `{os.fspath(path)}`")
        return cls(tuple(frames))
