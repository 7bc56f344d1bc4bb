"""Blocks as bytes, written from the tables of docs/segment-format.md without any code of candleshm.

`Image` is a block under construction, `Row` and `Series` say what a series holds. Nothing here reads a clock, so the
same calls give the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BOOT_ID", "CODES", "DAY_MS", "FIELDS", "LAYOUT_HASH", "MINUTE_MS", "STATES", "Image", "Series", "row"]

PAGE = (Path(__file__).parents[2] / "docs/segment-format.md").read_text()
BOOT_ID = (0x0123456789ABCDEF, 0xFEDCBA9876543210)
"""The boot id in the recorded blocks; whoever opens them puts the machine's own in its place."""
MINUTE_MS = 60_000
DAY_MS = 86_400_000
STATES = {" ": 0, "L": 1, "C": 2, "V": 3, "H": 4, ".": 5, "x": 7}
"""Row states as one letter each: nothing, live, closed, verified, hole, missing, missing_final."""


def _marked(table: str) -> str:
    return PAGE.split(f"<!-- {table} -->\n")[1].split(f"<!-- /{table} -->")[0]


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in _marked(table).splitlines()[2:]]


LAYOUT_HASH = hashlib.sha256(_marked("layout-table").encode()).digest()
FIELDS = {
    (structure, name): int(offset)
    for table in ("layout-table", "minor-table")
    for structure, offset, _, _, name, _ in _cells(table)
    if re.fullmatch(r"\d+", offset)
}
"""Byte offset of each field in its structure."""
CODES: dict[tuple[str, str], int] = {}
OTHER_PRICE_MARKETS: dict[str, int] = {}
"""Codes of the markets in blocks whose prices are not those of trades."""
for _kind, _code, _name, _ in _cells("code-table"):
    if (_kind, _name) in CODES:
        OTHER_PRICE_MARKETS[_name] = int(_code)
    else:
        CODES[_kind, _name] = int(_code)


def row(bar: int, open_ms: int, length_ms: int, version: int = 0) -> tuple[float, ...]:
    """Return the twelve values of a candle: all different, and most of them without a short binary form."""
    close = bar % 1000 + 0.1 * (version + 1)
    prices = (close - 0.05, close + 0.3, close - 0.7, close)
    volume = 12.3456789 + bar % 7 + version
    others = (volume * close, 10.0 + bar % 90, volume / 3, volume * close / 3, 0.0)
    return (float(open_ms), *prices, volume, float(open_ms + length_ms - 1), *others)


@dataclass(frozen=True, kw_only=True)
class Series:
    """What a symbol's entry and ring hold. `states` has a letter of `STATES` for each bar in front of `head`."""

    symbol: str
    head: int = 0
    states: str = ""
    newest: str = "L"
    """State of the row in the latch: L for the live one; C or V repeats the ring's newest row."""
    first_bar: int = 0
    phase_days: int = 0
    trading: int = 1
    rev: int = 3
    revision: int = 0
    received_ms: int = 1
    version: int = 6


