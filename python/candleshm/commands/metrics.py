"""The page of `serve --metrics` and `mirror --metrics`: blocks and collectors in Prometheus' text format.

Everything is read at a scrape, at most once a second; facts about candles come from the block, as any reader sees it.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from candleshm.collector.status import CollectorStatus
from candleshm.commands.scrape_server import ScrapeServer
from candleshm.errors import BlockError
from candleshm.reader.feed import Feed
from candleshm.reader.frames import library
from candleshm.reader.health import ERROR_KINDS
from candleshm.reader.observation import Observation, SeriesFacts, attach_to_observe, observe
from candleshm.row_state import RowState

if TYPE_CHECKING:
    from candleshm.cluster.member import Member
    from candleshm.commands.mirror_report import MirrorReport

__all__ = ["MetricsServer"]

EXTRA = "metrics"
PATH = "/metrics"
SHARED_MEMORY = "/dev/shm"


class _Gauge(NamedTuple):
    name: str
    text: str
    value: Callable[[Any], float]


class _Counter(NamedTuple):
    """As a gauge, for a value that only rises; Prometheus shows its name with `_total`."""

    name: str
    text: str
    value: Callable[[Any], float]


_Column = _Gauge | _Counter

OF_SERIES: Sequence[_Column] = (
    _Gauge("series_age_seconds", "Seconds since the exchange last confirmed the series.", lambda f: f.age_seconds),
    _Gauge(
        "series_newest_state",
        f"State of the newest slot: {', '.join(f'{state.value} {state.word}' for state in RowState)}.",
        lambda facts: facts.newest_state,
    ),
    _Gauge("series_trading", "1 while the symbol trades, else 0.", lambda facts: facts.trading),
    _Gauge("series_missing_rows", "Rows of the window that are not fetched yet.", lambda facts: facts.missing),
    _Gauge("series_hole_rows", "Rows of the window that the exchange does not have.", lambda facts: facts.holes),
    _Counter("series_corrections", "Closed rows that the exchange corrected.", lambda facts: facts.revision),
)
OF_BLOCK: Sequence[_Column] = (
    _Gauge("ready", "1 while every symbol is loaded and its data is current, else 0.", lambda health: health.ready),
    _Gauge("loaded", "1 once every symbol has been loaded.", lambda health: health.loaded),
    _Gauge("stale_symbols", "Trading symbols with data older than 60 s.", lambda health: health.stale),
    _Gauge(
        "oldest_age_seconds",
        "Age of the oldest data of any trading symbol; infinite while none has data.",
        lambda health: health.oldest_age,
    ),
    _Gauge("symbols", "Symbols in the block.", lambda health: health.symbols),
    _Gauge("missing_rows", "Rows of all windows that are not fetched yet.", lambda health: health.missing),
    _Gauge("hole_rows", "Rows of all windows that the exchange does not have.", lambda health: health.holes),
    _Gauge("heartbeat_age_seconds", "Age of the collector's last heartbeat.", lambda health: health.heartbeat_age),
)
OF_COLLECTOR: Sequence[_Column] = (
    _Gauge("loaded_symbols", "Symbols that have all their rows.", lambda status: status.loaded),
    _Gauge("failing_symbols", "Symbols whose newest request failed.", lambda status: len(status.failing)),
    _Gauge("given_up_symbols", "Symbols that could not be loaded; they are retried.", lambda s: len(s.given_up)),
    _Gauge("silent_symbols", "Symbols that are listed as trading but have no new candles.", lambda s: len(s.silent)),
    _Gauge(
        "standing_symbols",
        "Symbols for which the exchange keeps returning old data.",
        lambda status: len(status.standing),
    ),
    _Gauge("weight_used", "Request weight used in the current window.", lambda status: status.weight_used),
    _Gauge("weight_limit", "Request weight that the exchange allows.", lambda status: status.weight_limit),
    _Gauge(
        "banned_until_timestamp_seconds",
        "Exchange time at which requests are allowed again; 0 while they are allowed.",
        lambda status: (status.banned_until_ms or 0) / 1000,
    ),
    _Gauge(
        "clock_error_seconds",
        "Uncertainty of the measured exchange time.",
        lambda status: status.clock_error_ms / 1000,
    ),
    _Gauge(
        "local_clock_offset_seconds",
        "How far the clock of this machine is ahead of the exchange's; it affects times in logs only.",
        lambda status: status.local_clock_offset_ms / 1000,
    ),
    _Counter("bans", "Times that a 418 or 403 stopped all requests.", lambda status: status.bans),
    _Counter("requests", "Requests sent.", lambda status: status.requests),
    _Counter("weight_spent", "Request weight of the requests sent.", lambda status: status.weight_spent),
    _Counter("ingests", "Responses parsed, merged and published.", lambda status: status.ingests),
    _Counter(
        "ingest_seconds", "Seconds spent parsing, merging and publishing them.", lambda status: status.ingest_seconds
    ),
    _Counter("rows", "Received rows that were new or changed.", lambda status: status.rows),
    _Counter("refused_rows", "Rows refused because of impossible values.", lambda status: status.refused),
    _Counter("corrections", "Closed rows that the exchange corrected.", lambda status: status.corrections),
    _Gauge(
        "derived_unfilled_series",
        "Series of derived blocks whose older rows are not all fetched yet.",
        lambda status: status.derived_series - status.derived_filled,
    ),
    _Gauge("derived_missing_rows", "Older rows of derived blocks to be fetched.", lambda s: s.derived_missing),
    _Counter(
        "derived_conflicts",
        "Derived rows of which the exchange sent other values; the exchange's are kept.",
        lambda status: status.derived_conflicts,
    ),
    _Gauge("caches_failing", "Caches that could not be written the last time.", lambda status: status.caches_failing),
    _Counter(
        "recording_missing_records",
        "Records that the recording of the exchange lacks, because the disk was too slow or full.",
        lambda status: status.records_missing,
    ),
    _Gauge("recording_failing", "Whether the recording cannot be written now.", lambda s: int(s.recording_fails)),
    _Gauge(
        "daily_files_due",
        "Days whose daily files are due and not complete.",
        lambda status: status.days_due,
    ),
    _Gauge("polled_symbols", "Symbols kept fresh by requests instead of streams.", lambda status: status.polled),
    _Counter("audits", "Requests that only checked closed rows.", lambda status: status.audits),
)
OF_MEMBER: Sequence[_Column] = (
    _Gauge("cluster_led_shards", "Shards of the feed that this collector leads.", lambda member: member.led),
    _Gauge("cluster_shards", "Shards into which the feed is divided.", lambda member: member.shards),
    _Gauge("cluster_unled_shards", "Shards that nobody leads, as far as known.", lambda member: member.unled),
    _Gauge("cluster_epoch", "Newest epoch of a shard that this collector leads; 0 for none.", lambda m: m.epoch),
    _Gauge("cluster_alone", "1 while the collector has no lease and serves its own host only.", lambda m: m.is_alone),
    _Gauge("cluster_complete", "1 while the block has every row that its leaders have.", lambda m: m.is_complete),
    _Gauge("cluster_differing", "Requests for rows that the newest comparison led to.", lambda m: m.differing),
    _Gauge("cluster_lag_seconds", "Age of the newest change of another host when it was applied.", lambda m: m.lag),
    _Gauge("cluster_members", "Collectors of the feed that are present, this one included.", lambda m: m.members),
    _Gauge("cluster_mirrors", "Mirrors of the feed that are present.", lambda member: member.mirrors),
)
OF_MIRROR: Sequence[_Column] = (
    _Gauge("mirror_shards", "Shards of the feed that the mirror knows.", lambda report: len(report.status.shards)),
    _Gauge("mirror_epoch", "Newest epoch of a leader that the mirror follows; 0 before.", lambda r: r.status.epoch),
    _Gauge("mirror_complete", "1 while the block has every row that its leaders have.", lambda r: r.status.is_equal),
    _Gauge("mirror_differing", "Requests for rows that the newest comparisons led to.", lambda r: r.status.differing),
    _Gauge(
        "mirror_lag_seconds",
        "Age of the newest change when it was applied; not a number before the first.",
        lambda report: math.nan if report.status.lag_seconds is None else report.status.lag_seconds,
    ),
    _Gauge(
        "mirror_leader_silent_seconds",
        "Seconds since the most silent leader said something; infinite while one never did.",
        lambda report: report.status.silent_seconds,
    ),
    _Counter("mirror_messages", "Messages of leaders that were applied.", lambda report: report.status.messages),
    _Counter("mirror_rows", "Rows that these messages changed.", lambda report: report.status.rows),
    _Counter("mirror_gaps", "Times that messages were missing.", lambda report: report.status.gaps),
    _Counter("mirror_dropped_messages", "Messages for which there was no room.", lambda r: r.status.dropped),
    _Counter("mirror_requests", "Requests for rows that the mirror sent.", lambda report: report.status.requests),
    _Counter("mirror_unanswered_requests", "Requests that nobody answered.", lambda r: r.status.unanswered),
    _Counter("mirror_answered_requests", "Requests of others that the mirror answered.", lambda r: r.answered),
)
OF_STREAM: Sequence[_Column] = (
    _Gauge("stream_connections", "Open stream connections.", lambda stream: stream.connections),
    _Gauge("stream_symbols", "Symbols with a stream on an open connection.", lambda stream: stream.streams),
    _Gauge("stream_stalled_symbols", "Symbols whose stream is stalled or has no connection.", lambda s: len(s.stalled)),
    _Counter(
        "stream_path_moves",
        "Moves to another path of the streams, because one was refused or sent no data.",
        lambda stream: stream.path_moves,
    ),
    _Counter("stream_connects", "Stream connections opened.", lambda stream: stream.opened),
    _Counter(
        "stream_losses",
        "Stream connections that ended before their replacement had taken over.",
        lambda stream: stream.lost,
    ),
    _Counter("stream_events", "Candle events received from streams.", lambda stream: stream.events),
    _Counter("stream_stale_events", "Candle events that were older than the known row.", lambda stream: stream.stale),
    _Counter("stream_refused_events", "Candle events with impossible values, refused.", lambda stream: stream.refused),
    _Counter("stream_faulty_frames", "Frames that could not be read.", lambda stream: stream.faults),
)


class MetricsServer:
    """Serves Prometheus until it is closed; a context manager. `statuses` is called at every scrape."""

    def __init__(
        self,
        host: str,
        port: int,
        statuses: Callable[[], Mapping[str, CollectorStatus | None]],
        *,
        derived: Mapping[str, Sequence[str]] | None = None,
        with_series: bool = True,
        members: Mapping[str, Member] | None = None,
        mirrors: Callable[[], Mapping[str, MirrorReport | None]] | None = None,
    ) -> None:
        """Listen. `derived` are the names of the blocks derived from each feed's; `with_series` shows every symbol.

        `members` are those of a cluster, by the names of their blocks; `mirrors` is called at every scrape as well.

        Raises MissingExtra without prometheus-client, OSError when it cannot listen there.
        """
        self._core = library("prometheus_client.core", EXTRA)
        exposition = library("prometheus_client.exposition", EXTRA)
        self._statuses = statuses
        self._derived = derived or {}
        self._members = members or {}
        self._mirrors = mirrors
        self._with_series = with_series
        self._feeds: dict[str, Feed] = {}
        self._registry = self._core.CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        library("prometheus_client.process_collector", EXTRA).ProcessCollector(registry=self._registry)
        self._choose_encoder = exposition.choose_encoder
        try:
            self._server = ScrapeServer(host, port, PATH, self._page)
        except OSError as error:
            reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
            raise OSError(error.errno, reason, f"{host}:{port}") from None

    @property
    def url(self) -> str:
        """URL of the page, with the port that was chosen for 0."""
        host, port = self._server.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}"

    def _page(self, accept: str) -> tuple[str, bytes]:
        encoder, content_type = self._choose_encoder(accept)
        return content_type, encoder(self._registry)

    def collect(self) -> Iterator[Any]:
        """Return the metrics of this moment; Prometheus' client calls it at every scrape, in the server's thread."""
        statuses = {name: status for name, status in self._statuses().items() if status is not None}
        told = {} if self._mirrors is None else self._mirrors()
        mirrors = {name: report for name, report in told.items() if report is not None}
        collected = {name: observe(feed) for name in (*statuses, *mirrors) if (feed := self._feed(name)) is not None}
        derived = [name for source in statuses for name in self._derived.get(source, ())]
        derived += [name for report in mirrors.values() for name in report.block_names[1:]]
        seen = collected | {name: observe(feed) for name in derived if (feed := self._feed(name)) is not None}
        yield self._build()
        yield self._info(seen)
        if self._with_series:
            # Those of derived blocks tell nothing that their sources do not.
            yield from self._families(OF_SERIES, ("block", "symbol"), _series_of(collected))
        yield from self._families(OF_BLOCK, ("block",), {(name,): block.health for name, block in seen.items()})
        yield from self._families(OF_COLLECTOR, ("block",), {(name,): status for name, status in statuses.items()})
        streams: dict[tuple[str, ...], object] = {
            (name,): status.stream for name, status in statuses.items() if status.stream is not None
        }
        yield from self._families(OF_STREAM, ("block",), streams)
        figures: dict[tuple[str, ...], object] = {(name,): member.figures for name, member in self._members.items()}
        yield from self._families(OF_MEMBER, ("block",), figures)
        if self._mirrors is not None:
            yield from self._families(OF_MIRROR, ("block",), {(name,): report for name, report in mirrors.items()})
            text = "Messages that the mirror did not use, by reason."
            refused = {name: report.status.refused for name, report in mirrors.items()}
            yield self._counts("mirror_refused_messages", text, "reason", refused)
        yield self._universe(seen)
        yield from self._shared_memory()
        yield self._counts("request_errors", "Requests that failed, by kind of error.", "kind", _errors_of(statuses))
        text = "Closed rows that were checked, by result: equal, corrected, missing."
        yield self._counts("audit_rows", text, "result", _audits_of(statuses))
        text = "Rows that a second source confirmed or contradicted, by that source."
        yield self._counts("reconciled_rows", text, "result", _reconciled_of(statuses))

    def close(self) -> None:
        """Stop serving."""
        self._server.close()
        for feed in self._feeds.values():
            feed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _feed(self, name: str) -> Feed | None:
        if name not in self._feeds:
            try:
                self._feeds[name] = attach_to_observe(name)
            except BlockError:
                return None  # It is being created or removed, or no descriptor is free.
        return self._feeds[name]

    def _families(
        self, columns: Sequence[_Column], labels: Sequence[str], rows: Mapping[tuple[str, ...], object]
    ) -> Iterator[Any]:
        for column in columns:
            is_counter = isinstance(column, _Counter)
            make = self._core.CounterMetricFamily if is_counter else self._core.GaugeMetricFamily
            family = make(f"candleshm_{column.name}", column.text, labels=labels)
            for values, row in rows.items():
                family.add_metric(values, float(column.value(row)))
            yield family

    def _build(self) -> Any:
        family = self._core.InfoMetricFamily("candleshm_build", "Version of candleshm.", labels=("version",))
        family.add_metric((version("candleshm"),), {})
        return family

    def _info(self, seen: Mapping[str, Observation]) -> Any:
        labels = ("block", "market", "price", "interval", "length")
        family = self._core.InfoMetricFamily(
            "candleshm_block", "Market, price, interval, length of the block.", labels=labels
        )
        for name, block in seen.items():
            health = block.health
            family.add_metric((name, health.market, health.price, health.interval, str(health.length)), {})
        return family

    def _shared_memory(self) -> Iterator[Any]:
        room = shutil.disk_usage(SHARED_MEMORY)
        for name, text, value in (
            ("free", "Shared memory of this machine that is free, where blocks lie.", room.free),
            ("size", "Shared memory of this machine, where blocks lie.", room.total),
        ):
            yield self._core.GaugeMetricFamily(f"candleshm_shared_memory_{name}_bytes", text, value=value)

    def _universe(self, seen: Mapping[str, Observation]) -> Any:
        text = "Seconds since the end of the newest candle that every trading symbol has final, by the local clock."
        family = self._core.GaugeMetricFamily("candleshm_universe_bar_age_seconds", text, labels=("block",))
        now_ms = time.time() * 1000
        for name, block in seen.items():
            if block.closed_until_ms is not None:
                family.add_metric((name,), (now_ms - block.closed_until_ms) / 1000)
        return family

    def _counts(self, name: str, text: str, label: str, counts: Mapping[str, Mapping[str, int]]) -> Any:
        family = self._core.CounterMetricFamily(f"candleshm_{name}", text, labels=("block", label))
        for block, of_block in counts.items():
            for value, count in of_block.items():
                family.add_metric((block, value), count)
        return family


def _errors_of(statuses: Mapping[str, CollectorStatus]) -> dict[str, Mapping[str, int]]:
    # A counter that is not there before the first error has no increase at the first.
    return {name: dict.fromkeys(ERROR_KINDS[:-1], 0) | dict(status.errors) for name, status in statuses.items()}


def _audits_of(statuses: Mapping[str, CollectorStatus]) -> dict[str, Mapping[str, int]]:
    return {name: status.audit_rows for name, status in statuses.items()}


def _reconciled_of(statuses: Mapping[str, CollectorStatus]) -> dict[str, Mapping[str, int]]:
    return {
        name: {
            "verified_by_stream": status.stream.verified,
            "verified_by_answer": status.verified,
            "conflict_in_stream": status.stream.conflicts,
            "conflict_in_response": status.conflicts,
        }
        for name, status in statuses.items()
        if status.stream is not None
    }


def _series_of(seen: Mapping[str, Observation]) -> dict[tuple[str, ...], SeriesFacts]:
    return {(name, facts.symbol): facts for name, block in seen.items() for facts in block.series}
