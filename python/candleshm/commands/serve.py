"""The command `serve`: one collector for each feed, all in this process, in the foreground."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from threading import Timer
from typing import NamedTuple

from candleshm.cluster.member_config import MemberConfig
from candleshm.cluster.mirror_config import MirrorConfig
from candleshm.cluster.settings import ClusterSettings
from candleshm.collector.supervisor import Supervisor
from candleshm.commands.log import CLUSTER_LIBRARIES, HeldLog, LogFormat
from candleshm.commands.memberships import memberships
from candleshm.commands.progress import LoadingProgress
from candleshm.commands.reload import Reload
from candleshm.commands.service_reports import ServiceReports
from candleshm.commands.signals import on_stdin_closed, on_stop_signal
from candleshm.commands.streams import say
from candleshm.config import CollectorConfig
from candleshm.reader.frames import library
from candleshm.system.service_manager import ServiceManager

__all__ = ["Address", "serve"]

TELL_SECONDS = 2.0


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int


def serve(
    feeds: Sequence[CollectorConfig],
    *,
    log_level: str = "info",
    log_format: LogFormat = "text",
    metrics: Address | None = None,
    metrics_per_symbol: bool = True,
    gateway: Address | None = None,
    until_stdin_closes: bool = False,
    reload: Reload | None = None,
    cluster: ClusterSettings | None = None,
    members: Mapping[str, MemberConfig] | None = None,
    mirrors: Sequence[MirrorConfig] = (),
) -> None:
    """Serve until a signal asks to stop, or stdin ends; with `reload` SIGHUP is none of these and applies that.

    With a `cluster` each feed is one of its `members`, named by their blocks. Raises as `Supervisor`,
    `ClusterConnection`, `MetricsServer` and `GatewayChild` do.
    """
    log = HeldLog(log_level, log_format, *(() if cluster is None else CLUSTER_LIBRARIES))
    # A start that fails at once leaves its one line; who waits longer is told for what.
    telling = Timer(TELL_SECONDS, log.release)
    telling.daemon = True
    telling.start()
    if any(config.candle_dir is not None for config in feeds):
        library("pyarrow", "parquet")
    running = None
    with ExitStack() as stack:
        stack.callback(telling.cancel)
        in_cluster = stack.enter_context(memberships(cluster, feeds, members or {}))
        supervisor = Supervisor(feeds, memberships=in_cluster)
        on_stop_signal(supervisor.stop, on_hangup=None if reload is None else partial(reload.apply, supervisor))
        if until_stdin_closes:
            on_stdin_closed(supervisor.stop)
        stack.callback(supervisor.stop)
        reports = stack.enter_context(ServiceReports(ServiceManager.take_from(os.environ), supervisor.statuses))
        if mirrors and cluster is not None:
            from candleshm.commands.mirror import Mirrors

            running = stack.enter_context(Mirrors(cluster, mirrors, on_end=supervisor.stop))
        where = ""
        if metrics is not None:
            from candleshm.commands.metrics import MetricsServer

            derived = {config.block_name: config.block_names[1:] for config in feeds}
            server = MetricsServer(
                *metrics,
                supervisor.statuses,
                derived=derived,
                with_series=metrics_per_symbol,
                members=in_cluster,
                mirrors=None if running is None else running.reports,
            )
            where = stack.enter_context(server).url
        child = None
        if gateway is not None:
            from candleshm.commands.gateway_child import GatewayChild, options_of

            options = options_of(feeds, *gateway, log_level=log_level, log_format=log_format)
            child = stack.enter_context(GatewayChild(options))
        with LoadingProgress({config.block_name: config.length for config in feeds}) as progress:
            supervisor.start()
            progress.erase()
            started = supervisor.statuses()
            for config in feeds:
                if started[config.block_name] is not None:
                    for name in config.block_names:
                        say(f'serving {name}: candleshm.attach("{name}")\n')
            if where:
                say(f"metrics: {where}\n")
            telling.cancel()
            log.release()
            if child is not None:
                child.start()
            if supervisor.wait_loaded(progress=progress):
                reports.up()
        supervisor.run()
        if running is not None:
            running.raise_failure()
