"""Writes the cache of a block over and over until it is killed: `python -m tests.support.cache_writer NAME DIR`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from candleshm.collector.cache import BlockCache, Origin

if __name__ == "__main__":
    name, directory = sys.argv[1:]
    cache = BlockCache(Path(directory), Origin(name, "SPOT", "1m", "test"))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        cache.save(time.time_ns() // 1_000_000)
