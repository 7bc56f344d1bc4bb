"""Which symbols of its block a collector collects itself; the rows of the others come from other hosts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from candleshm.collector.status import CollectorStatus

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["Membership", "Selection"]


class Selection:
    """The symbols that are collected here: all of them, until `choose`. Methods may be called from any thread."""

    def __init__(self, *, everything: bool = True) -> None:
        """Begin with every symbol, or with none."""
        self._serves: Callable[[str], bool] = _never
        self._lacks: Callable[[str], bool] = _never
        self._collects: Callable[[str], bool] = (lambda _: True) if everything else (lambda _: False)
        self._changed = threading.Event()
        self._carried: dict[str, None] = {}
        self._wake: Callable[[], None] | None = None
        self.collects_any = everything
        """Whether anything is collected here at all. A collector without a symbol sends no requests."""
        self.is_complete = everything
        """Whether the rows that come from other hosts are all here."""

    def collects(self, symbol: str) -> bool:
        """Return whether a symbol is collected here."""
        return self._collects(symbol)

    def choose(self, collects: Callable[[str], bool], *, any_at_all: bool = True) -> None:
        """Collect the symbols of which `collects` is true, from the next look of the collector on."""
        self._collects = collects
        self.collects_any = any_at_all
        self._note()

    def judge(self, *, serves: Callable[[str], bool], lacks: Callable[[str], bool]) -> None:
        """Have `serves` and `lacks` answered by who knows the configuration and the exchange's list."""
        self._serves, self._lacks = serves, lacks

    def serves(self, symbol: str) -> bool:
        """Return whether a symbol trades and the configuration has it, whoever collects it."""
        return self._serves(symbol)

    def lacks(self, symbol: str) -> bool:
        """Return whether a symbol trades and the configuration does not have it."""
        return self._lacks(symbol)

    def carry(self, symbols: Iterable[str]) -> None:
        """Give these symbols a place in the block, listed by the exchange or not: another host has them."""
        self._carried = self._carried | dict.fromkeys(symbols)
        self._note()

    @property
    def carried(self) -> Iterator[str]:
        """The symbols of `carry`."""
        return iter(self._carried)

    def on_change(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, from any thread, when there is a change to take."""
        self._wake = wake

    def take_change(self) -> bool:
        """Return whether something changed since the last call."""
        if not self._changed.is_set():
            return False
        self._changed.clear()
        return True

    def _note(self) -> None:
        self._changed.set()
        if self._wake is not None:
            self._wake()


def _never(_symbol: str) -> bool:
    return False


class Membership(Protocol):
    """What makes a collector one of several that share a feed."""

    @property
    def selection(self) -> Selection:
        """What the collector collects."""

    def serving(self, writer: Writer, status: Callable[[], CollectorStatus | None]) -> AbstractContextManager[object]:
        """Take part with the rows of `writer` while the context is open; `status` tells how the collector does."""
