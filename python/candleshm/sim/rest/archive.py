"""The archive of the simulated exchange: days and months of klines as zipped CSV files, in the real one's layout.

::

    /data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-03-10.zip
    /data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-02.zip
    /data/futures/cm/daily/klines/BTCUSD_PERP/1m/BTCUSD_PERP-1m-2026-03-10.zip.CHECKSUM
    /data/futures/um/daily/markPriceKlines/BTCUSDT/1m/BTCUSDT-1m-2026-03-10.zip

    /data/futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2026-02.zip

Mark price and premium index are by symbol, the index by pair. Funding rates have files of months alone.

A day is there once it is over in UTC, a month from the first Monday after it. Files agree with the truth, unless a
flaw is in force.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote

from candleshm.sim.rest.query import PRICES
from candleshm.sim.rest.responses import Response
from candleshm.sim.world.funding import fundings, interval_hours
from candleshm.sim.world.grid import DAY_MS
from candleshm.sim.world.truth import Truth
from candleshm.sim.world.universe import Market, Price, utc_ms

PREFIX = "/data/"
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
# Files of futures have a header since about then; those of spot never have.
HEADER_FROM_MS = utc_ms("2022-01-01")
# Spot counts in microseconds since then.
MICROSECONDS_FROM_MS = utc_ms("2025-01-01")

_FOLDERS: Mapping[str, Market] = {"spot": "SPOT", "futures/um": "UM", "futures/cm": "CM"}
_PATH = re.compile(
    r"/data/(?P<folder>spot|futures/um|futures/cm)/(?P<kind>daily|monthly)/(?P<of>\w+)/(?P<symbol>[^/]+)/"
    r"(?P<interval>[^/]+)/"
    r"(?P=symbol)-(?P=interval)-(?P<period>\d{4}-\d{2}(?:-\d{2})?)\.zip(?P<checksum>\.CHECKSUM)?"
)
_FUNDING = "fundingRate"
_FUNDING_PATH = re.compile(
    r"/data/(?P<folder>futures/um|futures/cm)/(?P<kind>monthly)/fundingRate/(?P<symbol>[^/]+)/"
    r"(?P=symbol)-(?P<interval>fundingRate)-(?P<period>\d{4}-\d{2})\.zip(?P<checksum>\.CHECKSUM)?"
)
FUNDING_HEADER = "calc_time,funding_interval_hours,last_funding_rate"
_FUTURES_PRICES: Mapping[str, Price] = {"klines": "trade", **PRICES}
_PRICES: Mapping[Market, Mapping[str, Price]] = {
    "SPOT": {"klines": "trade"},
    "UM": _FUTURES_PRICES,
    "CM": _FUTURES_PRICES,
}
_FILES_MAX = 256  # a day of 1m has 60 KB, a month 2 MB
_TRADES, _OPEN_TIME, _CLOSE_TIME = 8, 0, 6

Kind = Literal["daily", "monthly"]


@dataclass(frozen=True, kw_only=True)
class ArchiveFlaw:
    """Something that is wrong with files of the archive, for `count` requests.

    ``kind`` is what: ``checksum`` (the CHECKSUM is that of another version of the file), ``cut`` (the zip ends half
    way, which its CHECKSUM does not know), ``lack`` (candles that open in [start_ms, end_ms) are not in the file),
    ``value`` (they have one trade more than klines responses).

    ``market``, ``symbol``, ``price``, ``files`` and, for the first two kinds, any overlap with [start_ms, end_ms) limit
    which files it concerns; None means all.
    """

    kind: Literal["checksum", "cut", "lack", "value"]
    market: Market | None = None
    symbol: str | None = None
    price: Price | None = None
    files: Kind | None = None
    start_ms: int = 0
    end_ms: int = 2**62
    count: int | None = None

    def concerns(self, file: ArchiveName) -> bool:
        """Return whether it is about `file`."""
        return (
            self.market in {None, file.market}
            and self.symbol in {None, file.symbol}
            and self.price in {None, file.price}
            and self.files in {None, file.kind}
            and self.start_ms < file.end_ms
            and file.start_ms < self.end_ms
        )


@dataclass(frozen=True)
class ArchiveName:
    """What a path of the archive names. The files of one zip and its CHECKSUM differ in ``is_checksum`` only."""

    market: Market
    kind: Kind
    symbol: str
    interval: str
    first: date
    is_checksum: bool
    price: Price = "trade"

    @classmethod
    def parse(cls, path: str) -> ArchiveName | None:
        """Parse a path; None when the archive has nothing of that form."""
        found = _PATH.fullmatch(unquote(path)) or _FUNDING_PATH.fullmatch(unquote(path))
        if found is None:
            return None
        market = _FOLDERS[found["folder"]]
        price = _PRICES[market].get(found.groupdict().get("of", "klines"))
        if price is None:
            return None
        kind: Kind = "daily" if found["kind"] == "daily" else "monthly"
        period = found["period"]
        # The case of a letter must not be the only difference between a month and a minute: there is 1mo, and no 1M.
        if (kind == "daily") != (len(period) == len("2026-03-10")) or found["interval"] == "1M":
            return None
        try:
            first = date.fromisoformat(period if kind == "daily" else f"{period}-01")
        except ValueError:
            return None
        return cls(market, kind, found["symbol"], found["interval"], first, bool(found["checksum"]), price)

    @property
    def name(self) -> str:
        """Return the zip's name without its suffix."""
        return f"{self.symbol}-{self.interval}-{str(self.first)[: None if self.kind == 'daily' else 7]}"

    @property
    def start_ms(self) -> int:
        """Return when its first candle may open."""
        return _midnight_ms(self.first)

    @property
    def end_ms(self) -> int:
        """Return when the candles of the next file begin."""
        return self.start_ms + DAY_MS if self.kind == "daily" else _midnight_ms(_next_month(self.first))

    @property
    def published_ms(self) -> int:
        """Return since when the file is there."""
        if self.kind == "daily":
            return self.end_ms
        after = _next_month(self.first)
        return _midnight_ms(after + timedelta(days=-after.weekday() % 7))


