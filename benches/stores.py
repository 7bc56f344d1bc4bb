"""The ways to hand windows to other processes that are compared: each with its writing and its reading side.

`open_writer` and `open_reader` run in the process that uses them. A store whose unit is a blob is given the whole
window on every update; one that lies in shared memory is changed in place, which is the least it could do.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, Protocol

import iceoryx2
import lmdb
import numpy as np
import redis
from filelock import FileLock
from material import WINDOW, FloatArray, Turns, advance, body_of, ingest, rows_of, symbol_name

import candleshm
from candleshm.columns import CLOSE

BLOB_BYTES = WINDOW * 12 * 8
SHAPE = (WINDOW, 12)
ColumnAndLive = tuple[FloatArray, FloatArray]


class Store(Protocol):
    """One peer. `window` hands out a private copy; `column` the closes and the live row, as cheap as can be."""

    name: str

    def open_writer(self) -> Callable[[int], None]: ...
    def open_reader(self) -> None: ...
    def window(self, symbol: int) -> FloatArray: ...
    def column(self, symbol: int) -> ColumnAndLive: ...
    def close(self) -> None: ...


def blob_writer(symbols: int, put: Callable[[int, FloatArray], None]) -> Callable[[int], None]:
    """Return what updates one symbol in the writer's own windows and puts the window into the store."""
    windows = [rows_of(symbol, range(WINDOW)) for symbol in range(symbols)]
    turns = Turns(symbols, WINDOW)
    for symbol, window in enumerate(windows):
        put(symbol, window)

    def update(symbol: int) -> None:
        put(symbol, advance(windows[symbol], symbol, turns.next(symbol)))

    return update


class Manager:
    """multiprocessing.Manager().dict(): a server process, a pickle each way."""

    name = "Manager().dict"

    def __init__(self, symbols: int) -> None:
        self._symbols = symbols
        self._manager = multiprocessing.get_context("fork").Manager()
        self._dict = self._manager.dict()

    def open_writer(self) -> Callable[[int], None]:
        return blob_writer(self._symbols, self._dict.__setitem__)

    def open_reader(self) -> None: ...

    def window(self, symbol: int) -> FloatArray:
        array: FloatArray = self._dict[symbol]
        return array

    def column(self, symbol: int) -> ColumnAndLive:
        array = self._dict[symbol]
        return array[:, CLOSE], array[-1]

    def close(self) -> None:
        self._manager.shutdown()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[Path]:
    """Run a Redis of our own on a unix socket, without persistence."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is missing: apt install redis-server")
    socket = folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            if time.monotonic() > deadline:
                raise SystemExit(f"redis-server made no socket {socket} in 10 s")
            time.sleep(0.01)
        yield socket
    finally:
        process.terminate()
        process.wait(10)


class Redis:
    """GET over a unix socket with hiredis; the array is made over the answer's bytes without a further copy."""

    name = "Redis GET + frombuffer"

    def __init__(self, symbols: int, socket: Path) -> None:
        self._symbols = symbols
        self._socket = socket

    def open_writer(self) -> Callable[[int], None]:
        client = redis.Redis(unix_socket_path=str(self._socket))

        def put(symbol: int, window: FloatArray) -> None:
            client.set(symbol_name(symbol), window.tobytes())

        return blob_writer(self._symbols, put)

    def open_reader(self) -> None:
        self._client: Any = redis.Redis(unix_socket_path=str(self._socket))
        self._names = [symbol_name(symbol) for symbol in range(self._symbols)]

    def window(self, symbol: int) -> FloatArray:
        array: FloatArray = np.frombuffer(self._client.get(self._names[symbol]))
        return array.reshape(SHAPE)

    def column(self, symbol: int) -> ColumnAndLive:
        array = self.window(symbol)
        return array[:, CLOSE], array[-1]

    def close(self) -> None: ...


