"""One file of the exchange's archive, of a day of UTC or of a month: what its name promises, checked. Pure.

A zip holds one CSV file of the same name. Beside it lies its CHECKSUM, which is what `sha256sum` prints.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np

from candleshm._core import parse_archive_csv
from candleshm.columns import CLOSE, OPEN, OPEN_TIME_MS
from candleshm.errors import BadResponse
from candleshm.exchanges.base import INTERVAL_MS, Market, Price
from candleshm.history.candles import Candles
from candleshm.history.csv_text import BYTE_ORDER_MARK, plain_csv
from candleshm.history.file_names import archive_path, archive_zip
from candleshm.history.zipped import csv_of

__all__ = ["CSV_BYTES_MAX", "ArchiveFile"]

CHECKSUM_SUFFIX = ".CHECKSUM"
# A month of 1m has 44 640 lines of 90 to 150 bytes, a day of 1s twice as many.
CSV_BYTES_MAX = 64 * 1024 * 1024
# As `sha256sum` prints it, by default and with --tag.
_CHECKSUM = re.compile(
    rb"\s*(?:(?P<digest>[0-9a-fA-F]{64})[ \t]+\*?(?P<name>\S+)"
    rb"|SHA256 \((?P<tag>\S+)\) = (?P<tagged>[0-9a-fA-F]{64}))\s*"
)


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """The klines of one symbol on one day of UTC, or in the month that begins with `first`."""

    market: Market
    symbol: str
    interval: str
    first: date
    is_month: bool = False
    price: Price = "trade"

    @property
    def name(self) -> str:
        """The zip's name; it does not contain the market."""
        return archive_zip(self.symbol, self.interval, self.first, is_month=self.is_month)

    @property
    def path(self) -> str:
        """Where the zip lies below the archive's address, ready for a URL."""
        return archive_path(
            self.market, self.symbol, self.interval, self.first, is_month=self.is_month, price=self.price
        )

    @property
    def start_ms(self) -> int:
        """Where its first candle may open."""
        return _epoch_ms(self.first)

    @property
    def end_ms(self) -> int:
        """Where the candles of the next file begin."""
        return _epoch_ms(
            (self.first.replace(day=1) + timedelta(days=32)).replace(day=1) if self.is_month else self._next
        )

    @property
    def _next(self) -> date:
        return self.first + timedelta(days=1)

    def check(self, zipped: bytes, checksum: bytes) -> None:
        """Compare the zip with its CHECKSUM. Raises BadResponse."""
        found = _CHECKSUM.fullmatch(checksum.removeprefix(BYTE_ORDER_MARK))
        if found is None:
            raise BadResponse(f"malformed CHECKSUM file: `{checksum[:40]!r}`")
        stated, name = found["digest"] or found["tagged"], found["name"] or found["tag"]
        # Written in another directory, a CHECKSUM names that too.
        name = re.split(r"[/\\]", name.decode(errors="replace"))[-1]
        if unicodedata.normalize("NFC", name) != unicodedata.normalize("NFC", self.name):
            raise BadResponse(f"its CHECKSUM file is for another file: `{name}`")
        actual = hashlib.sha256(zipped).hexdigest()
        if actual != stated.decode().lower():
            raise BadResponse(
                f"the SHA-256 of its {len(zipped)} bytes is {actual[:12]}..., its CHECKSUM file states another one"
            )

    def candles(self, zipped: bytes) -> tuple[Candles, int]:
        """Return the rows of the zip, ascending, one for each slot, and how many were left out.

        Rows that cannot be true are left out: those that a klines response could not hold, prices of zero (a premium
        may have them), and rows that contradict another of the same time. Raises BadResponse for a zip or CSV that is
        malformed, too large, or not what its name promises.
        """
        name = self.name.removesuffix(".zip") + ".csv"
        rows, refused = parse_archive_csv(plain_csv(csv_of(zipped, name, CSV_BYTES_MAX)), self.price)
        found = len(rows) + refused
        if self.price != "premium":
            rows = rows[(rows[:, OPEN : CLOSE + 1] > 0).all(axis=1)]
        slots = rows[:, OPEN_TIME_MS].astype(np.int64) // INTERVAL_MS[self.interval]
        order = np.argsort(slots, kind="stable")
        rows, slots = np.ascontiguousarray(rows[order]), slots[order]
        if len(rows) and not self.start_ms <= rows[0, OPEN_TIME_MS] <= rows[-1, OPEN_TIME_MS] < self.end_ms:
            raise BadResponse(f"it holds candles of another period: {rows[0, 0]:.0f} .. {rows[-1, 0]:.0f}")
        again = np.flatnonzero(np.diff(slots) == 0) + 1
        if len(again):
            differing = again[(rows[again].view(np.int64) != rows[again - 1].view(np.int64)).any(axis=1)]
            unclear = np.isin(slots, slots[differing])
            unclear[again] = True
            rows = rows[~unclear]
        return rows, found - len(rows)


def _epoch_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
