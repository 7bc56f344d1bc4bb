"""The recording of what the exchange sends: where it is written, and what is said when it cannot be.

The writer of a block records what it merges, see `Writer.record_into`. Here a recording begins, and a line in the log
says when it fails and when it goes on. What plans learn from beside the rows is noted, in the order in which they learn
it, and each request with its plan: so a replay has plans of its own (`replayed_plans`), and the planner asks again.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from candleshm.collector.merged_response import MergedResponse
from candleshm.collector.series_plan import Kind, PollPolicy, SeriesPlan
from candleshm.collector.stream_look import StreamLook
from candleshm.config import CollectorConfig
from candleshm.exchanges.base import KlineRequest
from candleshm.system.atomic_file import make_directory
from candleshm.system.block_log import BlockLog, is_worth_logging
from candleshm.system.clock import ExchangeTime

if TYPE_CHECKING:
    from candleshm._core import RecordingStatus, Writer

__all__ = ["NOTES", "Place", "Recording", "plan_of", "told_of"]

logger = logging.getLogger(__name__)

# A recording that could not be begun is tried again after so long.
RETRY_SECONDS = 10.0
# A replay may begin behind the oldest file, so the policy is noted again after so long.
POLICY_SECONDS = 300.0
NOTES = 2
"""What is noted: 1, requests alone; 2, all that plans learn from."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block is recorded, and how large that may become."""

    directory: Path
    bytes_max: int

    @classmethod
    def of(cls, config: CollectorConfig) -> Self | None:
        """Return the place that settings name; None where nothing is to be recorded."""
        if config.record is None:
            return None
        return cls(Path(config.record) / config.block_name, config.record_bytes_max)


