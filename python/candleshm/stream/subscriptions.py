"""The subscriptions of one connection: which streams are wanted, requested, acknowledged or refused. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Set
from typing import Any

from candleshm.exchanges.base import StreamRules
from candleshm.stream.rate_limiter import RateLimiter
from candleshm.system.log_text import printable

__all__ = ["Subscriptions"]

# Names in the URL; the others follow in messages of so many. Both stay far below what servers accept.
URL_NAMES_MAX = 100
MESSAGE_NAMES_MAX = 200
# Pings and pongs count as messages of the client. The stream thread sends one of each in a second at most, by itself.
SPARE_MESSAGES = 2
# A refused message of so many halves is down to one name; that name is then requested less and less often.
WHOLE_REFUSALS, REFUSED_SECONDS_MAX = 8, 300.0


class Subscriptions:
    """What to send so that exactly the wanted streams are subscribed, within the limit of messages per second."""

    def __init__(self, names: Iterable[str], rules: StreamRules, now_seconds: float) -> None:
        """`names` are in the URL: the server subscribes them with the handshake."""
        self._wanted: dict[str, None] = dict.fromkeys(names)
        self._messages = RateLimiter(rules.messages_per_second - SPARE_MESSAGES, 1.0)
        self._pending: dict[int, tuple[str, tuple[str, ...]]] = {}  # messages that were not acknowledged yet
        self._numbers = 0
        self._refusals: dict[str, tuple[int, float]] = {}
        self.requested_seconds: dict[str, float] = dict.fromkeys(self._wanted, now_seconds)
        """Streams that were requested of the server, and when."""
        self.subscribed_seconds: dict[str, float] = {}
        """Streams that the server acknowledged, and when."""

    def want(self, names: Set[str]) -> None:
        """Carry exactly these streams, as soon as the limit of messages allows."""
        if names != self._wanted.keys():
            self._wanted = dict.fromkeys(names)

    def opened(self, now_seconds: float) -> None:
        """Note that the handshake subscribed the streams of the URL."""
        self.subscribed_seconds = dict.fromkeys(self.requested_seconds, now_seconds)

    def resubscribe(self, names: Iterable[str], now_seconds: float) -> bytes | None:
        """Return the message that ends the subscription of stalled streams, so that they are subscribed once more."""
        names = [name for name in names if name in self.requested_seconds][:MESSAGE_NAMES_MAX]
        if not names:
            return None
        text = self._message("UNSUBSCRIBE", names, now_seconds)
        if text is not None:
            for name in names:
                self.requested_seconds.pop(name, None)
        return text

    def messages(self, now_seconds: float) -> Iterator[bytes]:
        """Yield the messages that are due, as far as the limit allows."""
        if self.requested_seconds.keys() == self._wanted.keys():
            return
        unwanted = [name for name in self.requested_seconds if name not in self._wanted]
        missing = [
            name
            for name in self._wanted
            if name not in self.requested_seconds and now_seconds >= self._refusals.get(name, (0, 0.0))[1]
        ]
        for method, names in (("UNSUBSCRIBE", unwanted), ("SUBSCRIBE", missing)):
            # One name may be what is wrong with a message that was refused: the next messages are shorter and shorter.
            refusals = max((self._refusals.get(name, (0, 0.0))[0] for name in names), default=0)
            size = max(1, MESSAGE_NAMES_MAX >> refusals)
            for start in range(0, len(names), size):
                batch = names[start : start + size]
                text = self._message(method, batch, now_seconds)
                if text is None:
                    break
                for name in batch:
                    if method == "SUBSCRIBE":
                        self.requested_seconds[name] = now_seconds
                    else:
                        self.requested_seconds.pop(name, None)
                        self.subscribed_seconds.pop(name, None)
                yield text

    def acknowledged(self, text: bytes, now_seconds: float) -> str | None:
        """Take in the server's acknowledgement of a message; return what is wrong, if anything is."""
        try:
            ack: dict[str, Any] = json.loads(text)
            number = ack.get("id")
            method, names = self._pending.pop(number, ("", ())) if isinstance(number, int) else ("", ())
        except (ValueError, RecursionError):
            return "an acknowledgement that cannot be read"
        if "code" in ack or "error" in ack:
            for name in names:
                self.requested_seconds.pop(name, None)
                count = self._refusals.get(name, (0, 0.0))[0] + 1
                pause_seconds = min(REFUSED_SECONDS_MAX, 2.0 ** max(0, count - WHOLE_REFUSALS))
                self._refusals[name] = (count, now_seconds + pause_seconds)
            return printable(text.decode(errors="replace")[:200])
        if method == "SUBSCRIBE":
            for name in names:
                self._refusals.pop(name, None)
                if name in self.requested_seconds:
                    # A stalled stream stays stalled until its next event.
                    self.subscribed_seconds.setdefault(name, now_seconds)
        return None

    def _message(self, method: str, names: list[str], now_seconds: float) -> bytes | None:
        if not self._messages.take(now_seconds):
            return None
        self._numbers += 1
        self._pending[self._numbers] = (method, tuple(names))
        return json.dumps({"method": method, "params": names, "id": self._numbers}, ensure_ascii=False).encode()
