"""Who keeps a series fresh: its stream, or REST while the stream is stalled, missing, or idle for too long."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from candleshm.collector.agenda import Agenda
from candleshm.collector.clock_sync import ClockSync
from candleshm.collector.ingest import Ingest
from candleshm.collector.planner import idle_seconds_max
from candleshm.collector.repair import Repair
from candleshm.collector.series_plan import IDLE_RESPONSES_MAX, Kind, PollPolicy, SeriesPlan
from candleshm.collector.symbols import SymbolSet
from candleshm.stream.source import MakeStreams, StreamSource
from candleshm.stream.status import StreamStatus

if TYPE_CHECKING:
    from candleshm._core import Ingested, Writer

__all__ = ["Failover"]


class Failover:
    """Lets plans follow what streams send, and REST take over where they do not. Belongs to the loop."""

    def __init__(
        self,
        writer: Writer,
        *,
        ingest: Ingest,
        policy: PollPolicy,
        symbols: SymbolSet,
        clock_sync: ClockSync,
        repair: Repair,
        agenda: Agenda,
        make_streams: MakeStreams | None,
        wake: Callable[[], None],
    ) -> None:
        """`wake` ends the loop's sleep; the thread of the streams calls it. Without streams REST does everything."""
        self._writer = writer
        self._ingest = ingest
        self._policy = policy
        self._symbols = symbols
        self._clock_sync = clock_sync
        self._repair = repair
        self._agenda = agenda
        self._wake = wake
        self._changed = threading.Event()
        self._refused = 0
        self._stream: StreamSource | None = None
        if make_streams is not None:
            self._stream = make_streams(ingest, self._note_change)

    @property
    def has_streams(self) -> bool:
        """Whether there are streams at all."""
        return self._stream is not None

    @property
    def stream_status(self) -> StreamStatus | None:
        """What the streams do; None without any."""
        return None if self._stream is None else self._stream.status

    def start(self) -> None:
        """Start the streams."""
        if self._stream is not None:
            self._stream.start()

    def stop(self) -> None:
        """End the streams, from any thread."""
        if self._stream is not None:
            self._stream.stop()

    def follow(self, fresh: list[SeriesPlan]) -> None:
        """Stream the symbols that trade; `fresh` are plans that are new."""
        if self._stream is None:
            return
        self._stream.follow([symbol for symbol, plan in self._symbols.plans.items() if plan.trading])
        for plan in fresh:
            plan.is_streamed = plan.symbol in self._stream.covered

    def rest(self, symbols: frozenset[str]) -> None:
        """Expect nothing of the streams of these symbols, whose market does not trade."""
        if self._stream is not None:
            self._stream.rest(symbols)

    def look(self, now: float) -> None:
        """Take repair requests and changes of coverage in, if there are any."""
        stream = self._stream
        if stream is None or not self._changed.is_set():
            return
        self._changed.clear()
        touched: dict[str, SeriesPlan] = {}
        for symbol, reason, open_ms in stream.repair_requests():
            plan = self._symbols.plans.get(symbol)
            if plan is None:
                continue
            touched[symbol] = plan
            if reason == "rows":
                plan.no_progress = 0
            elif reason == "suspect":
                self._repair.suspect(plan, open_ms, now)
        refused = stream.status.refused
        if refused > self._refused:
            self._clock_sync.events_refused(now)
        self._refused = refused
        covered = stream.covered
        for symbol, plan in self._symbols.plans.items():
            if plan.is_streamed != (symbol in covered):
                plan.is_streamed = not plan.is_streamed
                touched[symbol] = plan
        self._learn(touched, now)

    def catch_up(self, now: float) -> None:
        """Let plans that are due take in what was streamed meanwhile; mostly nothing is left to request."""
        if self._stream is None:
            return
        due: dict[str, SeriesPlan] = {}
        for symbol, plan in self._symbols.plans.items():
            if plan.loaded:
                for task in plan.tasks:
                    if task.due_seconds <= now and task.kind not in (Kind.BACKFILL, Kind.CONFIRM):
                        due[symbol] = plan
        self._learn(due, now)

    def judge(self, plan: SeriesPlan, ingested: Ingested, kind: Kind) -> None:
        """Distinguish an idle stream from a stalled one: a response had something newer that was not streamed."""
        stream = self._stream
        if stream is None or kind is not Kind.TAIL or not plan.is_streamed or not plan.loaded:
            return
        if ingested.changed:
            plan.idle_responses = 0
            stream.suspect(plan.symbol)
        elif stream.rules.on_change and plan.last_event_seconds > -math.inf:
            plan.idle_responses = min(IDLE_RESPONSES_MAX, plan.idle_responses + 1)

    def is_polled(self, plan: SeriesPlan, now: float) -> bool:
        """Return whether REST keeps a series fresh. A stream is only idle whose silence a response has confirmed."""
        if plan.is_streamed and plan.idle_responses:
            return False
        limit_seconds = idle_seconds_max(plan, self._policy) + self._policy.update_interval_seconds
        return plan.trading and not (plan.is_streamed and now - plan.last_event_seconds < limit_seconds)

    def _note_change(self) -> None:
        self._changed.set()
        self._wake()

    def _learn(self, plans: Mapping[str, SeriesPlan], now: float) -> None:
        may_pause = self._stream is not None and self._stream.rules.on_change
        for symbol, plan in plans.items():
            position = self._writer.state(symbol)
            if position.last_event_seconds > plan.last_event_seconds:
                plan.last_event_seconds = position.last_event_seconds
                plan.idle_responses = 0
            plan.stream_pause_seconds = position.stream_pause_seconds if may_pause else 0.0
            plan.follow(position)
            plan.note_missing(position)
            if plan.tasks:
                self._agenda.plan(plan, now, self._clock_sync.earliest_ms(now))
