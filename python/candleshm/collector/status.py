"""Where a collector stands, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from candleshm.reader.freshness import Freshness
from candleshm.stream.status import StreamStatus

__all__ = ["CollectorStatus"]


@dataclass(frozen=True, slots=True)
class CollectorStatus:
    """Where a collector stands: a snapshot, taken about once a second."""

    symbols: int
    loaded: int
    """Symbols that have had all their rows, or proof that there are none."""
    failing: Mapping[str, int]
    """Symbols whose newest requests failed, and how often in a row."""
    rows: int
    """Rows received that were new or changed."""
    missing: int
    """Rows not yet there and not confirmed absent, all symbols together."""
    requests: int
    errors: Mapping[str, int]
    """Failed requests by kind of error."""
    weight_spent: int
    weight_used: int
    """In the current window, other programs at this address included where the exchange reports them."""
    weight_limit: int
    banned_until_ms: int | None
    clock_error_ms: int
    """Uncertainty of the measured exchange time."""
    elapsed_seconds: float
    weight_budget: int = 0
    """Part of `weight_limit` that all collectors and clients of this user may spend."""
    wait_seconds: float = 0.0
    """How long the request weight makes the start last at least."""
    newest_error: str = ""
    """The newest failed request in words."""
    bans: int = 0
    """How often a 418 or 403 stopped all requests."""
    ingests: int = 0
    """Responses parsed, merged and published."""
    ingest_seconds: float = 0.0
    """Time that took, all together."""
    corrections: int = 0
    """Closed rows that the exchange corrected."""
    refused: int = 0
    """Rows that had impossible values and were left out."""
    holes: int = 0
    """Rows that the exchange does not have, by two of its responses."""
    not_trading: tuple[str, ...] = ()
    """Symbols of the block that are delisted, halted or removed: their rows stay, and no more are requested
    once the last one is final."""
    given_up: tuple[str, ...] = ()
    """Symbols that could not be loaded: nothing waits for them any longer, and they are retried at growing intervals,
    at least once an hour, until they are loaded."""
    silent: tuple[str, ...] = ()
    """Symbols without new candles although the exchange lists them as trading; closes do not wait for them."""

    local_clock_offset_ms: int = 0
    """How far the clock of this machine is ahead of the exchange's; nothing but times in logs depends on it."""
    stream: StreamStatus | None = None
    """None while everything is requested by REST."""
    by_requests: tuple[str, ...] = ()
    """Symbols that are kept fresh by REST: all of them without streams, else those whose stream brings no data."""
    verified: int = 0
    """Rows that a response confirmed after they had been pushed."""
    conflicts: int = 0
    """Rows in which a response differed from the stream."""
    audits: int = 0
    """Requests that only checked closed rows."""
    audit_rows: Mapping[str, int] = field(default_factory=dict)
    """Closed rows checked by them, by result: equal, corrected, missing (the block lacked it)."""
    standing: tuple[str, ...] = ()
    """Symbols for which the exchange repeats the same old data, although their newest candle is over."""
    derived_series: int = 0
    """Series of derived blocks whose older rows are requested from the exchange."""
    derived_filled: int = 0
    """Of these, the ones that have had all their rows, or proof that there are none."""
    derived_given_up: int = 0
    """Of these, the ones that could not be filled; they are retried at growing intervals."""
    derived_missing: int = 0
    """Their rows that are neither there, nor confirmed absent, nor to come by derivation."""
    derived_conflicts: int = 0
    """Derived rows of which the exchange has sent other values; the exchange's are kept."""
    caches_failing: int = 0
    """Caches that could not be written the last time."""
    days_due: int = 0
    """Days whose daily files are due and not complete."""
    is_complete: bool = True
    """Whether the rows that come from other hosts of a cluster are all here."""
    records_missing: int = 0
    """Records that the recording of the exchange lacks, because the disk was too slow or full."""
    recording_fails: bool = False
    """Whether a recording was wished, and cannot be written now."""
    freshness: Freshness = field(default_factory=lambda: Freshness.of([]))
    """How old the data is, judged as by a reader without `max_age`; a feed that pauses for more than 30 s gets two of
    its pauses."""

    @property
    def stale(self) -> int:
        """Symbols that trade whose data is older than 60 s."""
        return self.freshness.stale

    @property
    def oldest_age(self) -> float:
        """Age of the oldest data of a symbol that trades, seconds; infinite while none has data."""
        return self.freshness.oldest_age

    @property
    def polled(self) -> int:
        """How many symbols are kept fresh by REST."""
        return len(self.by_requests)

    @property
    def live(self) -> str:
        """Where live candles come from: 'ws', 'rest', or 'ws+rest' while some streams do not flow."""
        if self.stream is None or self.stream.streams == 0:
            return "rest"
        return "ws+rest" if self.polled else "ws"

    @property
    def is_loaded(self) -> bool:
        """Whether every symbol is loaded, or given up for now; in a cluster also those that other hosts collect."""
        return self.is_complete and self.loaded + len(self.given_up) == self.symbols

    @property
    def is_filled(self) -> bool:
        """Whether every series of the derived blocks is filled, or given up for now."""
        return self.derived_filled + self.derived_given_up == self.derived_series

    @property
    def ready(self) -> bool:
        """Whether every symbol is loaded and the data is current now, as readers see it in `Health.ready`."""
        return self.is_loaded and self.freshness.is_current

    @property
    def weight_left(self) -> int:
        """What may still be spent in the current window."""
        return max(0, self.weight_budget - self.weight_used)

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until everything is loaded: at the speed so far while there is weight, else once there is again.

        None while there are no rows yet.
        """
        if not self.rows:
            return None
        # The speed so far counts pauses for weight as well.
        return self.wait_seconds or self.missing * self.elapsed_seconds / self.rows
