"""A witness that writes down every final row that a reader saw, of any block, and the judge of what it wrote.

``python -m tests.support.final_rows FILE BLOCK...`` reads these blocks until it is ended: copies, views and closes,
over and over. A row is written down when it is seen as final for the first time, and whenever a final row of the same
series and open time has another value than before: so what a reader could have acted on for a moment stays on record.

The judge compares all of it with the exchange's truth and with what was seen elsewhere. A final row has to be the
exchange's final candle, bit for bit, on every host and at every moment; where the exchange corrected a candle, the one
before the correction is right as well.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import candleshm
from candleshm.columns import CLOSE, OPEN_TIME_MS, QUOTE_VOLUME, TAKER_BUY_QUOTE_VOLUME
from candleshm.exchanges.base import Market
from candleshm.reader.feed import Feed
from candleshm.sim import SimulatedExchange
from candleshm.sim.world.events import Restatement

__all__ = ["Judge", "Witness", "witnessing"]

RECORD = np.dtype([("block", "S64"), ("symbol", "S32"), ("how", "S8"), ("words", "<u8", 12)])
"""One sighting: the words are the twelve values, bit for bit; a close has its open time and nothing else."""
SUMS = [QUOTE_VOLUME, TAKER_BUY_QUOTE_VOLUME]
PAUSE_SECONDS = 0.1
DEADLINE_SECONDS = 60.0
Rows = npt.NDArray[np.float64]


# The witness.


class Recorder:
    """What one process saw, in a file that grows by whole records."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def write(self, block: str, symbol: str, how: str, words: npt.NDArray[np.uint64]) -> None:
        """Add sightings: `words` has shape (n, 12)."""
        records = np.zeros(len(words), RECORD)
        records["block"], records["symbol"], records["how"] = block.encode(), symbol.encode(), how.encode()
        records["words"] = words
        with self._lock:
            self._file.write(records.tobytes())


class BlockWitness:
    """One block, read in two threads until the process is ended; the feed is opened once, and follows the name."""

    def __init__(self, name: str, recorder: Recorder) -> None:
        self._name = name
        self._recorder = recorder
        self._seen: dict[str, dict[int, bytes]] = defaultdict(dict)

    def start(self) -> None:
        """Begin to look; the block may come later."""
        for target in (self._read, self._wait):
            threading.Thread(target=self._run, args=(target,), daemon=True).start()

    def _run(self, look: Callable[[Feed], None]) -> None:
        feed = None
        while feed is None:
            with suppress(candleshm.CandleShmError):
                feed = candleshm.attach(self._name)
            time.sleep(PAUSE_SECONDS)
        while True:
            # A block between two lives, or a wait without a close: look again.
            with suppress(candleshm.CandleShmError):
                look(feed)

    def _read(self, feed: Feed) -> None:
        for symbol in feed.symbols:
            with suppress(candleshm.CandleShmError):
                self._note(symbol, "copy", feed[symbol].candles(closed_only=True))
            with suppress(candleshm.CandleShmError):
                view = feed[symbol].view()
                rows = np.array(view.array)
                if view.valid():
                    self._note(symbol, "view", rows)
        time.sleep(PAUSE_SECONDS)

    def _note(self, symbol: str, how: str, rows: Rows) -> None:
        rows = np.ascontiguousarray(rows[~np.isnan(rows[:, CLOSE])])
        words = rows.view(np.uint64).reshape(-1, 12)
        seen = self._seen[symbol]
        fresh = []
        for index, open_ms in enumerate(rows[:, OPEN_TIME_MS].astype(np.int64).tolist()):
            raw = words[index].tobytes()
            if seen.get(open_ms) != raw:
                seen[open_ms] = raw
                fresh.append(index)
        if fresh:
            self._recorder.write(self._name, symbol, how, words[fresh])

    def _wait(self, feed: Feed) -> None:
        closed = feed.wait_closed(timeout=0.5)
        words = np.zeros((1, 12), np.uint64)
        words[0, 0] = np.float64(closed.open_time_ms).view(np.uint64)
        for symbol in closed.symbols:
            self._recorder.write(self._name, symbol, "close", words)


