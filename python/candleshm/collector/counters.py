"""What a collector did since its start, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from candleshm._core import Ingested

__all__ = ["AuditCounters", "RequestCounters", "RowCounters"]


@dataclass(slots=True)
class RequestCounters:
    """Requests, their weight, and the errors among them by kind."""

    requests: int = 0
    weight: int = 0
    bans: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    newest_error: str = ""
    """The newest of these errors in words."""
    newest_failure: tuple[str, float] | None = None
    """Its kind, and when it came, local seconds."""


@dataclass(slots=True)
class RowCounters:
    """Rows of responses, by what they changed."""

    ingests: int = 0
    ingest_seconds: float = 0.0
    changed: int = 0
    corrections: int = 0
    refused: int = 0
    holes: int = 0
    verified: int = 0
    conflicts: int = 0

    def add(self, ingested: Ingested, seconds: float) -> None:
        """Count one response, whose merge took `seconds`."""
        self.ingests += 1
        self.ingest_seconds += seconds
        self.changed += ingested.changed
        self.corrections += ingested.corrected
        self.refused += ingested.refused
        self.holes += ingested.holes
        self.verified += ingested.verified
        self.conflicts += ingested.conflicts


@dataclass(slots=True)
class AuditCounters:
    """Audits, and the rows that they compared."""

    audits: int = 0
    equal: int = 0
    corrected: int = 0
    missing: int = 0

    def add(self, ingested: Ingested) -> None:
        """Count the rows of one audit."""
        self.equal += ingested.agreed
        self.corrected += ingested.corrected
        self.missing += max(0, ingested.closed - ingested.corrected)

    @property
    def rows(self) -> dict[str, int]:
        """The compared rows by outcome."""
        return {"equal": self.equal, "corrected": self.corrected, "missing": self.missing}