class Image:
    """A block under construction. Offsets are those of the page's tables, strides those of its rules."""

    def __init__(
        self,
        *,
        interval: str = "1m",
        length: int = 8,
        places: int = 1,
        minor: int = 4,
        market: str = "SPOT",
        price: str = "trade",
        zone: str = "",
        exchange: str = "example",
    ) -> None:
        self.interval, self.length, self.zone = interval, length, zone
        self.capacity = -(-(length + 64) // 8) * 8
        self.column_stride = 16 * self.capacity + 64
        self.data_stride = 8 * self.capacity + 12 * self.column_stride
        self.data_offset = -(-(4096 + 640 * places) // 4096) * 4096
        size = -(-(self.data_offset + places * self.data_stride) // 4096) * 4096
        self.bytes = bytearray(size)
        self.symbols: list[Series] = []
        self.bytes[:8] = b"CANDLSHM"
        struct.pack_into("<II", self.bytes, 8, 1, minor)
        self.bytes[16:48] = LAYOUT_HASH
        market_code = CODES["market", market] if price == "trade" else OTHER_PRICE_MARKETS[market]
        self.header(generation=1, block_bytes=size, market=market_code, interval=CODES["interval", interval])
        self.header(length=length, capacity=self.capacity, symbol_capacity=places, symbols_offset=4096)
        self.header(data_offset=self.data_offset, symbol_stride=640, data_stride=self.data_stride)
        self.header(column_stride=self.column_stride, boot_id=BOOT_ID[0], pid=4242, pid_start=77, heartbeat_ns=10**9)
        self.word(FIELDS["header", "boot_id"] + 8, BOOT_ID[1])
        self.header(ready=1, commit_seq=5, close_seq=4, weight_used=40, weight_limit=4000, state=2)
        if minor >= 1:
            self.text(FIELDS["header", "zone"], zone, 64)
        if minor >= 2:
            self.text(FIELDS["header", "exchange"], exchange, 64)
            self.header(exchange_offset_ms=1_735_689_000_000)
        if minor >= 3:
            self.header(price=CODES["price", price])

    def word(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self.bytes, offset, value)

    def text(self, offset: int, text: str, size: int) -> None:
        self.bytes[offset : offset + size] = text.encode().ljust(size, b"\0")

    def header(self, **values: int) -> None:
        for name, value in values.items():
            self.word(FIELDS["header", name], value)

    def entry(self, place: int, **values: int) -> None:
        for name, value in values.items():
            self.word(self.entry_at(place) + FIELDS["symbol", name], value)

    def entry_at(self, place: int) -> int:
        return 4096 + 640 * place

    def latch_at(self, place: int, version: int) -> int:
        return self.entry_at(place) + FIELDS["symbol", "latches"] + 128 * (version % 4)

    def tag_at(self, place: int, bar: int) -> int:
        return self.data_offset + place * self.data_stride + 8 * (bar % self.capacity)

    def open_ms(self, bar: int, phase_days: int = 0) -> int:
        if self.interval == "3d":
            return (3 * bar + phase_days) * DAY_MS
        if self.interval == "1d@zone":
            return bar * DAY_MS - 8 * 3_600_000  # Asia/Shanghai has had no other offset since 1991
        return bar * MINUTE_MS

    def row(self, bar: int, version: int = 0, phase_days: int = 0) -> tuple[float, ...]:
        length_ms = {"3d": 3 * DAY_MS, "1d@zone": DAY_MS}.get(self.interval, MINUTE_MS)
        return row(bar, self.open_ms(bar, phase_days), length_ms, version)

    def store_row(self, place: int, bar: int, values: tuple[float, ...], columns: int = 12) -> None:
        """Store both copies of a row, of which only the first `columns` when its writer dies there."""
        slot = bar % self.capacity
        for column, value in list(enumerate(values))[:columns]:
            at = self.data_offset + place * self.data_stride + 8 * self.capacity + column * self.column_stride
            for copy in (slot, slot + self.capacity):
                struct.pack_into("<d", self.bytes, at + 8 * copy, value)

    def store_tag(self, place: int, bar: int, state: str, version: int) -> None:
        self.word(self.tag_at(place, bar), bar << 32 | (version % 2**24) << 8 | STATES[state])

    def store_latch(
        self,
        place: int,
        version: int,
        *,
        marks: tuple[int, int, int],
        state: str,
        row: tuple[float, ...],
        series: Series,
    ) -> None:
        """Fill the latch of a publication; `marks` are head, solid and final."""
        head, solid, final = marks
        at = self.latch_at(place, version)
        struct.pack_into(
            "<QIIIIQ", self.bytes, at, head, solid, final, STATES[state], series.revision, series.received_ms
        )
        struct.pack_into("<12d", self.bytes, at + 32, *row)

    def add(self, series: Series) -> int:
        """Write a symbol as its writer leaves it between two batches; return its place."""
        place = len(self.symbols)
        self.symbols.append(series)
        self.text(self.entry_at(place) + FIELDS["symbol", "name"], series.symbol, 64)
        self.header(symbol_count=place + 1)
        self.entry(place, trading=series.trading, first_bar=series.first_bar, phase_days=series.phase_days)
        if not series.head:
            struct.pack_into("<d", self.bytes, self.entry_at(place) + FIELDS["symbol", "last_close"], math.nan)
            return place
        head, states = series.head, series.states
        first = head - len(states)
        for bar, state in enumerate(states, first):
            has_row = state in "LCV"
            self.store_row(place, bar, self.row(bar, 0, series.phase_days) if has_row else (math.nan,) * 12)
            self.store_tag(place, bar, state, series.rev - bar % 2)
        window = max(head - self.length, series.first_bar)
        provisional = [bar for bar, state in enumerate(states, first) if state == "L" and bar >= window]
        final = min(provisional, default=head)
        solid = final
        while solid > max(window, first) and states[solid - 1 - first] in "CV":
            solid -= 1
        is_live = series.newest == "L"
        newest = self.row(head if is_live else head - 1, 9 if is_live else 0, series.phase_days)
        marks = (head, solid, final)
        self.store_latch(place, series.version, marks=marks, state=series.newest, row=newest, series=series)
        # The publication before: the same, with another live row.
        before = self.row(head if is_live else head - 1, 8 if is_live else 0, series.phase_days)
        self.store_latch(place, series.version - 1, marks=marks, state=series.newest, row=before, series=series)
        self.entry(place, version=series.version, rev=series.rev, wmark=head)
        struct.pack_into("<d", self.bytes, self.entry_at(place) + FIELDS["symbol", "last_close"], newest[4])
        return place
