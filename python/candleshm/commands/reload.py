"""SIGHUP: the file of `serve` is read again, and the symbols of running feeds follow it; all else takes a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from candleshm.collector.collector import Collector
from candleshm.collector.supervisor import Supervisor
from candleshm.commands.settings import Configuration
from candleshm.config import SYMBOL_FIELDS, CollectorConfig, settings
from candleshm.errors import CandleShmError
from candleshm.system.log_text import printable, without_credentials

__all__ = ["Reload"]

logger = logging.getLogger(__name__)


class Reload:
    """Reads a configuration again, and has running feeds follow it."""

    def __init__(self, path: Path, read: Callable[[], Configuration], given: Configuration) -> None:
        """`read` reads the file at `path` as it was read at the start, which gave `given`."""
        self._path = path
        self._read = read
        self._process = given.process

    def apply(self, supervisor: Supervisor) -> None:
        """Read the file and change what may change; a line for each key that may not. A broken file changes nothing.

        Never raises: the thread of the signals has to stay.
        """
        try:
            self._apply(supervisor)
        except Exception:
            logger.exception("%s was read again, and an internal error kept the feeds from following it", self._path)

    def _apply(self, supervisor: Supervisor) -> None:
        try:
            wanted = self._read()
        except (CandleShmError, OSError) as error:
            text = printable(without_credentials(" ".join(str(error).split())))
            logger.error("%s was read again and is not used, everything stays as it is: %s", self._path, text)
            return
        running = supervisor.collectors
        feeds = {config.block_name: config for config in wanted.feeds}
        for line in self._refused(running.keys(), feeds.keys(), wanted):
            logger.warning("%s: %s", self._path, line)
        followed = 0
        for name, config in feeds.items():
            if name in running:
                followed += self._follow(running[name], config)
        logger.info("%s was read again; the symbols of %d feeds change", self._path, followed)

    def _refused(self, running: Iterable[str], wanted: Iterable[str], configuration: Configuration) -> Iterator[str]:
        for name in sorted(set(wanted) - set(running)):
            yield f"the feed of block {name} is new, and is not started; it takes a restart"
        for name in sorted(set(running) - set(wanted)):
            yield f"the feed of block {name} is gone, and goes on; it takes a restart"
        for key in sorted(self._process.keys() | configuration.process.keys()):
            if self._process.get(key) != configuration.process.get(key):
                yield f"{key} has changed, and stays as it was; it takes a restart"

    def _follow(self, collector: Collector, wanted: CollectorConfig) -> bool:
        """Have one feed follow, and return whether its symbols or filters have changed."""
        about = settings()
        changed = [field.name for field in fields(wanted) if _differs(collector.config, wanted, field.name)]
        for name in changed:
            if name not in SYMBOL_FIELDS:
                before, now = (
                    "(not shown)" if about[name].is_secret else getattr(config, name)
                    for config in (collector.config, wanted)
                )
                logger.warning(
                    "%s: %s of block %s is `%s` now, and stays `%s`; it takes a restart",
                    self._path,
                    name,
                    wanted.block_name,
                    now,
                    before,
                )
        if not set(changed) & set(SYMBOL_FIELDS):
            return False
        collector.follow(wanted)
        return True


def _differs(before: CollectorConfig, now: CollectorConfig, name: str) -> bool:
    old, new = getattr(before, name), getattr(now, name)
    if name in SYMBOL_FIELDS and isinstance(old, tuple) and isinstance(new, tuple):
        return set(old) != set(new)
    return bool(old != new)
