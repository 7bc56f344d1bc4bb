"""Where a collector stands, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    """In the current window, other programs at this address included where the exchange says so."""
    weight_limit: int
    banned_until_ms: int | None
    clock_error_ms: int
    """Width of what is known about the exchange's clock."""
    elapsed_seconds: float
    bans: int = 0
    """Times that a 418 or 403 stopped everything."""
    ingests: int = 0
    """Answers parsed, merged and published."""
    ingest_seconds: float = 0.0
    """Time that took, all together."""
    corrections: int = 0
    """Closed rows that the exchange restated."""
    refused: int = 0
    """Rows that could not be true and were left out."""
    holes: int = 0
    """Rows that the exchange twice did not have."""
    not_trading: tuple[str, ...] = ()
    """Symbols of the block that are delisted, halted or removed: their rows stay, none are asked for."""

    @property
    def ready(self) -> bool:
        """Whether every symbol is loaded."""
        return self.loaded == self.symbols

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until everything is loaded at the pace so far; None while there is no pace yet."""
        return self.missing * self.elapsed_seconds / self.rows if self.rows else None
