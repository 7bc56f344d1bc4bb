"""One websocket of the stream thread: its number there, the streams it carries, and why it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from candleshm.exchanges.base import StreamRules
from candleshm.stream.paths import Paths
from candleshm.stream.subscriptions import Subscriptions

if TYPE_CHECKING:
    from candleshm._core import StreamThread

__all__ = ["Connection"]


class Connection:
    """A connection and its subscriptions; belongs to the thread that decides about streams."""

    def __init__(
        self,
        number: int,
        path: str,
        names: Iterable[str],
        rules: StreamRules,
        *,
        thread: StreamThread,
        now: Callable[[], float],
    ) -> None:
        """`names` are in the URL of connection `number`, which is open; `path` is the URL without them."""
        self.number = number
        self.path = path
        self._thread = thread
        self._now = now
        self.opened_seconds = self._awaited_seconds = now()
        self.subscriptions = Subscriptions(names, rules, self.opened_seconds)
        self.subscriptions.opened(self.opened_seconds)
        self.events = 0
        """Candles that it brought, as of the last look."""
        self.is_outdated = False
        """Whether another path was chosen since it was opened: it says no more about its own."""
        self.patience_seconds = 0.0
        """How long its path has to bring data."""
        self.rotation = ""
        """Why another connection has to replace this one; empty while none has to."""
        self.reason = ""
        """Why it ended, or is about to; empty while it is open."""
        self.misbehaved = False
        """Whether it ended because of what the server sent."""

    @property
    def is_open(self) -> bool:
        """Whether events may arrive."""
        return not self.reason

    def resubscribe(self, names: Iterable[str]) -> None:
        """Subscribe these streams once more: they are stalled."""
        self._send(self.subscriptions.resubscribe(names, self._now()))

    def look(self, paths: Paths, *, may_be_silent: bool = False) -> str | None:
        """Send the subscriptions that are due; tell `paths` what the path brings. Return a line for the log, if any.

        One that `may_be_silent`, because none of its symbols trades now, proves nothing about its path.
        """
        line, now = None, self._now()
        self.is_outdated = self.is_outdated or self.path != paths.choose()
        self.patience_seconds = paths.silent_seconds
        if self.is_open:
            events, before = self._thread.events(self.number), self.events
            self.events = events
            if events > before:
                line = paths.works(self.path, now)
            elif may_be_silent:
                self._awaited_seconds = now
            elif not (events or self.is_outdated) and now - self._awaited_seconds > self.patience_seconds:
                streams = len(self.subscriptions.subscribed_seconds)
                if paths.silent(self.path, streams, now):
                    self.is_outdated = True
                    self.rotation = self.rotation or f"its path acknowledged {streams} streams and sent no data"
            for text in self.subscriptions.messages(self._now()):
                self._send(text)
        return line

    def ended(self, reason: str, *, misbehaved: bool) -> None:
        """Note that it is gone."""
        self.reason = self.reason or reason
        self.misbehaved = misbehaved

    def close(self) -> None:
        """End it in order."""
        self.reason = self.reason or "closed by the collector"
        self._thread.close(self.number)

    def abort(self, reason: str) -> None:
        """End it at once."""
        self.reason = self.reason or reason
        self._thread.abort(self.number, reason)

    def _send(self, text: bytes | None) -> None:
        if text is not None:
            self._thread.send(self.number, text, len(self.subscriptions.requested_seconds))
