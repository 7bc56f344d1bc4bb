"""One group of symbols and the connection that carries them: reconnect, rotate to a standby connection, resubscribe."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from candleshm.exchanges.base import StreamRules
from candleshm.stream.connection import Connection
from candleshm.stream.dialer import Dialing

__all__ = ["Lane"]

# A standby connection takes over once it was open for so many periods of its streams, and has sent an event.
TAKEOVER_PERIODS = 2
# A new connection that sends nothing for so long will not.
BARREN_SECONDS = 10.0
# A subscription that is not acknowledged for so long counts as one whose stream is stalled.
ACKNOWLEDGED_SECONDS = 10.0
# A connection that served for so long, and did nothing wrong, is opened again at once when it ends.
SERVED_SECONDS = 10.0
# When this part of a connection's streams is stalled, the connection is the fault. When one stream is stalled after it
# was subscribed again, another connection is tried once, and then the stream is left alone: otherwise one halted symbol
# would cost all the others their connection again and again. Each replacement makes the pause before the next one
# longer, until most of the streams for which it was made have sent events.
STALLED_PART = 0.9
RESUBSCRIPTIONS = 1
REPLACE_SECONDS, REPLACE_SECONDS_MAX = 15.0, 960.0


@dataclass(eq=False, slots=True)
class Lane:
    """The current connection of one group of symbols, and the standby connection that is about to take over."""

    group: Mapping[str, None]
    names: dict[str, str] = field(default_factory=dict)
    """The symbols of the group by the names of their streams."""
    current: Connection | None = None
    standby: Connection | None = None
    opening: Dialing | None = None
    attempts: int = 0
    """Failures in a row to open or keep a connection."""
    retry_seconds: float = 0.0
    life_seconds: float = 0.0
    replaced_seconds: float = -math.inf
    replacements: int = 0
    causes: frozenset[str] = frozenset()
    """The stalled symbols for which the connection was replaced last, until most of them have sent events."""
    reason: str = "no connection yet"
    """Why there is no connection, while there is none."""

    @property
    def open_connection(self) -> Connection | None:
        """The current connection, if it is open. From any thread: `current` is read once, for it may end meanwhile."""
        current = self.current
        return current if current is not None and current.is_open else None

    def connection(self, number: int) -> Connection | None:
        """Return the connection of that number, if it is one of these."""
        for connection in (self.current, self.standby):
            if connection is not None and connection.number == number:
                return connection
        return None

    @property
    def covered(self) -> frozenset[str]:
        """Symbols whose stream is subscribed on the open connection."""
        current = self.open_connection
        if current is None:
            return frozenset()
        return frozenset(self.names[name] for name in current.subscriptions.subscribed_seconds if name in self.names)

    def subscribed_seconds(self) -> dict[str, float]:
        """Return the symbols requested on the open connection, and from when their streams should send events."""
        current = self.open_connection
        if current is None:
            return {}
        requested, subscribed = current.subscriptions.requested_seconds, current.subscriptions.subscribed_seconds
        return {
            self.names[name]: subscribed.get(name, seconds + ACKNOWLEDGED_SECONDS)
            for name, seconds in (requested | subscribed).items()
            if name in self.names
        }

    def rotate(self, rules: StreamRules, now: float) -> bool:
        """Replace connections that are due; return whether a new connection has to be opened."""
        current, standby = self.current, self.standby
        if current is not None and not self.group:
            current.close()
            return False
        if current is not None and now - current.opened_seconds > self.life_seconds:
            current.rotation = current.rotation or "it has reached its maximum age"
        settled_seconds = TAKEOVER_PERIODS * rules.push_seconds
        if standby is not None:
            age_seconds = now - standby.opened_seconds
            barren_seconds = max(BARREN_SECONDS, standby.patience_seconds)
            has_all = self.names.keys() <= standby.subscriptions.subscribed_seconds.keys()
            if current is None or (standby.events and age_seconds > settled_seconds and has_all):
                self.current, self.standby = standby, None
                if current is not None:
                    current.close()
            elif not standby.events and (standby.is_outdated or age_seconds > settled_seconds + barren_seconds):
                if self.causes and not standby.is_outdated:
                    current.rotation = ""  # Another one is no better, unless it takes another path.
                standby.abort("it delivered no data")
            return False
        is_needed = bool(self.group) and (current is None or bool(current.rotation))
        return is_needed and self.opening is None and now >= self.retry_seconds

    def opened(self, connection: Connection, life_seconds: float) -> None:
        """Take a new connection in: as the current one, or beside it as standby."""
        self.opening, self.life_seconds = None, life_seconds
        if self.current is None:
            self.current = connection
        else:
            self.standby = connection

    def lost(self, connection: Connection, now: float) -> bool:
        """Let go of a connection that ended; return whether it was the current one."""
        is_current = self.current is connection
        if is_current:
            self.current, self.reason = None, connection.reason
            # One that served for a while is opened again at once; the others after growing pauses.
            served = now - connection.opened_seconds > SERVED_SECONDS and connection.events > 0
            self.attempts = 0 if served and not connection.misbehaved else self.attempts + 1
        elif self.standby is connection:
            self.standby = None
            self.attempts += 1
        return is_current

    def remedy(self, stalled: Collection[str], due: Mapping[str, int], down: Collection[str], now: float) -> None:
        """Resubscribe stalled streams; where that did not help, have the connection replaced.

        `due` are those that need an attempt now, with its number; `down` all that sent nothing since they stalled.
        """
        current = self.open_connection
        if current is None:
            return
        recovered = [symbol for symbol in self.causes if symbol not in down]
        if 2 * len(recovered) >= len(self.causes):
            self.causes, self.replacements = frozenset(), 0
        attempts = {symbol: due[symbol] for symbol in stalled if symbol in due}
        if not attempts:
            return
        streams = len(current.subscriptions.subscribed_seconds)
        is_all = len(stalled) >= STALLED_PART * streams
        is_last = RESUBSCRIPTIONS + 1 in attempts.values()
        if (is_all or is_last) and not current.rotation and now >= self.replaced_seconds:
            current.rotation = f"{len(stalled)} of {streams} streams are stalled"
            pause_seconds = min(REPLACE_SECONDS_MAX, REPLACE_SECONDS * 2.0 ** min(self.replacements, 16))
            self.replaced_seconds, self.replacements = now + pause_seconds, self.replacements + 1
            self.causes = frozenset(stalled)
        elif not is_all:
            current.resubscribe(name for name, symbol in self.names.items() if symbol in attempts)
