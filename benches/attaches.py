"""A: from nothing to the first window: attach to a block of 500 and of 2000 symbols and copy 1440 rows of one.

Every sample maps or connects anew, so its page faults and handshakes are in the time. Imports are not.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import redis
from material import WINDOW, FloatArray, block, rows_of, symbol_name, whole
from rounds import TORN, WHOLE, Contender, Table, Target, each, race
from stores import BLOB_BYTES, SHAPE, redis_server

import candleshm

LENGTH = 1441
OURS = "attach + candles(1440)"


def run(*, quick: bool) -> Iterator[Table]:
    rounds, seconds = (3, 0.05) if quick else (15, 0.1)
    for symbols in (500, 2000):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as name, redis_server(Path(name)) as socket:
            yield _table(symbols, Path(name), socket, rounds, seconds)


def _table(symbols: int, folder: Path, socket: Path, rounds: int, seconds: float) -> Table:
    block_name = f"candleshm-bench-attach-{os.getpid()}"
    rows = [rows_of(symbol, range(WINDOW)) for symbol in range(symbols)]
    memory = SharedMemory(create=True, size=symbols * BLOB_BYTES)
    np.ndarray((symbols, *SHAPE), buffer=memory.buf)[:] = rows
    np.stack(rows).tofile(folder / "memmap")
    client: Any = redis.Redis(unix_socket_path=str(socket))
    for symbol, window in enumerate(rows):
        client.set(symbol_name(symbol), window.tobytes())
    size = 2 * symbols * BLOB_BYTES + (64 << 20)
    with lmdb.open(str(folder / "lmdb"), map_size=size) as environment, environment.begin(write=True) as transaction:
        for symbol, window in enumerate(rows):
            transaction.put(b"%d" % symbol, window.data.cast("B"))

    def ours(symbol: int) -> FloatArray:
        with candleshm.attach(block_name) as feed:
            return feed[symbol_name(symbol)].candles(WINDOW)

    def first_value(symbol: int) -> float:
        with candleshm.attach(block_name) as feed:
            return feed[symbol_name(symbol)].last_close

    def shared(symbol: int) -> FloatArray:
        attached = SharedMemory(memory.name)
        array = np.ndarray((symbols, *SHAPE), buffer=attached.buf)
        copy = array[symbol].copy()
        del array
        attached.close()
        return copy

    def memmap(symbol: int) -> FloatArray:
        return np.array(np.memmap(folder / "memmap", dtype=np.float64, mode="r", shape=(symbols, *SHAPE))[symbol])

    def from_lmdb(symbol: int) -> FloatArray:
        with lmdb.open(str(folder / "lmdb"), readonly=True) as environment, environment.begin(buffers=True) as reading:
            return np.frombuffer(reading.get(b"%d" % symbol)).reshape(SHAPE).copy()

    def from_redis(symbol: int) -> FloatArray:
        with redis.Redis(unix_socket_path=str(socket)) as connected:
            return np.frombuffer(connected.get(symbol_name(symbol))).reshape(SHAPE)

    def check(symbol: int, window: FloatArray) -> str:
        return WHOLE if whole(symbol, window) else TORN

    def check_value(symbol: int, close: float) -> str:
        return WHOLE if close == rows_of(symbol, range(WINDOW, WINDOW + 1))[0, 4] else TORN

    def contender(name: str, read: Callable[[int], Any], judge: Callable[[Any, Any], str] = check) -> Contender:
        return Contender(name, lambda picks: [read(pick) for pick in picks], each(judge))

    contenders = [
        contender(OURS, ours),
        contender("attach + last_close", first_value, check_value),
        contender("SharedMemory, copy", shared),
        contender("np.memmap, copy", memmap),
        contender("LMDB open, copy", from_lmdb),
        contender("Redis connect, GET", from_redis),
    ]
    try:
        with block(block_name, symbols, LENGTH):
            timings = race(contenders, range(symbols), rounds=rounds, turn_seconds=seconds)
    finally:
        memory.close()
        memory.unlink()
    targets = [Target("<= 500 us", OURS, 500_000)] if symbols == 500 else []
    return Table("A", f"attach to {symbols} symbols and first read", timings, OURS, targets)
