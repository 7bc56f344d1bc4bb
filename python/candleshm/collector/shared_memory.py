"""The shared memory that the blocks of a collector take, compared with what is free before any of them is made."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from candleshm._core import block_bytes
from candleshm.config import CollectorConfig
from candleshm.errors import BlockUnavailable

__all__ = ["MIB", "SharedMemory", "free_bytes"]

DIRECTORY = Path("/dev/shm")
MIB = 1 << 20


@dataclass(frozen=True)
class SharedMemory:
    """What the block of a feed, and those derived from it, take."""

    bytes_of: Mapping[str, int]
    """By the names of the blocks, the feed's own first."""

    @classmethod
    def of(cls, config: CollectorConfig, places: int) -> Self:
        """Return what a feed takes with so many places for symbols. Raises ConfigError for more than a block has."""
        lengths = {config.block_name: config.length} | {block.name: block.length for block in config.derived}
        return cls({name: block_bytes(length, places) for name, length in lengths.items()})

    @property
    def total_bytes(self) -> int:
        """The bytes of all blocks."""
        return sum(self.bytes_of.values())

    @property
    def missing_bytes(self) -> int:
        """The bytes of the blocks that are not there yet. One of the same size is taken over where nobody serves it."""
        return sum(size for name, size in self.bytes_of.items() if _size_of(name) != size)

    def check(self) -> None:
        """Raise BlockUnavailable when there is not enough free memory for all blocks together."""
        found = os.statvfs(DIRECTORY)
        if self.missing_bytes > free_bytes():
            size_bytes = found.f_blocks * found.f_frsize
            raise BlockUnavailable(
                next(iter(self.bytes_of)),
                f"{self}, and {DIRECTORY} has {free_bytes() // MIB} MiB free of {size_bytes // MIB} MiB; enlarge it "
                f"(docker: --shm-size), or serve fewer symbols or a smaller length{self._advice()}",
                errno.ENOSPC,
            )

    def __str__(self) -> str:
        count = len(self.bytes_of)
        subject = "it needs" if count == 1 else f"it and {count - 1} derived blocks need"
        return f"{subject} {-(-self.total_bytes // MIB)} MiB of shared memory"

    def _advice(self) -> str:
        return ", or give derived intervals a length of their own (1d:400)" if len(self.bytes_of) > 1 else ""


def free_bytes() -> int:
    """Return how much shared memory is free."""
    found = os.statvfs(DIRECTORY)
    return found.f_bavail * found.f_frsize


def _size_of(name: str) -> int | None:
    try:
        return (DIRECTORY / name).stat(follow_symlinks=False).st_size
    except OSError:
        return None
