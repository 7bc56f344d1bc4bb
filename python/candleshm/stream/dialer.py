"""How the connections of a feed are opened: addresses, the limit of new connections, pauses after failures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count, islice
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from candleshm.exchanges.base import StreamRules
from candleshm.network.backoff import Backoff
from candleshm.network.egress import Egress, Via
from candleshm.ratelimit.budget import WeightBudget
from candleshm.stream.connects import Connects
from candleshm.stream.paths import Paths
from candleshm.stream.subscriptions import URL_NAMES_MAX

if TYPE_CHECKING:
    from candleshm._core import StreamThread

__all__ = ["Dialer", "Dialing"]

# For everything up to a connected socket: the lookup of the name, and all addresses.
CONNECT_SECONDS = 3.0
# A connection is replaced this long before the server would end it, give or take a part, so that not all go at once.
LIFE_PART, LIFE_SPREAD = 0.96, 0.02
# Refused because of too many attempts: to go on would make it worse.
REFUSED_SECONDS = 60.0
REFUSING = (403, 407, 418, 429)


@dataclass(slots=True)
class Dialing:
    """One attempt to open a connection: first the socket, in a thread of its own, then TLS and the upgrade."""

    number: int
    path: str
    """The URL without the names of streams."""
    names: list[str]
    """The streams that the URL names."""
    via: Via | None = field(default=None, init=False)
    failure: Exception | None = field(default=None, init=False)
    """Why there is no socket."""

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.path}?streams={'/'.join(quote(name, safe='@') for name in self.names)}"

    def worked(self) -> None:
        """Note that the server responded: its address is tried first from now on."""
        if self.via is not None:
            self.via.worked()

    def blamed(self, reason: str, status: int | None) -> str:
        """Return why there is no connection; an address that did not respond is tried last from now on."""
        host = urlsplit(self.path).hostname
        if status is not None and self.failure is None:
            self.worked()
            return f"{host} refuses a stream: {reason}"
        if self.via is not None:
            self.via.failed()
        return f"no stream from {host}: {reason}"


class Dialer:
    """Opens connections within the exchange's limit, which all feeds of a user share."""

    def __init__(
        self,
        rules: StreamRules,
        now: Callable[[], float],
        *,
        egress: Egress,
        paths: Paths,
        random: Random | None,
        connects: WeightBudget | None,
    ) -> None:
        self._rules = rules
        self._now = now
        self._egress = egress
        self._paths = paths
        self._random = random or Random()
        self._backoff = Backoff(first_seconds=0.1, limit_seconds=30.0)
        self._connects = Connects(rules, connects)
        self._numbers = count()

    def may_open(self, now_seconds: float) -> bool:
        """Take one connection out of the limit; return whether there was one."""
        return self._connects.take(now_seconds)

    def dial(self, names: Iterable[str], thread: StreamThread) -> Dialing:
        """Begin to open a connection; `thread` has news when it is open, was refused, or has no socket."""
        dialing = Dialing(next(self._numbers), self._paths.choose(), list(islice(names, URL_NAMES_MAX)))
        try:
            worker = threading.Thread(target=self._connect, args=(dialing, thread), name="candleshm-dial", daemon=True)
            worker.start()
        except RuntimeError as error:
            dialing.failure = OSError(f"cannot start a thread for the connection: {error}")
        return dialing

    def _connect(self, dialing: Dialing, thread: StreamThread) -> None:
        try:
            parts = urlsplit(dialing.url)
            socket, dialing.via = self._egress.connect(dialing.url, CONNECT_SECONDS)
            thread.open(
                dialing.number,
                socket.detach(),
                host=parts.netloc.rpartition("@")[2],
                target=f"{parts.path or '/'}?{parts.query}",
                streams=len(dialing.names),
                server_name=parts.hostname if parts.scheme == "wss" else None,
            )
        except Exception as error:
            # Also one that nobody foresaw: an attempt without an outcome would be the last one of its symbols.
            dialing.failure = error
            thread.rouse()

    def refused(self, dialing: Dialing, status: int | None) -> None:
        """Take in that a server refused a connection: there were too many, or the path is retired."""
        if status is not None and dialing.failure is None:
            self._paths.refused(dialing.path, status)
            if status in REFUSING:
                self._connects.stop(REFUSED_SECONDS, self._now())

    def life_seconds(self) -> float:
        """Return how long a new connection is used before it rotates."""
        return self._rules.life_seconds * (LIFE_PART + LIFE_SPREAD * (2 * self._random.random() - 1))

    def retry_seconds(self, attempts: int, status: int | None = None) -> float:
        """Return the pause before the next attempt, after so many in a row that failed, the last one with `status`."""
        pause_seconds = self._backoff.delay_seconds(attempts, self._random) if attempts else 0.0
        return max(pause_seconds, REFUSED_SECONDS) if status in REFUSING else pause_seconds

    def close(self) -> None:
        """Leave the shared limit; the connections that were opened count on."""
        self._connects.close(self._now())
