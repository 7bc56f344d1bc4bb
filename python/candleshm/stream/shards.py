"""Which connection carries which symbols. Pure: a symbol stays where it is for as long as it is wanted."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Shards"]


class Shards:
    """Symbols in groups of at most `size`, one group to a connection."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.groups: list[dict[str, None]] = []
        """The groups, in the order of their making; one that is empty is used again."""

    def align(self, symbols: Iterable[str]) -> bool:
        """Carry exactly `symbols`; return whether that changed anything."""
        wanted = dict.fromkeys(symbols)
        carried = {symbol for group in self.groups for symbol in group}
        for group in self.groups:
            for symbol in [symbol for symbol in group if symbol not in wanted]:
                del group[symbol]
        newcomers = [symbol for symbol in wanted if symbol not in carried]
        for symbol in newcomers:
            self._place(symbol)
        return bool(newcomers) or len(carried) != len(wanted)

    def _place(self, symbol: str) -> None:
        for group in self.groups:
            if len(group) < self._size:
                group[symbol] = None
                return
        self.groups.append({symbol: None})
