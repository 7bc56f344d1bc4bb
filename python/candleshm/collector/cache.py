"""The cache of a block: a file with its final rows, so that a restart requests only what came since.

The file is written beside the running collector, from consistent copies as a reader makes them, and replaces the older
one atomically.
It begins with the rows and ends with an index of them::

    magic                                        8 bytes, also names the version of the format
    for each series: states u8[n], padded to 8   2 closed, 3 verified
                     rows f64[12][n]             the columns one after the other, as in the block
    index                                        JSON: whose rows these are; symbol, n, offset, CRC-32 of each series
    length of the index u64, CRC-32 of it u64, magic again

Only final rows are in it. Holes are requested again: the exchange may have a row by now. So is the row that was live
when the file was written: otherwise it would keep the values of that moment for good.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from candleshm._core import Feed, Writer
from candleshm.columns import OPEN_TIME_MS
from candleshm.errors import CandleShmError
from candleshm.exchanges.base import Price
from candleshm.history.file_names import cache_file
from candleshm.row_state import RowState
from candleshm.system.atomic_file import make_directory, read_ours, remove_leftovers, replace_file
from candleshm.system.block_log import BlockLog
from candleshm.system.log_text import counted

__all__ = ["BlockCache", "CacheWriter", "Origin", "SavedCache"]

logger = logging.getLogger(__name__)

MAGIC = b"CSHMCAC1"
TAIL_BYTES = 24
COLUMNS = 12


class Origin(msgspec.Struct, frozen=True):
    """Whose rows they are. A cache is only for the very block that it was written from."""

    name: str
    market: str
    interval: str
    exchange: str
    """Host and port of the responses: rows of a test exchange must not get into a block of the real one."""
    price: Price = "trade"


class _Entry(msgspec.Struct, frozen=True):
    symbol: str
    rows: int
    offset: int
    crc: int

    @property
    def size_bytes(self) -> int:
        return _padded(self.rows) + self.rows * COLUMNS * 8


class _Index(msgspec.Struct, frozen=True):
    origin: Origin
    saved_ms: int
    series: list[_Entry]


@dataclass(frozen=True)
class SavedCache:
    """What was written: the file, how much is in it, and how long that took."""

    path: Path
    symbols: int
    rows: int
    size_bytes: int
    seconds: float


class _Refused(Exception):
    """A file that is damaged, or not of this block."""


class BlockCache:
    """The cache of one block in `directory`, a file `{market}-{interval}-{name}.cache`, or
    `{market}-{price}-{interval}-{name}.cache`.

    Only the owner of the block may use it. A block has one owner at most, so two never write the file.
    """

    def __init__(self, directory: str | os.PathLike[str], origin: Origin) -> None:
        self.path = cache_file(directory, origin.market, origin.interval, origin.name, origin.price)
        self._origin = origin
        self.log = BlockLog(logger, origin.name)

    def save(self, now_ms: int) -> SavedCache:
        """Write the block's final rows as they are; neither the collector nor a reader waits for it.

        `now_ms` is exchange time that has surely been reached. Raises OSError, and BlockError when the block is
        gone; after an error the older file is as it was.
        """
        started_seconds = time.perf_counter()
        make_directory(self.path.parent)
        entries: list[_Entry] = []
        feed = Feed(self._origin.name)
        try:
            remove_leftovers(self.path.parent, f"{self.path.name}.*")
            replace_file(self.path, self._parts(feed, entries, now_ms), mode=0o600)
        finally:
            feed.close()
        rows = sum(entry.rows for entry in entries)
        seconds = time.perf_counter() - started_seconds
        return SavedCache(self.path, len(entries), rows, self.path.stat().st_size, seconds)

    def load(self, writer: Writer, now_ms: int, stopping: threading.Event) -> int:
        """Merge the rows of the file into the series that `writer` carries; return how many were new there.

        Series without missing rows, as in a block that was taken over, are left as they are, and so are rows before the
        window at `now_ms` (exchange time). Ends early when `stopping` is set.

        A file that is damaged, of another block or of another version is logged and left alone, and so is one that
        cannot be read, that belongs to another user or that others may write: its rows are requested from the exchange.
        """
        sent_ms, found = self._read()
        carried = set(writer.symbols)
        loaded = 0
        for symbol, rows, states in found:
            if stopping.is_set():
                break
            if symbol in carried and _is_wanted(writer, symbol, int(rows[-1, OPEN_TIME_MS]), now_ms):
                loaded += writer.load_rows(symbol, rows, states, sent_ms=sent_ms).changed
        return loaded

    def load_derived(self, writer: Writer, oldest_ms: int, stopping: threading.Event) -> int:
        """As `load`, into the block of this name that is derived from that of `writer`, which has no rows yet.

        Series whose newest row opened before `oldest_ms`, where the window begins, are left out.
        """
        sent_ms, found = self._read()
        carried = set(writer.symbols)
        loaded = 0
        for symbol, rows, states in found:
            if stopping.is_set():
                break
            if symbol in carried and rows[-1, OPEN_TIME_MS] >= oldest_ms:
                name = self._origin.name
                loaded += writer.load_rows(symbol, rows, states, sent_ms=sent_ms, derived=name).changed
        return loaded

    def _read(self) -> tuple[int, list[tuple[str, npt.NDArray[np.float64], npt.NDArray[np.uint8]]]]:
        """Return when the file was written, and symbol, rows and states of each series; none if it is not to be used.

        All of it is checked before the first row counts.
        """
        try:
            image = read_ours(self.path)
            index = self._index(image)
            return index.saved_ms, [(entry.symbol, *_series(image, entry)) for entry in index.series]
        except FileNotFoundError:
            pass
        except OSError as error:
            self.log.warning("cache %s cannot be read (%s); its rows are requested again", self.path, error.strerror)
        except _Refused as reason:
            self.log.warning("cache %s is not used: %s; its rows are requested again", self.path, reason)
        return 0, []

    def _parts(self, feed: Feed, entries: list[_Entry], now_ms: int) -> Iterator[bytes]:
        """Yield the file piece by piece, so that it is never in memory as a whole."""
        offset = len(MAGIC)
        yield MAGIC
        for symbol in feed.symbols:
            rows, states = feed[symbol].snapshot(closed_only=True, holes="nan")
            kept = (states == RowState.CLOSED) | (states == RowState.VERIFIED)
            if not kept.any():
                continue
            count = int(kept.sum())
            parts = (states[kept].tobytes().ljust(_padded(count), b"\0"), rows.T[:, kept].tobytes())
            entries.append(_Entry(symbol, count, offset, zlib.crc32(parts[1], zlib.crc32(parts[0]))))
            offset += entries[-1].size_bytes
            yield from parts
        index = msgspec.json.encode(_Index(self._origin, now_ms, entries))
        yield index
        yield len(index).to_bytes(8, "little") + zlib.crc32(index).to_bytes(8, "little") + MAGIC

    def _index(self, image: bytes) -> _Index:
        if len(image) < len(MAGIC) + TAIL_BYTES or image[: len(MAGIC)] != MAGIC or image[-len(MAGIC) :] != MAGIC:
            raise _Refused("it is truncated, or of another version")
        size_bytes, crc = (int.from_bytes(image[at : at + 8], "little") for at in (-TAIL_BYTES, 8 - TAIL_BYTES))
        text = image[max(0, len(image) - TAIL_BYTES - size_bytes) : -TAIL_BYTES]
        if len(text) != size_bytes or zlib.crc32(text) != crc:
            raise _Refused("its index is damaged")
        try:
            index = msgspec.json.decode(text, type=_Index)
        except msgspec.MsgspecError as error:
            raise _Refused(f"its index cannot be read: {error}") from None
        if index.origin != self._origin:
            raise _Refused(f"it holds {_words(index.origin)}, not {_words(self._origin)}")
        return index


class CacheWriter:
    """Writes the caches of a block and of those derived from it every `delay_seconds`, in a thread of its own, and once
    more at the end.
    """

    def __init__(self, caches: Sequence[BlockCache], delay_seconds: float, exchange_ms: Callable[[], int]) -> None:
        self._caches = caches
        self._exchange_ms = exchange_ms
        self._delay_seconds = delay_seconds
        self._ending = threading.Event()
        self._failures = dict.fromkeys(caches, 0)
        self._thread = threading.Thread(target=self._work, name="candleshm-cache", daemon=True)

    @property
    def failing(self) -> int:
        """How many caches could not be written the last time."""
        return sum(failures > 0 for failures in self._failures.values())

    def start(self) -> None:
        """Start writing in the background; the first time is after one delay."""
        self._thread.start()

    def end(self) -> None:
        """Write for the last time; the block has to be there still."""
        self._ending.set()
        self._thread.join()
        self._save()

    def _work(self) -> None:
        while not self._ending.wait(self._delay_seconds):
            self._save()

    def _save(self) -> None:
        for cache in self._caches:
            self._save_one(cache)

    def _save_one(self, cache: BlockCache) -> None:
        try:
            saved = cache.save(self._exchange_ms())
        except (OSError, CandleShmError) as error:
            failures = self._failures[cache] = self._failures[cache] + 1
            if failures & (failures - 1) == 0:
                cache.log.warning("cache %s could not be written (%s); the older file is kept", cache.path, error)
            return
        self._failures[cache] = 0
        cache.log.info(
            "cache written: %s (%d rows of %s, %.1f MB, %.2f s)",
            saved.path,
            saved.rows,
            counted(saved.symbols, "symbol"),
            saved.size_bytes / 1e6,
            saved.seconds,
            extra={"event": "cache_written", "saved": saved},
        )


def _is_wanted(writer: Writer, symbol: str, newest_ms: int, now_ms: int) -> bool:
    state = writer.state(symbol)
    return (state.newest_open_ms is None or state.missing > 0) and newest_ms >= writer.window_start_ms(symbol, now_ms)


def _series(image: bytes, entry: _Entry) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """Return rows (n, 12) and states (n,) of one series where they lie in `image`."""
    end = entry.offset + entry.size_bytes
    if not (entry.rows > 0 and len(MAGIC) <= entry.offset <= end <= len(image)):
        raise _Refused(f"the rows of {entry.symbol} lie outside the file")
    part = memoryview(image)[entry.offset : end]
    if zlib.crc32(part) != entry.crc:
        raise _Refused(f"the rows of {entry.symbol} are damaged")
    states = np.frombuffer(part, np.uint8, entry.rows)
    rows = np.frombuffer(part, np.float64, offset=_padded(entry.rows)).reshape(COLUMNS, entry.rows).T
    return rows, states


def _padded(rows: int) -> int:
    return -(-rows // 8) * 8


def _words(origin: Origin) -> str:
    price = "" if origin.price == "trade" else f"{origin.price} "
    return f"{origin.market} {price}{origin.interval} of {origin.exchange} for block {origin.name}"
