"""Blocks damaged at random, asked through the public API, in a process whose crash would be seen.

``damaged_blocks NAME WHAT COUNT`` makes a block, damages its ``header`` or its ``body`` COUNT times,
and asks it everything each time. Only errors of candleshm may come out. It prints how often the block could be
attached to.
"""

from __future__ import annotations

import contextlib
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import candleshm
from candleshm import _core
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

LENGTH = 16
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
HEADER_WORDS = 70
"""The words of the header that mean something."""
PAGE_WORDS = 512
EXTREMES = (0, 1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 0x7FF8 << 48, 0x7FF0 << 48)
MOMENTS = np.array([-(2**63), 0, START_MS, 2**63 - 1], dtype=np.int64)


def make(name: str) -> bytes:
    """Make a block with closed rows, a gap and live rows, whose writer is gone, and return its bytes."""
    writer = _core.Writer.open(name, market="SPOT", interval="1m", length=LENGTH, symbols=SYMBOLS, spare_symbols=1)
    for symbol in SYMBOLS:
        rows = [kline(START_MS + bar * MINUTE_MS, 100 + bar) for bar in range(30) if bar % 7]
        ingest(writer, symbol, *rows, sent_ms=START_MS + 29 * MINUTE_MS + 30_000)
    image = (Path("/dev/shm") / name).read_bytes()
    writer.close()
    (Path("/dev/shm") / name).write_bytes(image)
    return image


def spoil(image: bytearray, word: int, chance: random.Random) -> None:
    """Put something else into a word."""
    (was,) = struct.unpack_from("<Q", image, 8 * word)
    kinds: tuple[Callable[[], int], ...] = (
        lambda: chance.getrandbits(64),
        lambda: was ^ 1 << chance.randrange(64),
        lambda: was + chance.randrange(-8, 9),
        lambda: was & 0xFFFFFFFF | chance.getrandbits(32) << 32,
        lambda: was & ~0xFF | chance.randrange(16),
        lambda: chance.choice(EXTREMES),
    )
    struct.pack_into("<Q", image, 8 * word, chance.choice(kinds)() % 2**64)


def ask_everything(name: str) -> None:
    """Attach and call what there is; raises errors of candleshm at most."""
    with candleshm.attach(name) as feed:
        complaints = contextlib.suppress(candleshm.CandleShmError)
        assert feed.health.name == name
        for symbol in feed.symbols:
            series = feed[symbol]
            with complaints:
                assert len(series.candles(holes="nan")) <= feed.length
            with complaints:
                series.candles(5, closed_only=True, out=np.empty((5, 12)))
            with complaints:
                view = series.view()
                assert len(view) <= feed.length
                np.nansum(view.array)
                view.valid()
            with complaints:
                assert len(series.states(holes="nan")) <= feed.length
            with complaints:
                assert series.asof(MOMENTS).shape == (4, 12)
            with complaints:
                _ = (series.live, series.last_close, series.age, series.last_open_time_ms, series.revision)
            with complaints:
                series.gaps()
            with complaints:
                series.wait(timeout=0)
        with complaints:
            feed.panel("close", 8, live=True)
        with complaints:
            feed.panel("volume")
        with complaints:
            feed.last("high")
        with complaints:
            feed.wait_closed(timeout=0)
        with complaints:
            feed.asof("close", MOMENTS)


def main(name: str, what: str, count: int) -> None:
    whole = make(name)
    chance = random.Random(f"{what} 2026")
    attached = 0
    np.seterr(all="ignore")
    with (Path("/dev/shm") / name).open("r+b", buffering=0) as file:
        for _ in range(count):
            image = bytearray(whole)
            for _ in range(chance.randint(1, 3)):
                if what == "header":
                    spoil(image, chance.randrange(HEADER_WORDS if chance.random() < 0.9 else PAGE_WORDS), chance)
                else:
                    # The symbol table as often as the data, which are ten times as long.
                    words = (PAGE_WORDS, 2 * PAGE_WORDS) if chance.random() < 0.5 else (PAGE_WORDS, len(image) // 8)
                    spoil(image, chance.randrange(*words), chance)
            file.seek(0)
            file.write(image[: 8 * PAGE_WORDS] if what == "header" else image)
            with contextlib.suppress(candleshm.BlockError):
                ask_everything(name)
                attached += 1
    print(attached)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