class Shared:
    """A SharedMemory array, changed in place and copied under the lock of its symbol."""

    def __init__(self, name: str, symbols: int, locks: Callable[[], list[Any]]) -> None:
        self.name = name
        self._symbols = symbols
        self._make_locks = locks
        self._memory = SharedMemory(create=True, size=symbols * BLOB_BYTES)

    def _array(self) -> FloatArray:
        return np.ndarray((self._symbols, *SHAPE), buffer=self._memory.buf)

    def open_writer(self) -> Callable[[int], None]:
        array, turns, locks = self._array(), Turns(self._symbols, WINDOW), self._make_locks()
        for symbol in range(self._symbols):
            array[symbol] = rows_of(symbol, range(WINDOW))

        def update(symbol: int) -> None:
            turn = turns.next(symbol)
            with locks[symbol]:
                advance(array[symbol], symbol, turn)

        return update

    def open_reader(self) -> None:
        self._read = list(self._array())
        self._locks = self._make_locks()

    def window(self, symbol: int) -> FloatArray:
        with self._locks[symbol]:
            return self._read[symbol].copy()

    def column(self, symbol: int) -> ColumnAndLive:
        array = self._read[symbol]
        with self._locks[symbol]:
            return array[:, CLOSE].copy(), array[-1].copy()

    def close(self) -> None:
        self._read = []
        self._memory.unlink()


def with_locks(symbols: int) -> Shared:
    context = multiprocessing.get_context("fork")
    locks = [context.Lock() for _ in range(symbols)]
    return Shared("SharedMemory + Lock", symbols, lambda: locks)


def with_file_locks(symbols: int, folder: Path) -> Shared:
    paths = [folder / f"{symbol}.lock" for symbol in range(symbols)]
    return Shared("SharedMemory + filelock", symbols, lambda: [FileLock(path) for path in paths])


class Memmap:
    """np.memmap in /dev/shm without any lock: the control. What it hands out may be torn, and nobody says so."""

    name = "np.memmap, no lock"

    def __init__(self, symbols: int, path: Path) -> None:
        self._path = path
        self._shape = (symbols, *SHAPE)
        np.memmap(path, dtype=np.float64, mode="w+", shape=self._shape)

    def _array(self) -> FloatArray:
        return np.memmap(self._path, dtype=np.float64, mode="r+", shape=self._shape).view(np.ndarray)

    def open_writer(self) -> Callable[[int], None]:
        array, turns = self._array(), Turns(self._shape[0], WINDOW)
        for symbol in range(len(array)):
            array[symbol] = rows_of(symbol, range(WINDOW))

        def update(symbol: int) -> None:
            advance(array[symbol], symbol, turns.next(symbol))

        return update

    def open_reader(self) -> None:
        self._read = list(self._array())

    def window(self, symbol: int) -> FloatArray:
        return self._read[symbol].copy()

    def column(self, symbol: int) -> ColumnAndLive:
        array = self._read[symbol]
        return array[:, CLOSE].copy(), array[-1].copy()

    def close(self) -> None:
        self._read = []


class Lmdb:
    """LMDB in /dev/shm, no sync; the zero-copy buffer is good only inside its transaction."""

    name = "LMDB"

    def __init__(self, symbols: int, folder: Path) -> None:
        self._symbols = symbols
        self._folder = folder
        folder.mkdir()

    def _open(self, *, readonly: bool) -> lmdb.Environment:
        size = 4 * self._symbols * BLOB_BYTES + (64 << 20)
        return lmdb.open(str(self._folder), map_size=size, sync=False, writemap=not readonly, readonly=readonly)

    def open_writer(self) -> Callable[[int], None]:
        environment = self._open(readonly=False)

        def put(symbol: int, window: FloatArray) -> None:
            with environment.begin(write=True) as transaction:
                transaction.put(b"%d" % symbol, window.data.cast("B"))

        return blob_writer(self._symbols, put)

    def open_reader(self) -> None:
        self._environment = self._open(readonly=True)

    @staticmethod
    def _in_place(transaction: Any, symbol: int) -> FloatArray:
        array: FloatArray = np.frombuffer(transaction.get(b"%d" % symbol))
        return array.reshape(SHAPE)

    def window(self, symbol: int) -> FloatArray:
        with self._environment.begin(buffers=True) as transaction:
            return self._in_place(transaction, symbol).copy()

    def column(self, symbol: int) -> ColumnAndLive:
        with self._environment.begin(buffers=True) as transaction:
            array = self._in_place(transaction, symbol)
            return array[:, CLOSE].copy(), array[-1].copy()

    def close(self) -> None:
        self._environment.close()


