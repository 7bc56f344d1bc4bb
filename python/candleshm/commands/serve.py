"""The command `serve`: one collector in the foreground."""

from __future__ import annotations

import logging
import sys
from logging.handlers import MemoryHandler

from candleshm.commands.progress import ERASE_LINE, LoadingProgress
from candleshm.commands.signals import on_stop_signal
from candleshm.config import CollectorConfig
from candleshm.server import Collector

__all__ = ["serve"]

HELD_RECORDS = 10_000


def serve(config: CollectorConfig) -> None:
    """Serve until a signal asks to stop. Raises what `Collector.start` and `Collector.run` raise."""
    log = _hold_log()
    collector = Collector(config)
    on_stop_signal(collector.stop)
    try:
        with LoadingProgress(config.length) as progress:
            collector.start()
            progress.erase()
            if collector.status() is not None:
                sys.stdout.write(f'serving {config.segment_name}: candleshm.attach("{config.segment_name}")\n')
                sys.stdout.flush()
            _release_log(log)
            collector.wait_loaded(progress=progress)
        collector.run()
    finally:
        collector.stop()


def _hold_log() -> MemoryHandler:
    """Keep what is logged: a start that fails leaves the one line that says why, and no more."""
    held = MemoryHandler(HELD_RECORDS, flushLevel=logging.CRITICAL + 1)
    logger = logging.getLogger("candleshm")
    logger.addHandler(held)
    logger.setLevel(logging.INFO)
    return held


def _release_log(held: MemoryHandler) -> None:
    """Log to stderr, what was kept and everything from now on."""
    stream = logging.StreamHandler()
    # A progress bar may stand in the line.
    prefix = ERASE_LINE if sys.stderr.isatty() else ""
    stream.setFormatter(logging.Formatter(f"{prefix}%(asctime)s [%(levelname)s] %(message)s"))
    held.setTarget(stream)
    held.flushLevel = logging.NOTSET
    held.flush()
