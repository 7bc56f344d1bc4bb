"""The exchange's clock: measured, compared with the Date of every response, measured again when the two differ."""

from __future__ import annotations

import logging
import math

from candleshm.collector.agenda import Agenda
from candleshm.collector.ingest import Ingest
from candleshm.collector.workers import MaintenanceRequest, Report
from candleshm.errors import BadResponse
from candleshm.exchanges.base import Exchange, Response
from candleshm.system.block_log import BlockLog
from candleshm.system.clock import Clock, ExchangeTime

__all__ = ["ClockSync"]

logger = logging.getLogger(__name__)

MEASURE_SECONDS = 300.0
# A Date header that contradicts the measured time causes a measurement this often at most; a relay may always be wrong.
DISTRUST_SECONDS = 60.0
# Rows from beyond the exchange's clock show that it was set; the same rows again and again show that they are wrong.
BEYOND_SECONDS = 5.0
# An offset of this machine's clock above this is logged, and again when it has changed by as much.
OFFSET_MS = 1000


class ClockSync:
    """Keeps the exchange's time measured. Belongs to the loop; `exchange_ms` may be called from any thread."""

    def __init__(
        self,
        exchange_time: ExchangeTime,
        *,
        exchange: Exchange,
        clock: Clock,
        ingest: Ingest,
        agenda: Agenda,
        block_name: str,
    ) -> None:
        self._log = BlockLog(logger, block_name)
        self._exchange = exchange
        self._clock = clock
        self._ingest = ingest
        self._agenda = agenda
        self.time = exchange_time
        now = clock.monotonic_seconds()
        self.measurement = MaintenanceRequest(exchange.time_url, exchange.time_weight, now + MEASURE_SECONDS)
        self.must_measure = False
        """Whether no other request is sent before the time was measured."""
        self.dates_count = True
        """Whether the Date of a response is compared: not if that of the newest measurement was wrong (a relay)."""
        self._contradiction: ExchangeTime | None = None  # measured once, in conflict with the time in use
        self._date_seconds = -math.inf  # when a Date last caused a measurement
        self._logged_offset_ms = 0

    def earliest_ms(self, now: float) -> int:
        """Return the exchange time that has surely been reached at local time `now`."""
        return self.time.earliest_ms(now)

    def exchange_ms(self) -> int:
        """Return the exchange time that has surely been reached; from any thread."""
        return self.time.earliest_ms(self._clock.monotonic_seconds())

    def measure(self, now: float) -> None:
        """Measure as soon as weight allows."""
        self.measurement.due_seconds = min(self.measurement.due_seconds, now)
        self._agenda.look_now()

    def measure_first(self, reason: str, now: float) -> None:
        """Measure before any other request is sent."""
        if not self.must_measure:
            self._log.warning("%s; the exchange's clock is measured before any other request", reason)
            self.must_measure = True
            self.measure(now)

    def check_date(self, report: Report, now: float) -> None:
        """Measure first when the Date of a response contradicts the time in use."""
        is_current = report.job.exchange_time is self.time
        if report.date_is_off and is_current and now >= self._date_seconds + DISTRUST_SECONDS:
            self._date_seconds = now
            self.measure_first("the Date header of a response contradicts the measured time", now)

    def rows_from_beyond(self, now: float) -> None:
        """Measure when a response had rows from beyond the exchange's clock, unless that was just done."""
        if now >= self.time.measured_seconds + BEYOND_SECONDS:
            self.measure(now)

    def events_refused(self, now: float) -> None:
        """Measure when events were refused: most likely they are ahead of the time in use."""
        if now > self.time.measured_seconds + DISTRUST_SECONDS:
            self.measure(now)

    def take(self, response: Response) -> None:
        """Take a measurement in. Raises BadResponse when it cannot be used, or contradicts the time in use alone."""
        server_ms = self._exchange.server_time_ms(response)
        measured = ExchangeTime.measured(response.sent_seconds, response.received_seconds, server_ms)
        is_confirmed = self._contradiction is not None and self._contradiction.overlaps(measured)
        if not (self.time.overlaps(measured) or is_confirmed):
            # One server may be wrong, so a clock that was set is accepted when the next response agrees.
            self._contradiction = measured
            self.measure_first("serverTime contradicts what was measured before", response.received_seconds)
            raise BadResponse(f"serverTime contradicts what was measured before: `{server_ms}`", status=response.status)
        self._contradiction = None
        if not self.time.overlaps(measured):
            self._ingest.restart_time(response.received_seconds)
        self.time = self._ingest.exchange_time = self.time.refined(measured)
        self.dates_count = self.time.agrees_with(response.date_ms, response.sent_seconds, response.received_seconds)
        self.must_measure = False
        self.compare(response.received_seconds)
        self.measurement.due_seconds = response.received_seconds + MEASURE_SECONDS

    def offset_ms(self, now: float) -> int:
        """Return how far the machine's clock is ahead of the exchange's."""
        return self._clock.epoch_ms() - (self.time.earliest_ms(now) + self.time.latest_ms(now)) // 2

    def compare(self, now: float) -> None:
        """Log how far the machine's clock is off; no candle depends on it, but times in logs do."""
        offset_ms = self.offset_ms(now)
        if abs(offset_ms) <= OFFSET_MS + self.time.error_ms(now):
            offset_ms = 0
        if abs(offset_ms - self._logged_offset_ms) <= OFFSET_MS:
            return
        self._logged_offset_ms = offset_ms
        if offset_ms:
            text = "this machine's clock is %.1f s %s the exchange's; this affects only times in logs, not candles"
            self._log.warning(text, abs(offset_ms) / 1000, "ahead of" if offset_ms > 0 else "behind")
        else:
            self._log.info("this machine's clock agrees with that of the exchange again")
