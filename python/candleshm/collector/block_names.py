"""The names by which readers find the blocks of a collector, and what to do when one is gone."""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import TYPE_CHECKING

from candleshm.errors import BlockInUse, BlockUnavailable, CandleShmError
from candleshm.system.block_log import BlockLog

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["BlockNames"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
# What goes on happening is logged this often at most.
LOG_SECONDS = 600.0
# Putting a block back costs a copy of all of it, and so does an attempt that finds no room; when that happens again and
# again, the pauses grow to this.
PAUSE_SECONDS_MAX = 30.0


class BlockNames:
    """Keeps the block of a writer, and those derived from it, under their names. Belongs to the loop."""

    def __init__(self, writer: Writer, now_seconds: float) -> None:
        self._log = BlockLog(logger, writer.name)
        self._writer = writer
        self._pause_seconds = LOOK_SECONDS
        self._due_seconds = now_seconds + LOOK_SECONDS
        self._removals: Counter[str] = Counter()  # not logged yet
        self._logged_seconds: dict[str, float] = {}  # when a removal of the name was logged last
        self._faults: dict[str, tuple[str, float]] = {}  # why a block cannot be put back, and when that was logged last

    def look(self, now_seconds: float) -> None:
        """Put back what is gone, if it is time to look. Raises BlockInUse when another collector has a name."""
        if now_seconds < self._due_seconds:
            return
        outcomes = dict(self._writer.keep_names())
        costs = any(error is None or isinstance(error, BlockUnavailable) for error in outcomes.values())
        self._pause_seconds = min(max(self._pause_seconds * (2 if costs else 0.5), LOOK_SECONDS), PAUSE_SECONDS_MAX)
        self._due_seconds = now_seconds + self._pause_seconds
        for name in [name for name in self._faults if outcomes.get(name) is None]:
            del self._faults[name]
            outcomes.pop(name, None)
            self._log.info("block %s is back under its name; readers can attach again", name)
        for name, error in outcomes.items():
            if isinstance(error, BlockInUse):
                self._log.error("block %s was removed, and another collector has taken its name; this one stops", name)
                raise error
            if error is None:
                self._removals[name] += 1
            else:
                self._log_fault(name, error, now_seconds)
        self._log_removals(now_seconds)

    def _log_removals(self, now_seconds: float) -> None:
        for name, count in list(self._removals.items()):
            if now_seconds < self._logged_seconds.get(name, -math.inf) + LOG_SECONDS:
                continue
            del self._removals[name]
            self._logged_seconds[name] = now_seconds
            self._log.warning(
                "another program removed block %s from /dev/shm%s; it was created again with the same rows",
                name,
                "" if count == 1 else f", {count} times",
            )

    def _log_fault(self, name: str, error: CandleShmError, now_seconds: float) -> None:
        text, logged_seconds = self._faults.get(name, ("", -math.inf))
        if str(error) == text and now_seconds < logged_seconds + LOG_SECONDS:
            return
        self._faults[name] = (str(error), now_seconds)
        self._log.error(
            "another program removed block %s from /dev/shm, and it cannot be created again: %s. Attached readers keep"
            " working, but no new reader can attach until this is solved",
            name,
            error,
        )
