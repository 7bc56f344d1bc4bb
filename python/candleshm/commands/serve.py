"""The command `serve`: one collector for each feed, all in this process, in the foreground."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from logging.handlers import MemoryHandler
from typing import NamedTuple

from candleshm.collector.supervisor import Supervisor
from candleshm.commands.progress import LoadingProgress, stderr_handler
from candleshm.commands.signals import on_stdin_closed, on_stop_signal
from candleshm.commands.streams import say
from candleshm.config import CollectorConfig
from candleshm.reader.frames import library

__all__ = ["Address", "serve"]

HELD_RECORDS = 10_000


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int


def serve(
    feeds: Sequence[CollectorConfig], *, metrics: Address | None = None, until_stdin_closes: bool = False
) -> None:
    """Serve until a signal asks to stop, or stdin ends. Raises as `Supervisor` and `MetricsServer` do."""
    log = _hold_log()
    if any(config.candle_dir is not None for config in feeds):
        library("pyarrow", "parquet")
    host = Supervisor(feeds)
    on_stop_signal(host.stop)
    if until_stdin_closes:
        on_stdin_closed(host.stop)
    with ExitStack() as stack:
        stack.callback(host.stop)
        where = ""
        if metrics is not None:
            from candleshm.commands.metrics import MetricsServer

            where = stack.enter_context(MetricsServer(*metrics, host.statuses)).url
        with LoadingProgress({config.block_name: config.length for config in feeds}) as progress:
            host.start()
            progress.erase()
            started = host.statuses()
            for config in feeds:
                if started[config.block_name] is not None:
                    for name in (config.block_name, *dict(config.derived)):
                        say(f'serving {name}: candleshm.attach("{name}")\n')
            if where:
                say(f"metrics: {where}\n")
            _release_log(log)
            host.wait_loaded(progress=progress)
        host.run()


def _hold_log() -> MemoryHandler:
    """Keep what is logged: a start that fails leaves the one line that says why, and no more."""
    held = MemoryHandler(HELD_RECORDS, flushLevel=logging.CRITICAL + 1)
    logger = logging.getLogger("candleshm")
    logger.addHandler(held)
    logger.setLevel(logging.INFO)
    return held


def _release_log(held: MemoryHandler) -> None:
    """Log to stderr, what was kept and everything from now on."""
    held.setTarget(stderr_handler())
    held.flushLevel = logging.NOTSET
    held.flush()
