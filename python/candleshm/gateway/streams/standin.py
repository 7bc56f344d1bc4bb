"""A stand-in for what the core will have: events of klines, and their frames."""

from __future__ import annotations

import json
from typing import Any

from candleshm._core import Feed, News
from candleshm.row_state import RowState


class KlineEvents:
    """What changed in the watched series."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self._seen: dict[str, tuple[Any, Any]] = {}
        self._closed: dict[str, int] = {}

    def watch(self, symbol: str, decimals: object) -> None:
        """Watch."""
        rows, states = self.feed[symbol].snapshot(4)
        self._seen[symbol] = rows[-1].tobytes() if len(rows) else b"", None
        final = [int(row[0]) for row, state in zip(rows, states) if state >= RowState.CLOSED]
        self._closed[symbol] = max(final, default=0)

    def unwatch(self, symbol: str) -> None:
        """Unwatch."""
        del self._seen[symbol], self._closed[symbol]

    def announced(self) -> News:
        """Take what is announced."""
        return next(iter(self.feed.values()))._news()

    def take(self) -> list[tuple[str, bytes]]:
        """Return."""
        events = []
        for symbol, (seen, _) in list(self._seen.items()):
            if symbol not in self.feed:
                continue
            rows, states = self.feed[symbol].snapshot(4)
            for row, state in zip(rows, states):
                open_ms = int(row[0])
                if state >= RowState.CLOSED and open_ms > self._closed[symbol]:
                    self._closed[symbol] = open_ms
                    events.append((symbol, self._event(symbol, row, True)))
            if len(rows) and states[-1] < RowState.CLOSED and rows[-1].tobytes() != seen:
                events.append((symbol, self._event(symbol, rows[-1], False)))
            self._seen[symbol] = rows[-1].tobytes() if len(rows) else b"", None
        return events

    def _event(self, symbol: str, row: Any, final: bool) -> bytes:
        t, o, h, l, c, v, T, q, n, V, Q, _ = row.tolist()
        k = {
            "t": int(t),
            "T": int(T),
            "s": symbol,
            "i": self.feed.interval,
            "f": -1,
            "L": -1,
            "o": f"{o:.8f}",
            "c": f"{c:.8f}",
            "h": f"{h:.8f}",
            "l": f"{l:.8f}",
            "v": f"{v:.8f}",
            "n": int(n),
            "x": final,
            "q": f"{q:.8f}",
            "V": f"{V:.8f}",
            "Q": f"{Q:.8f}",
            "B": "0",
        }
        return json.dumps({"e": "kline", "E": int(T), "s": symbol, "k": k}, separators=(",", ":")).encode()


def frame_text(event: bytes, name: str | None) -> bytes:
    """Frame."""
    payload = event if name is None else b'{"stream":"' + name.encode() + b'","data":' + event + b"}"
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload
