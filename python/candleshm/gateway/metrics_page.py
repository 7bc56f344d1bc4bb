"""The route `/metrics`: what a gateway counted, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from candleshm.errors import MissingExtra
from candleshm.gateway.counts import BUCKETS_SECONDS, Counts
from candleshm.gateway.refusals import Refused
from candleshm.reader.frames import library

__all__ = ["metrics_routes"]

EXTRA = "metrics"
PREFIX = "candleshm_gateway"


def metrics_routes(counts: Counts) -> list[BaseRoute]:
    """Return the route. Without prometheus-client it says what to install."""
    return [Route("/metrics", MetricsPage(counts))]


class MetricsPage:
    """An ASGI application that reads the counts at every scrape."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._core: Any = None
        self._encoder: Callable[[str], tuple[Callable[[Any], bytes], str]] | None = None
        self._registry: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"*/*").decode("latin-1")
        status = 200
        try:
            kind, body = self._page(accept)
            headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        except MissingExtra as error:
            refused = Refused(404, -1099, str(error))
            status, body, headers = refused.status, refused.body, refused.headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def collect(self) -> Iterator[Any]:
        """Return the metrics of this moment; Prometheus' client calls it at every scrape."""
        counts, core = self._counts, self._core
        family = core.CounterMetricFamily(
            f"{PREFIX}_requests", "Responses, by path, status and source.", labels=("path", "status", "source")
        )
        for (path, status, source), count in counts.requests.items():
            family.add_metric((path, str(status), source), count)
        yield family
        text = "Seconds from a whole request to the end of its response, by path."
        histogram = core.HistogramMetricFamily(f"{PREFIX}_request_seconds", text, labels=("path",))
        for path, seconds in counts.seconds.items():
            total, buckets = 0, []
            for end, count in zip((*map(str, BUCKETS_SECONDS), "+Inf"), seconds.buckets, strict=True):
                total += count
                buckets.append((end, total))
            histogram.add_metric((path,), buckets, seconds.total)
        yield histogram
        for name, text, value in (
            ("connections", "Open connections, websockets included.", counts.connections()),
            ("requests_in_flight", "Requests that have no response yet.", counts.in_flight()),
            ("websocket_clients", "Open websockets.", counts.websockets()),
            ("streams", "Streams that some client has subscribed to.", counts.streams()),
        ):
            yield core.GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)
        yield self._counter("closed_connections", "Connections that were closed or refused.", "reason", counts.closed())
        yield self._counter("dropped_clients", "Websockets that the gateway closed, by code.", "code", counts.dropped())

    def _counter(self, name: str, text: str, label: str, values: Mapping[Any, int]) -> Any:
        family = self._core.CounterMetricFamily(f"{PREFIX}_{name}", text, labels=(label,))
        for value, count in values.items():
            family.add_metric((str(value),), count)
        return family

    def _page(self, accept: str) -> tuple[str, bytes]:
        """Return type and text. Raises MissingExtra."""
        if self._encoder is None:
            self._core = library("prometheus_client.core", EXTRA)
            self._registry = self._core.CollectorRegistry(auto_describe=False)
            self._registry.register(self)
            self._encoder = library("prometheus_client.exposition", EXTRA).choose_encoder
        encoder, kind = self._encoder(accept)
        return kind, encoder(self._registry)
