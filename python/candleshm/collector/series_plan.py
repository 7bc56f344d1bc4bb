"""What the collector remembers about one series: its rows, its requests, its stream, and the tasks that are due."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from candleshm._core import SeriesState

__all__ = ["IDLE_RESPONSES_MAX", "FetchTask", "Kind", "PollPolicy", "Position", "Progress", "SeriesPlan"]

# A stream that sends changes only may be idle; the pause before REST checks it doubles so often.
IDLE_RESPONSES_MAX = 4


class Position(Protocol):
    """Where a series stands in the block (see `SeriesState`)."""

    @property
    def newest_open_ms(self) -> int | None: ...
    @property
    def unsettled_open_ms(self) -> int | None: ...
    @property
    def missing(self) -> int: ...


class Progress(Position, Protocol):
    """What a response changed, and where the series stands since (see `Ingested`)."""

    @property
    def closed(self) -> int: ...
    @property
    def holes(self) -> int: ...
    @property
    def absent(self) -> int: ...


class MissingRows(Protocol):
    """Which missing rows of a series to request next (see `SeriesState`)."""

    @property
    def newest_missing_ms(self) -> tuple[int, int] | None: ...
    @property
    def unconfirmed_ms(self) -> tuple[int, int] | None: ...
    @property
    def confirm_from_ms(self) -> int: ...


class Kind(Enum):
    """What a task is for."""

    CLOSING = "closing"
    TAIL = "tail"
    BACKFILL = "backfill"
    CONFIRM = "confirm"
    AUDIT = "audit"
    HOLE = "hole"


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """How often series are requested; the same for all series of a feed."""

    interval: str
    length: int
    update_interval_seconds: float
    settle_ms: int
    tail_limit: int
    stall_seconds: float = 0.0
    """How long the stream of a series may be idle."""
    late_ms: int = 0
    """How long after a candle's end the event that closes it may come."""

    @property
    def settle_seconds(self) -> float:
        """`settle_ms` in seconds."""
        return self.settle_ms / 1000


class FetchTask(NamedTuple):
    """When a series is due (local seconds) and for what."""

    kind: Kind
    due_seconds: float
    rank_seconds: float
    """Order among the tasks that are due: `due_seconds`, less the head start of a closing candle."""


