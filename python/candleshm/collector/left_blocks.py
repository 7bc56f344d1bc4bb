"""Derived blocks that a killed collector left behind, and that the next one of its block does not derive any more."""

from __future__ import annotations

from collections.abc import Collection

from candleshm import _core
from candleshm.errors import BlockError
from candleshm.reader.collector_report import last_report
from candleshm.reader.feed import attach

__all__ = ["remove_left_blocks"]


def remove_left_blocks(name: str, derived: Collection[str]) -> list[str]:
    """Remove what the collector before derived from the block `name`, but for the blocks `derived`; return the names.

    Its report has survived it: a name alone would not tell whose a block is. Only the owner of `name` may call this.
    """
    report = last_report(name)
    if report is None:
        return []
    removed = []
    for left in report.derived:
        if left in derived or left == name:
            continue
        try:
            with attach(left) as feed:
                is_left = feed.health.pid == report.pid
            if is_left:
                _core.unlink(left)  # Not while a process owns it.
                removed.append(left)
        except BlockError:
            continue  # It is gone, or of somebody who lives.
    return removed