class SimulatedArchive:
    """The files of a truth. Methods may be called from any thread."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._lock = threading.Lock()
        self._flaws: list[ArchiveFlaw] = []
        self._met: list[int] = []
        self._zipped = lru_cache(_FILES_MAX)(self._zip)

    def add(self, *flaws: ArchiveFlaw) -> None:
        """Put flaws in force, beside those that already are."""
        with self._lock:
            self._flaws += flaws
            self._met += [0] * len(flaws)

    def mend(self) -> None:
        """End all flaws."""
        with self._lock:
            self._flaws.clear()
            self._met.clear()

    def respond(self, path: str, now_ms: int) -> Response:
        """Return the file at ``path`` at ``now_ms``: 200, or a 404 in the form of S3."""
        file = ArchiveName.parse(path)
        with self._lock:
            body = None if file is None or file.published_ms > now_ms else self._body(file)
        if body is None:
            text = (
                '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code><Message>The specified key does '
                f"not exist.</Message><Key>{path[1:]}</Key></Error>"
            )
            return Response(404, text.encode(), "application/xml")
        kind = "binary/octet-stream" if file is not None and file.is_checksum else "application/zip"
        return Response(200, body, kind, {"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'})

    def _body(self, file: ArchiveName) -> bytes | None:
        flaws = [index for index, flaw in enumerate(self._flaws) if flaw.concerns(file) and self._is_left(index)]
        kinds = {self._flaws[index].kind: index for index in flaws}
        changes = tuple(self._flaws[index] for index in flaws if self._flaws[index].kind in {"lack", "value"})
        for index in flaws:
            if self._flaws[index].kind in {"lack", "value"} and not file.is_checksum:
                self._met[index] += 1
        zipped = self._zipped(replace(file, is_checksum=False), changes, self._truth.version)
        if zipped is None:
            return None
        if file.is_checksum:
            if "checksum" in kinds:
                self._met[kinds["checksum"]] += 1
                zipped += b" of another day"
            return f"{hashlib.sha256(zipped).hexdigest()}  {file.name}.zip\n".encode()
        if "cut" in kinds:
            self._met[kinds["cut"]] += 1
            return zipped[: len(zipped) // 2]
        return zipped

    def _is_left(self, index: int) -> bool:
        return self._met[index] != self._flaws[index].count

    def _zip(self, file: ArchiveName, changes: Sequence[ArchiveFlaw], _version: int) -> bytes | None:
        """Return the zip of a file, None without candles. `_version` of the truth tells cached zips apart."""
        lines = self._lines(file, changes)
        if not lines:
            return None
        if file.interval == _FUNDING:
            lines.insert(0, FUNDING_HEADER)
        elif file.market != "SPOT" and file.start_ms >= HEADER_FROM_MS:
            lines.insert(0, HEADER)
        packed = io.BytesIO()
        published = datetime.fromtimestamp(file.published_ms / 1000, UTC)
        member = zipfile.ZipInfo(f"{file.name}.csv", published.timetuple()[:6])
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(member, "\n".join([*lines, ""]), zipfile.ZIP_DEFLATED, compresslevel=1)
        return packed.getvalue()

    def _lines(self, file: ArchiveName, changes: Sequence[ArchiveFlaw]) -> list[str]:
        truth = self._truth
        if file.interval == _FUNDING:
            return _fundings(truth, file)
        interval = "1M" if file.interval == "1mo" else file.interval
        try:
            grid = truth.grid(file.market, file.symbol, interval, price=file.price)
        except KeyError:
            return []
        lines = []
        in_microseconds = file.market == "SPOT" and file.start_ms >= MICROSECONDS_FROM_MS
        texts = truth.texts(file.market, file.symbol, grid, file.start_ms, file.end_ms, None, price=file.price)
        for open_ms, text in texts:
            if not file.start_ms <= open_ms < file.end_ms:
                continue
            values = text[1:-1].replace('"', "").split(",")
            kinds = {flaw.kind for flaw in changes if flaw.start_ms <= open_ms < flaw.end_ms}
            if "lack" in kinds:
                continue
            if "value" in kinds:
                values[_TRADES] = str(int(values[_TRADES]) + 1)
            if in_microseconds:
                values[_OPEN_TIME] += "000"
                values[_CLOSE_TIME] += "999"
            lines.append(",".join(values))
        return lines


def _fundings(truth: Truth, file: ArchiveName) -> list[str]:
    try:
        instrument = truth.instrument(file.market, file.symbol)
    except KeyError:
        return []
    hours = interval_hours(instrument)
    charges = fundings(truth.seed, instrument, file.start_ms, file.end_ms - 1)
    return [f"{charge.time_ms},{hours},{charge.rate / 1e8:.8f}" for charge in charges]


def _midnight_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def _next_month(first: date) -> date:
    return (first + timedelta(days=32)).replace(day=1)