class Iceoryx2:
    """A publish-subscribe service per symbol whose sample is the window; a reader keeps the newest sample it got."""

    name = "iceoryx2 pub-sub"

    def __init__(self, symbols: int) -> None:
        self._symbols = symbols
        self._prefix = f"candleshm-bench-{time.monotonic_ns()}"
        self._doubles = ctypes.c_double * (WINDOW * 12)

    def _service(self, node: Any, symbol: int) -> Any:
        service = node.service_builder(iceoryx2.ServiceName.new(f"{self._prefix}-{symbol}"))
        builder = service.publish_subscribe(iceoryx2.Slice[ctypes.c_double])
        return builder.history_size(1).subscriber_max_buffer_size(1).enable_safe_overflow(True).open_or_create()

    def open_writer(self) -> Callable[[int], None]:
        iceoryx2.set_log_level(iceoryx2.LogLevel.Fatal)
        self._node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        self._services = [self._service(self._node, symbol) for symbol in range(self._symbols)]
        publishers = [
            service.publisher_builder().initial_max_slice_len(WINDOW * 12).create() for service in self._services
        ]

        def put(symbol: int, window: FloatArray) -> None:
            sample = publishers[symbol].loan_slice_uninit(WINDOW * 12)
            ctypes.memmove(sample.payload_ptr, window.ctypes.data, BLOB_BYTES)
            sample.assume_init().send()

        return blob_writer(self._symbols, put)

    def open_reader(self) -> None:
        iceoryx2.set_log_level(iceoryx2.LogLevel.Fatal)
        self._node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        self._services = [self._service(self._node, symbol) for symbol in range(self._symbols)]
        self._subscribers = [service.subscriber_builder().create() for service in self._services]
        self._samples: list[Any] = [None] * self._symbols

    def _newest(self, symbol: int) -> FloatArray:
        """Return the newest sample in place; good until the next call for this symbol."""
        sample = self._subscribers[symbol].receive()
        if sample is None:
            sample = self._samples[symbol]
        else:
            self._samples[symbol] = sample
        values: Any = self._doubles.from_address(sample.payload_ptr)
        array: FloatArray = np.frombuffer(values)
        return array.reshape(SHAPE)

    def window(self, symbol: int) -> FloatArray:
        return self._newest(symbol).copy()

    def column(self, symbol: int) -> ColumnAndLive:
        array = self._newest(symbol)
        return array[:, CLOSE], array[-1]

    def close(self) -> None:
        self._samples = []
        self._subscribers = []


class Ours:
    """candleshm: the writer merges answers as the collector does, bodies of two rows."""

    name = "candleshm"

    def __init__(self, symbols: int, name: str, length: int) -> None:
        self._symbols = symbols
        self._name = name
        self._length = length

    def open_writer(self) -> Callable[[int], None]:
        names = [symbol_name(symbol) for symbol in range(self._symbols)]
        writer = candleshm._core.Writer.open(
            self._name, market="SPOT", interval="1m", length=self._length, symbols=names
        )
        for symbol in range(self._symbols):
            ingest(writer, symbol, self._length - 1, body_of(symbol, range(self._length)))
        turns = Turns(self._symbols, self._length)

        def update(symbol: int) -> None:
            candle, version, opens = turns.next(symbol)
            first = candle - 1 if opens else candle
            ingest(writer, symbol, candle, body_of(symbol, range(first, candle + 1), version), tick=version % 8 + 1)

        return update

    def open_reader(self) -> None:
        self.feed = candleshm.attach(self._name)
        self.series = [self.feed[symbol_name(symbol)] for symbol in range(self._symbols)]

    def window(self, symbol: int) -> FloatArray:
        return self.series[symbol].candles(WINDOW)

    def column(self, symbol: int) -> ColumnAndLive:
        series = self.series[symbol]
        return series.view(WINDOW).close, series.live

    def close(self) -> None:
        self.feed.close()
        candleshm.unlink(self._name)