class Recording:
    """The recording of one block. `look` and the notes belong to the loop; nothing is done without a place."""

    def __init__(self, writer: Writer, place: Place | None, exchange_time: ExchangeTime | None = None) -> None:
        """Begin to record. Where that fails it is logged, and tried again from `look`.

        `exchange_time` is the newest measurement of the exchange's clock; a replay's clock begins with it.
        """
        self._log = BlockLog(logger, writer.name)
        self._writer = writer
        self._place = place
        self._offset_ms = 0
        if exchange_time is not None:
            middle_ms = (exchange_time.lower_ms + exchange_time.upper_ms) / 2
            self._offset_ms = round(middle_ms - exchange_time.measured_seconds * 1000)
        self._policy: PollPolicy | None = None
        self._due_seconds = -math.inf
        self._told_error: str | None = None
        self._told_missing = 0
        self._told_removed = 0
        self.missing_records = 0
        """Records that are missing so far."""
        self.fails = False
        """Whether it cannot be written now."""
        if place is not None:
            self._start(place)

    def begin(self, policy: PollPolicy) -> None:
        """Note by what policy requests are planned from now on."""
        self._policy = policy
        self._note_policy(policy)

    def _note_policy(self, policy: PollPolicy) -> None:
        self._note({"policy": {item.name: getattr(policy, item.name) for item in fields(policy)}, "notes": NOTES})

    def note_request(
        self, plan: SeriesPlan, kind: Kind, request: KlineRequest, now: float, bounds_ms: tuple[int, int]
    ) -> None:
        """Note a request that the planner wants, or a repair, and all that was known: `now` in local seconds, and the
        exchange time that had surely been reached, and surely not been passed.
        """
        if not self._is_on:
            return
        self._note(
            {
                "request": {
                    "kind": kind.value,
                    "plan": told_of(plan),
                    "now_seconds": now,
                    "bounds_ms": bounds_ms,
                    "limit": request.limit,
                    "start_ms": request.start_ms,
                    "end_ms": request.end_ms,
                }
            }
        )

    def note_response(self, plan: SeriesPlan, response: MergedResponse) -> None:
        """Note that a plan takes in the response that was merged newest of its series."""
        if self._is_on:
            told = {item.name: getattr(response, item.name) for item in fields(response)}
            self._note(
                {
                    "response": told | {"kind": response.kind.value},
                    "symbol": plan.symbol,
                    "trading": plan.trading,
                    "is_streamed": plan.is_streamed,
                }
            )

    def note_failure(self, plan: SeriesPlan) -> None:
        """Note that a request for a series has failed."""
        if self._is_on:
            self._note({"failure": {"refused": plan.refused}, "symbol": plan.symbol})

    def note_of_plan(self, symbol: str, jitter_seconds: float) -> str | None:
        """Return the note that the plan of a series begins: to be recorded with the state of the series, if any is."""
        return _text({"plan": {"jitter_seconds": jitter_seconds}, "symbol": symbol}) if self._is_on else None

    def note_of_look(self, symbol: str, look: StreamLook) -> str | None:
        """Return the note that a plan takes in what was streamed: to be recorded with the state of the series."""
        told = {"repairs": look.repairs, "now_ms": look.now_ms}
        return _text({"look": told, "symbol": symbol}) if self._is_on else None

    @property
    def _is_on(self) -> bool:
        return self._place is not None and self._writer.recording is not None

    def look(self, now: float) -> None:
        """Log what became of it since the last look; begin it, where that has failed before."""
        if self._place is None:
            return
        status = self._writer.recording
        if status is None:
            if now >= self._due_seconds:
                self._due_seconds = now + RETRY_SECONDS
                self._start(self._place)
            return
        self.missing_records, self.fails = status.missing_records, status.error is not None
        if self._policy is not None and now >= self._due_seconds:
            self._due_seconds = now + POLICY_SECONDS
            self._note_policy(self._policy)
        self._tell(status)

    def _start(self, place: Place) -> None:
        try:
            make_directory(place.directory)
            self._writer.record_into(place.directory, bytes_max=place.bytes_max, offset_ms=self._offset_ms)
        except OSError as error:
            self.fails = True
            if self._told_error is None:
                self._told_error = str(error)
                self._log.warning("nothing is recorded in %s: %s; candles come as ever", place.directory, error)
            return
        self.fails, self._told_error = False, None
        self._log.info("recording into %s, at most %.1f MiB", place.directory, place.bytes_max / (1 << 20))
        if self._policy is not None:
            self._note_policy(self._policy)

    def _tell(self, status: RecordingStatus) -> None:
        assert self._place is not None
        if status.error is not None and self._told_error is None:
            text = "the recording in %s cannot be written: %s; candles come as ever, and what does not fit is left out"
            self._log.warning(text, self._place.directory, status.error)
        if status.error is None and self._told_error is not None:
            missing = status.missing_records - self._told_missing
            self._log.info("the recording goes on; %d records are missing in it", missing)
            self._told_missing = status.missing_records
        if status.missing_records > self._told_missing and status.error is None:
            # The disk is slower than the exchange.
            text = "the recording lacks %d records: %s is too slow; candles come as ever"
            self._log.warning(text, status.missing_records - self._told_missing, self._place.directory)
            self._told_missing = status.missing_records
        if status.removed_files > self._told_removed:
            if is_worth_logging(status.removed_files):
                text = "%d old files of the recording were removed so far, to stay below %.1f MiB"
                self._log.info(text, status.removed_files, self._place.bytes_max / (1 << 20))
            self._told_removed = status.removed_files
        self._told_error = status.error

    def _note(self, what: dict[str, Any]) -> None:
        if self._is_on:
            self._writer.note(_text(what))


def _text(what: dict[str, Any]) -> str:
    return msgspec.json.encode(what).decode()


def told_of(plan: SeriesPlan) -> dict[str, Any]:
    """Return what a plan knows as JSON has it, without its tasks; infinite seconds as texts."""
    known = ((item.name, getattr(plan, item.name)) for item in fields(plan) if item.name != "tasks")
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value for name, value in known
    }


def plan_of(told: dict[str, Any]) -> SeriesPlan:
    """Return the plan that `told_of` told of. Raises TypeError and ValueError for another thing."""
    plan = SeriesPlan("")
    for name, value in told.items():
        known = getattr(plan, name)
        if isinstance(known, float):
            value = float(value)
        elif isinstance(value, list):
            value = tuple(value)
        setattr(plan, name, value)
    return plan
