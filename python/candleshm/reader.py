"""Attaching to blocks: what a strategy imports."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from candleshm import _core
from candleshm.errors import SegmentError
from candleshm.health import Health, health_of


class Feed(_core.Feed):
    """The candles of one named block, read in place; see `attach`."""

    @property
    def health(self) -> Health:
        """The block and its collector at this moment."""
        return health_of(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def attach(name: str, max_age: float | None = None) -> Feed:
    """Attach to the block ``name``, read-only.

    ``max_age`` (seconds) bounds the age of data that is handed out: reading an older series raises `StaleData`. None
    never raises it. When a collector replaces the block by one of another shape the feed follows by itself.

    Raises `SegmentNotFound`, `SegmentIncompatible`, `SegmentCorrupt`, `SegmentUnavailable`, `ConfigError`.

    >>> feed = attach("candleshm-spot-1m", max_age=60.0)  # doctest: +SKIP
    >>> feed["BTCUSDT"].candles(100)[-1, candleshm.CLOSE]  # doctest: +SKIP
    """
    return Feed(name, max_age)


def segments() -> list[Health]:
    """Return the health of every block on this machine that can be read, sorted by name."""
    found = []
    for name in _core.block_names():
        try:
            found.append(health_of(_core.Feed(name)))
        except SegmentError:
            # Other programs keep their shared memory in the same place.
            continue
    return found


def unlink(name: str) -> None:
    """Remove the block ``name`` that a dead collector left behind.

    Raises `SegmentNotFound`, `SegmentInUse` (a live collector serves it), `SegmentCorrupt` (not a block of ours).
    """
    _core.unlink(name)
