"""How the connections of a feed are opened: addresses, TLS, the limit of new connections, pauses after failures."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from random import Random

from candleshm.errors import ExchangeUnavailable
from candleshm.exchanges.base import StreamRules
from candleshm.network.addresses import Addresses
from candleshm.network.backoff import Backoff
from candleshm.ratelimit.budget import WeightBudget
from candleshm.stream.connection import Connection, ConnectionOwner
from candleshm.stream.connects import Connects

__all__ = ["Dialer"]

# A connection is replaced this long before the server would end it, give or take a part, so that not all go at once.
LIFE_PART, LIFE_SPREAD = 0.96, 0.02
# Refused because of too many attempts: to go on would make it worse.
REFUSED_SECONDS = 60.0
REFUSING = (403, 418, 429)


class Dialer:
    """Opens connections within the exchange's limit, which all feeds of a user share."""

    def __init__(
        self,
        rules: StreamRules,
        now: Callable[[], float],
        *,
        context: ssl.SSLContext | None,
        random: Random | None,
        connects: WeightBudget | None,
    ) -> None:
        self._rules = rules
        self._now = now
        self._addresses = Addresses()
        self._context = context or ssl.create_default_context()
        self._random = random or Random()
        self._backoff = Backoff(first_seconds=0.1, limit_seconds=30.0)
        self._connects = Connects(rules, connects)

    def may_open(self, now_seconds: float) -> bool:
        """Take one connection out of the limit; return whether there was one."""
        return self._connects.take(now_seconds)

    async def open(self, names: Iterable[str], owner: ConnectionOwner) -> Connection:
        """Open a connection that subscribes to `names`. Raises ExchangeUnavailable."""
        try:
            return await Connection.open(
                names, self._rules, addresses=self._addresses, context=self._context, now=self._now, owner=owner
            )
        except ExchangeUnavailable as error:
            if error.status in REFUSING:
                self._connects.stop(REFUSED_SECONDS, self._now())
            raise

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
