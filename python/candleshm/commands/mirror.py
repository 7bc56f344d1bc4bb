"""The command `mirror`: blocks of feeds that other hosts collect, until a signal."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.mirror import Mirror
from candleshm.cluster.mirror_config import MirrorConfig
from candleshm.cluster.settings import ClusterSettings
from candleshm.commands.log import CLUSTER_LIBRARIES, HeldLog, LogFormat
from candleshm.commands.mirror_report import MirrorReport, report_of
from candleshm.commands.service_reports import ServiceReports
from candleshm.commands.signals import on_stdin_closed, on_stop_signal
from candleshm.commands.streams import say
from candleshm.errors import ConfigError
from candleshm.system.service_manager import ServiceManager

__all__ = ["Mirrors", "mirror"]

LOOK_SECONDS = 0.25
OPEN_SECONDS = 3.0


class Mirrors:
    """Several mirrors over one connection: `start` .. `stop`, or `with Mirrors(settings, mirrors) as running`.

    They end together: one that ends by a fault ends the others. Every method may be called from any thread.
    """

    def __init__(
        self, settings: ClusterSettings, configs: Sequence[MirrorConfig], *, on_end: Callable[[], object]
    ) -> None:
        """Check what needs no network. `on_end` is called when a mirror has ended by a fault, see `raise_failure`.

        Raises ConfigError, MissingExtra, ClusterRefused.
        """
        names = [config.block_name for config in configs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two mirrors have the block `{twice}`; give one of them another name by `as`")
        self._connection = ClusterConnection(settings, "candleshm mirror")
        self._mirrors = [Mirror(config, self._connection) for config in configs]
        self._on_end = on_end
        self._on_equal: Callable[[], object] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="candleshm-mirrors", daemon=True)

    def on_equal(self, listener: Callable[[], object]) -> None:
        """Have `listener` called once, when every mirror has every row of its leaders. To be called before `start`."""
        self._on_equal = listener

    def reports(self) -> Mapping[str, MirrorReport | None]:
        """Return a report of each mirror by the name of its block; None while there is no block."""
        return {each.config.block_name: report_of(each) for each in self._mirrors}

    def start(self) -> None:
        """Connect and begin; blocks come when their leaders tell of them, and servers are waited for.

        Raises ClusterRefused when a server refuses this program.
        """
        self._connection.open(OPEN_SECONDS, patiently=True)
        for each in self._mirrors:
            each.start()
        self._thread.start()

    def stop(self) -> None:
        """End all and remove their blocks. May be called repeatedly."""
        self._stopping.set()
        for each in self._mirrors:
            each.stop()
        self._connection.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def raise_failure(self) -> None:
        """Raise what ended a mirror, if anything did."""
        for each in self._mirrors:
            each.raise_failure()

    def _watch(self) -> None:
        """Say which blocks can be attached to, and notice an end."""
        waiting = list(self._mirrors)
        while not self._stopping.wait(LOOK_SECONDS):
            if any(each.has_ended for each in self._mirrors):
                self._on_end()
                return
            for each in [each for each in waiting if each.is_open]:
                waiting.remove(each)
                for name in each.block_names:
                    say(f'mirroring {name}: candleshm.attach("{name}")\n')
            if self._on_equal is not None and all(each.status and each.status.is_equal for each in self._mirrors):
                listener, self._on_equal = self._on_equal, None
                listener()


def mirror(
    settings: ClusterSettings,
    configs: Sequence[MirrorConfig],
    *,
    log_level: str = "info",
    log_format: LogFormat = "text",
    metrics: tuple[str, int] | None = None,
    metrics_per_symbol: bool = True,
    until_stdin_closes: bool = False,
) -> None:
    """Mirror until a signal asks to stop, or stdin ends; `metrics` is a host and port to serve them at.

    Raises as `Mirrors` and `MetricsServer` do, and what ends a mirror.
    """
    log = HeldLog(log_level, log_format, *CLUSTER_LIBRARIES)
    stop = threading.Event()
    on_stop_signal(stop.set)
    if until_stdin_closes:
        on_stdin_closed(stop.set)
    running = Mirrors(settings, configs, on_end=stop.set)
    with ExitStack() as stack:
        manager = ServiceManager.take_from(os.environ)
        reports = stack.enter_context(ServiceReports(manager, running.reports, awaited="the cluster"))
        running.on_equal(reports.up)
        if metrics is not None:
            from candleshm.commands.metrics import MetricsServer

            server = MetricsServer(*metrics, dict, mirrors=running.reports, with_series=metrics_per_symbol)
            say(f"metrics: {stack.enter_context(server).url}\n")
        stack.enter_context(running)
        log.release()
        stop.wait()
    running.raise_failure()
