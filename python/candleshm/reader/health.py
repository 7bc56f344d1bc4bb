"""Health: the state of a block and its collector."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from candleshm import _core
from candleshm.errors import BlockError, BlockNotFound
from candleshm.reader.freshness import SILENT_SECONDS
from candleshm.reader.notebook import table

# The last second that a datetime can hold: a damaged block may name any number.
LAST_MS = 253_402_300_799_000
# The kinds of failures by their codes in a block, from 1 on; docs/segment-format.md lists them.
ERROR_KINDS = ("BadResponse", "Banned", "ExchangeError", "ExchangeUnavailable", "RateLimited", "another")
# So few symbols by requests do not count while the others come by streams: some are idle.
STREAMS_PART = 10


@dataclass(frozen=True)
class Health:
    """One block at one moment, as `Feed.health` and `blocks()` give it.

    >>> feed.health.ready, feed.health.condition, feed.health.oldest_age  # doctest: +SKIP
    (True, 'ready', 0.7)
    """

    name: str
    """Of the block."""
    market: str
    """'SPOT', 'UM' or 'CM'."""
    interval: str
    """Length of a candle, such as 1m."""
    length: int
    """Candles of a full window, the live one included."""
    symbols: int
    """How many symbols the block carries."""
    state: str
    """Of the block, not of its data (see `ready`): 'ready', 'replay' (history is replayed into it), 'superseded'
    (another block stands under the name), 'closed' (its collector, or replay, ended) or 'dead' (no heartbeat for 5 s,
    and no process owns the block any more)."""
    pid: int
    """The collector's process."""
    heartbeat_age: float
    """Seconds; the heartbeat of a living collector comes every half second."""
    ready: bool
    """About this moment: every symbol was loaded, there was a heartbeat within 5 s, some data is fresh, and at most one
    symbol in ten (or one, in a smaller feed) is stale."""
    missing: int
    """Rows of all windows that are not fetched yet."""
    holes: int
    """Rows of all windows that the exchange confirmed not to have."""
    weight_used: int
    """The exchange's request weight that counts in its current minute."""
    weight_limit: int
    """The weight that the exchange allows in a minute."""
    banned_until: datetime | None
    """When requests may be sent again after a 429 or 418, aware, UTC; None when they may now."""
    stale: int = 0
    """Symbols that trade whose `Series.age` is above the feed's `max_age`, or above 60 s without one."""
    oldest_age: float = 0.0
    """The highest age of a symbol that trades, seconds: infinite while none has data, 0 when none trades."""
    loaded: bool = True
    """Whether every symbol was loaded once; `ready` says whether the data is current as well."""
    failing: int = 0
    """Symbols whose newest request failed."""
    polled: int = 0
    """Symbols that are kept fresh by requests instead of streams: all of them where there are no streams."""
    last_error: str = ""
    """The kind of the newest failure of a request, such as ExchangeUnavailable; empty before the first."""
    last_error_at: datetime | None = None
    """When that was, aware, UTC."""
    price: str = "trade"
    """What the prices are: 'trade', 'mark', 'index' or 'premium'."""
    exchange: str = ""
    """Whose candles these are: 'binance', or host and port of another exchange; '' where it is not known."""
    source: str | None = None
    """Host and process of the leader that the candles come from, as host/pid; while the block's collector is alone in
    its cluster, its own; None outside a cluster."""
    epoch: int | None = None
    """The epoch of that leader: each leader of a shard has a higher one than those before; None outside a cluster, and
    while the collector is alone in it."""
    source_at: datetime | None = None
    """When its newest message was sent, by the exchange's clock, aware, UTC; None while that is not known."""
    lag: float | None = None
    """How long that message was on its way, seconds; once nothing came for more than 3 s, the time since it was sent. 0
    at a leader, None outside a cluster and while the collector is alone in it."""
    replayed_at: datetime | None = None
    """The replayed time, aware, UTC, in the block of a replay: ages are of this clock. None in any other."""

    @property
    def has_streams(self) -> bool:
        """Whether streams bring the candles, of nine symbols in ten at least."""
        return self.polled <= max(1, self.symbols // STREAMS_PART) and self.polled < self.symbols

    @property
    def is_silent(self) -> bool:
        """Whether the collector of a block that should be served has stopped its heartbeat."""
        return self.state in {"ready", "replay", "dead"} and self.heartbeat_age > SILENT_SECONDS

    @property
    def condition(self) -> str:
        """The state of block and data in one word: 'ready' only while the data may be relied on.

        Else 'loading' (not every symbol was loaded yet), 'stale' (the data is not current), 'silent' (no heartbeat for
        5 s, though a process owns the block), or the block's own state: 'replay', 'superseded', 'closed', 'dead'.
        """
        if self.state != "ready" or self.ready:
            return self.state
        if self.is_silent:
            return "silent"
        return "stale" if self.loaded else "loading"

    def _repr_html_(self) -> str:
        """Return every fact in a line of its own, as Jupyter shows it."""
        facts = {"condition": self.condition, **asdict(self)}
        return table(f"Health of {self.name}", ("fact", "value"), facts.items())


def health_of(feed: _core.Feed, max_age: float | None = None) -> Health:
    """Return the health of the block that ``feed`` is attached to; ``max_age`` (seconds) in place of its own."""
    fields = feed._health(max_age)
    until_ms = fields.pop("banned_until_ms")
    kind, error_ms = fields.pop("last_error")
    source_ms = fields.pop("source_ms")
    banned_until = None if until_ms is None else datetime.fromtimestamp(min(until_ms, LAST_MS) / 1000, tz=UTC)
    replay_ms = fields.pop("replay_ms")
    replayed_at = None if replay_ms is None else datetime.fromtimestamp(min(replay_ms, LAST_MS) / 1000, tz=UTC)
    del fields["is_current"]
    is_silent = fields["state"] in {"ready", "replay"} and fields["heartbeat_age"] > SILENT_SECONDS
    if is_silent and not _is_owned(fields["name"]):
        fields["state"] = "dead"
    return Health(
        **fields,
        banned_until=banned_until,
        source_at=None if source_ms is None else datetime.fromtimestamp(min(source_ms, LAST_MS) / 1000, tz=UTC),
        replayed_at=replayed_at,
        last_error=(("", *ERROR_KINDS)[kind] if kind <= len(ERROR_KINDS) else "another"),
        last_error_at=datetime.fromtimestamp(min(error_ms, LAST_MS) / 1000, tz=UTC) if kind else None,
    )


def _is_owned(name: str) -> bool:
    """Ask the kernel: a pid means nothing in another PID namespace, or once another process has it."""
    try:
        return _core.is_owned(name)
    except BlockNotFound:
        return False  # A collector that lives gives its block a name again within moments.
    except BlockError:
        return True