def main(path: str, *names: str) -> None:
    """Witness these blocks until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    recorder = Recorder(Path(path))
    for name in names:
        BlockWitness(name, recorder).start()
    sys.stdout.write("looking\n")
    sys.stdout.flush()
    ended.wait()


@dataclass(frozen=True)
class Witness:
    """A witness that runs, and the file of what it saw."""

    path: Path
    process: subprocess.Popen[str]

    def records(self) -> npt.NDArray[Any]:
        """Return what it has seen so far, as an array of `RECORD`."""
        data = self.path.read_bytes()
        return np.frombuffer(data[: len(data) // RECORD.itemsize * RECORD.itemsize], RECORD)


@contextmanager
def witnessing(path: Path, names: Sequence[str], prefix: Sequence[str] = ()) -> Iterator[Witness]:
    """Run a witness of these blocks; `prefix` are words that put the process where it is to read."""
    words = [*prefix, sys.executable, "-m", "tests.support.final_rows", str(path), *names]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "looking\n"
        yield Witness(path, process)
        assert process.poll() is None, f"the witness ended by itself, exit code {process.returncode}"
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_SECONDS)


# The judge.


@dataclass
class Judge:
    """Knows which values each final row may have: the exchange's, and those that it had before a correction."""

    exchange: SimulatedExchange
    market: Market
    interval: str
    derived: dict[str, str] = field(default_factory=dict)
    """The interval of each derived block, by its name."""
    _before: dict[tuple[str, str, int], list[Rows]] = field(default_factory=lambda: defaultdict(list))

    def restate(self, symbol: str, minute_ms: int, lots: int = 1000) -> None:
        """Let the exchange correct a minute; what its candles were before stays right for those who saw it."""
        minute = (minute_ms, minute_ms + 60_000)
        old = {
            interval: self.exchange.truth.floats(self.market, symbol, interval, *minute)
            for interval in {self.interval, *self.derived.values()}
        }
        self.exchange.truth.restate(Restatement(market=self.market, symbol=symbol, minute_ms=minute_ms, lots=lots))
        for interval, rows in old.items():
            for row in rows:
                self._before[interval, symbol, int(row[OPEN_TIME_MS])].append(row)

    def lies(self, records: npt.NDArray[Any]) -> list[str]:
        """Return what no reader should have seen: wrong rows, rows that differ between blocks, closes seen twice."""
        found = self.closes(records)
        rows = records[records["how"] != b"close"]
        for block, symbol in sorted({(row["block"], row["symbol"]) for row in rows[["block", "symbol"]]}):
            of_series = rows[(rows["block"] == block) & (rows["symbol"] == symbol)]["words"]
            found += self._wrong_rows(block.decode(), symbol.decode(), np.ascontiguousarray(of_series))
        return found + self._differing(rows)

    def closes(self, records: npt.NDArray[Any]) -> list[str]:
        """Return the closes of a series that woke a reader twice."""
        told = records[records["how"] == b"close"]
        keys = list(zip(told["block"], told["symbol"], told["words"][:, 0], strict=True))
        twice = {key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else set()
        return [f"{block.decode()}: {symbol.decode()} closed twice at {word}" for block, symbol, word in twice]

    def _wrong_rows(self, block: str, symbol: str, words: npt.NDArray[np.uint64]) -> list[str]:
        interval = self.derived.get(block, self.interval)
        rows = words.view(np.float64).reshape(-1, 12)
        first_ms, last_ms = int(rows[:, OPEN_TIME_MS].min()), int(rows[:, OPEN_TIME_MS].max())
        true = self.exchange.truth.floats(self.market, symbol, interval, first_ms, last_ms + 1)
        allowed = {int(row[OPEN_TIME_MS]): row for row in true}
        found = []
        for row in rows:
            open_ms = int(row[OPEN_TIME_MS])
            right = [*self._before[interval, symbol, open_ms], *([allowed[open_ms]] if open_ms in allowed else [])]
            if not any(_same(row, one, exactly=block not in self.derived) for one in right):
                found.append(f"{block}: {symbol} at {open_ms} was shown as final with {row.tolist()}")
        return found

    def _differing(self, rows: npt.NDArray[Any]) -> list[str]:
        """Return the rows of which readers, of all blocks together, saw more values than the exchange had."""
        values: dict[tuple[str, str, int], dict[bytes, str]] = defaultdict(dict)
        for row in rows:
            block, symbol = row["block"].decode(), row["symbol"].decode()
            open_ms = int(row["words"][:1].view(np.float64)[0])
            values[self.derived.get(block, self.interval), symbol, open_ms][row["words"].tobytes()] = block
        return [
            f"{symbol} {interval} at {open_ms} is not the same in {sorted(set(blocks.values()))}"
            for (interval, symbol, open_ms), blocks in values.items()
            if len(blocks) > 1 + len(self._before[interval, symbol, open_ms])
        ]


def _same(row: Rows, true: Rows, *, exactly: bool) -> bool:
    """Compare bit for bit; of a derived candle the quote volumes may be two units in the last place away."""
    if exactly or row.tobytes() == true.tobytes():
        return row.tobytes() == true.tobytes()
    near = np.abs(row - true) <= 2 * np.spacing(np.abs(true))
    others = np.delete(row, SUMS) == np.delete(true, SUMS)
    return bool(near[SUMS].all() and others.all())


if __name__ == "__main__":
    main(*sys.argv[1:])
