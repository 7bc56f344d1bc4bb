"""Who keeps a series fresh: its stream, or REST while the stream is stalled, missing, or idle for too long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from candleshm.collector.agenda import Agenda
from candleshm.collector.clock_sync import ClockSync
from candleshm.collector.ingest import Ingest
from candleshm.collector.merged_response import MergedResponse
from candleshm.collector.planner import idle_seconds_max
from candleshm.collector.recording import Recording
from candleshm.collector.repair import Repair
from candleshm.collector.series_plan import Kind, PollPolicy, SeriesPlan
from candleshm.collector.stream_look import StreamLook
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
        recording: Recording,
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
        self._recording = recording
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
        repairs: dict[str, list[tuple[str, int]]] = {}
        for symbol, reason, open_ms in stream.repair_requests():
            plan = self._symbols.plans.get(symbol)
            if plan is None:
                continue
            touched[symbol] = plan
            repairs.setdefault(symbol, []).append((reason, open_ms))
        refused = stream.status.refused
        if refused > self._refused:
            self._clock_sync.events_refused(now)
        self._refused = refused
        covered = stream.covered
        for symbol, plan in self._symbols.plans.items():
            if plan.is_streamed != (symbol in covered):
                plan.is_streamed = not plan.is_streamed
                touched[symbol] = plan
        self._learn(touched, now, repairs)

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
        self._learn(due, now, {})

    def teach(self, plan: SeriesPlan, ingested: Ingested, response: MergedResponse) -> None:
        """Let a plan take a response in, and suspect its stream where that should have sent what the response had."""
        on_change = self._stream is not None and self._stream.rules.on_change
        if response.teach(plan, ingested, self._policy, on_change=on_change) and self._stream is not None:
            self._stream.suspect(plan.symbol)

    def is_polled(self, plan: SeriesPlan, now: float) -> bool:
        """Return whether REST keeps a series fresh. A stream is only idle whose silence a response has confirmed."""
        if plan.is_streamed and plan.idle_responses:
            return False
        limit_seconds = idle_seconds_max(plan, self._policy) + self._policy.update_interval_seconds
        return plan.trading and not (plan.is_streamed and now - plan.last_event_seconds < limit_seconds)

    def _note_change(self) -> None:
        self._changed.set()
        self._wake()

    def _learn(
        self, plans: Mapping[str, SeriesPlan], now: float, repairs: Mapping[str, Sequence[tuple[str, int]]]
    ) -> None:
        """Let plans take in what was streamed, and the repairs that streams wish: reasons and open times by symbol."""
        may_pause = self._stream is not None and self._stream.rules.on_change
        now_ms = self._clock_sync.earliest_ms(now)
        for symbol, plan in plans.items():
            look = StreamLook(tuple(repairs.get(symbol, ())), now_ms)
            state = self._writer.state(symbol, self._recording.note_of_look(symbol, look))
            look.teach(plan, state, self._policy, may_pause=may_pause)
            if plan.tasks:
                self._agenda.plan(plan, now, now_ms)
