"""What every member and mirror of a cluster says of itself each second, and who was there lately."""

from __future__ import annotations

import msgspec

__all__ = ["LEFT", "LIVING_SECONDS", "MIRROR", "Exit", "Presence", "Roll", "decoded", "encoded"]

# Who says nothing for so long counts as gone.
LIVING_SECONDS = 3.0
# The role in the last message of one that ends in order.
LEFT = "left"
# The role of one that only follows.
MIRROR = "mirror"


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """The request weight of one address at which a member meets the exchange."""

    way: str
    """The host and its egress, without credentials."""
    to: str
    """The exchange's host and family of markets, which has a weight limit of its own."""
    weight_used: int
    weight_limit: int


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """What a member or a mirror says of itself. Fields that are new to a reader have defaults."""

    member: str
    """Its name in the cluster, which is new with every start."""
    host: str
    pid: int
    role: str
    """`leader`, `standby`, `alone` (it collects for its own host only) or `mirror`."""
    feed: str
    block: str
    """The name of its block on that host."""
    version: str = ""
    length: int = 0
    symbols: int = 0
    shards: int = 1
    """Into how many shards it divides the feed."""
    epochs: dict[int, int] = {}
    """The epoch of each shard that it leads."""
    newest_epochs: dict[int, int] = {}
    """The newest epoch that it knows of, for each shard."""
    lag_ms: float | None = None
    """How old the newest change was when it was applied; None where nothing comes from others."""
    differing: int = 0
    """How many requests for rows its newest comparison with leaders led to; 0 while all digests agree."""
    is_complete: bool = False
    """Whether its block has every row that others have, so that it could lead at once."""
    may_lead: bool = True
    """Whether it may take leases: it serves the candles and the symbols that leaders serve."""
    why: str = ""
    """Why it is alone, or may not lead; empty where nothing is in its way."""
    exits: tuple[Exit, ...] = ()

    @property
    def leads(self) -> tuple[int, ...]:
        """The shards that it leads, in order."""
        return tuple(sorted(self.epochs))


_DECODER = msgspec.json.Decoder(Presence)


def encoded(presence: Presence) -> bytes:
    """Return the message that says it."""
    return msgspec.json.encode(presence)


def decoded(message: bytes) -> Presence | None:
    """Return what a message says; None for one that cannot be read, as of a version to come."""
    try:
        return _DECODER.decode(message)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


class Roll:
    """Who was there lately. For one thread; the time is an argument, seconds of any clock that does not step."""

    def __init__(self) -> None:
        self._present: dict[tuple[str, str], tuple[Presence, float]] = {}

    def note(self, presence: Presence, now: float) -> None:
        """Take in what somebody said, be it farewell."""
        if presence.role == LEFT:
            self._present.pop((presence.feed, presence.member), None)
        else:
            self._present[presence.feed, presence.member] = presence, now

    def living(self, now: float) -> list[Presence]:
        """Return who spoke within the last seconds, members before mirrors, by host and process."""
        self._present = {key: last for key, last in self._present.items() if now - last[1] < LIVING_SECONDS}
        found = [presence for presence, _ in self._present.values()]
        return sorted(found, key=lambda each: (each.feed, each.role == MIRROR, each.host, each.pid))

    def newest_epoch(self, feed: str, shard: int) -> int:
        """Return the newest epoch of a shard that anybody knows of lately, 0 for none."""
        return max(
            (
                max(presence.epochs.get(shard, 0), presence.newest_epochs.get(shard, 0))
                for presence, _ in self._present.values()
                if presence.feed == feed
            ),
            default=0,
        )