@dataclass(slots=True)
class SeriesPlan:
    """What the scheduler remembers about one series. Local seconds, except names in _ms, which are exchange time."""

    symbol: str
    newest_open_ms: int | None = None
    unsettled_open_ms: int | None = None
    missing: int = 0
    missing_range_ms: tuple[int, int] | None = None  # the newest missing range that no response lacked, half-open
    unconfirmed_range_ms: tuple[int, int] | None = None  # rows that responses lacked, to be confirmed next, half-open
    confirm_from_ms: int = 0  # by a request sent then or later
    tail_sent_seconds: float = -math.inf
    tail_sent_ms: int = 0
    response_seconds: float = -math.inf
    backfilled_seconds: float = -math.inf
    no_progress: int = 0  # responses in a row for missing rows that neither made a row final nor lacked another one
    unconfirmed_seconds: float = -math.inf
    unconfirmed: int = 0  # responses in a row for rows to be confirmed that confirmed no hole and made no row final
    no_progress_tries: int = 0  # both together, failed requests included
    tries: int = 0  # requests that got a response or failed while it loads
    failures: int = 0  # failed requests in a row
    refused: bool = False  # the newest request failed in a way that does not get better by itself
    retry_seconds: float = -math.inf
    loaded: bool = False
    given_up: bool = False  # could not be loaded: nothing waits for it, and it is requested at growing intervals
    trading: bool = True
    quiet_until_ms: int = 0  # before that no newer candle need come: the end of a session without trading
    ended_ms: int = 0  # when the list first showed that it no longer trades
    is_streamed: bool = False  # its stream is subscribed on an open connection
    last_event_seconds: float = -math.inf  # when its stream brought the newest event
    idle_responses: int = 0  # responses in a row that showed nothing newer than the idle stream
    stream_pause_seconds: float = 0.0  # how long its stream was idle lately; 0 where a stream is never idle
    suspect_ms: int | None = None  # oldest closed row that has to be requested again
    suspect_since_ms: int = 0  # by a request sent after this
    jitter_seconds: float = 0.0  # spreads the series of a feed, and the collectors of the world, within a moment
    tasks: tuple[FetchTask, ...] = ()  # none while a request is on its way

    @classmethod
    def begun(cls, symbol: str, state: SeriesState, jitter_seconds: float) -> Self:
        """Return the plan of a series that is in that state."""
        plan = cls(symbol, jitter_seconds=jitter_seconds)
        plan.follow(state)
        plan.note_missing(state)
        return plan

    @property
    def is_empty(self) -> bool:
        """Whether the series has no row at all."""
        return self.newest_open_ms is None

    def follow(self, position: Position) -> None:
        """Take in where events have brought the series."""
        self.newest_open_ms = position.newest_open_ms
        self.unsettled_open_ms = position.unsettled_open_ms
        self.missing = position.missing

    def note_missing(self, rows: MissingRows) -> None:
        """Take in which missing rows to request next."""
        self.missing_range_ms = rows.newest_missing_ms
        self.unconfirmed_range_ms, self.confirm_from_ms = rows.unconfirmed_ms, rows.confirm_from_ms

    def mark_suspect(self, open_ms: int, now_ms: int) -> None:
        """Have the rows from `open_ms` on requested again, by a request that is sent at `now_ms` or later."""
        self.suspect_ms = open_ms if self.suspect_ms is None else min(self.suspect_ms, open_ms)
        self.suspect_since_ms = now_ms

    def end(self, now_ms: int) -> None:
        """Note that it was seen not to trade any more at `now_ms`, exchange time."""
        self.trading, self.ended_ms = False, now_ms

    def fail(self, *, refused: bool) -> None:
        """Note a failed request; one that was `refused` would be refused again at once."""
        self.failures += 1
        self.no_progress_tries += 1
        self.refused = refused
        if not self.loaded:
            self.tries += 1

    def learn(self, position: Progress, *, sent_seconds: float, sent_ms: int, now_seconds: float, kind: Kind) -> None:
        """Take in a response that the writer has merged."""
        is_tail = kind in (Kind.TAIL, Kind.CLOSING)
        # Rows that left the window while they were missing did not come with this response.
        brought = position.newest_open_ms is not None if self.is_empty else position.closed + position.holes > 0
        if self.is_empty or kind is Kind.BACKFILL:
            # Rows that it lacks wait for a second response, and the older ones are requested meanwhile.
            brought = brought or position.absent > 0
            self.no_progress = 0 if brought else self.no_progress + 1
            self.no_progress_tries = 0 if brought else self.no_progress_tries + 1
        elif kind is Kind.CONFIRM:
            self.unconfirmed_seconds = now_seconds
            self.unconfirmed = 0 if brought else self.unconfirmed + 1
            self.no_progress_tries = 0 if brought else self.no_progress_tries + 1
        elif position.missing > self.missing:
            self.no_progress = 0
        if is_tail and not self.trading:
            self.no_progress_tries = 0 if brought else self.no_progress_tries + 1
        if not self.loaded:
            self.tries += 1
        self.follow(position)
        self.response_seconds = now_seconds
        self.failures = 0
        self.refused = False
        self.retry_seconds = -math.inf
        if is_tail:
            self.tail_sent_seconds = sent_seconds
            self.tail_sent_ms = sent_ms
        elif kind is Kind.BACKFILL:
            self.backfilled_seconds = now_seconds
        # A series of which two responses had no row is loaded: it is new, and nothing was traded yet.
        is_complete = self.missing == 0 and (self.no_progress >= 2 if self.is_empty else self.tail_sent_ms > 0)
        if is_complete and not self.loaded:
            self.loaded, self.given_up = True, False
            self.no_progress_tries = self.tries = 0
