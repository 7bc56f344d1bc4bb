"""The state of a row: whether it is there, and how sure its values are."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["RowState"]


class RowState(IntEnum):
    """The state of a time slot, as `Series.snapshot` and `Series.states` return it in uint8 arrays.

    A state only moves towards more certainty: `LIVE`, `CLOSED`, `VERIFIED`; and `MISSING`, then a row or a `HOLE`. A
    correction of a closed row leaves its state and raises `Series.revision`. Rows that are `MISSING` or a `HOLE` appear
    only with ``holes="nan"``.

    >>> RowState(2), RowState.CLOSED.word
    (<RowState.CLOSED: 2>, 'closed')
    """

    EMPTY = 0
    """Before the first candle of the symbol; never handed out."""
    LIVE = 1
    """Not final yet: the values may still change. Several of the newest rows can be live."""
    CLOSED = 2
    """Final: confirmed by a response to a request sent after the candle's end, or pushed as final."""
    VERIFIED = 3
    """Final, and a second source gave the same values."""
    HOLE = 4
    """The exchange confirmed, twice, that it has no such row."""
    MISSING = 5
    """Not fetched yet; the collector is repairing it."""

    @property
    def word(self) -> str:
        """The state as a word in lower case, as the commands print it."""
        return self.name.lower()
