"""What is to be read from a block that nobody writes: the page's rules in their simplest form, without any ordering.

`reading_of` returns the JSON that every reader is compared with.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from tests.conformance.image import CODES, DAY_MS, FIELDS, LAYOUT_HASH, OTHER_PRICE_MARKETS

__all__ = ["reading_of"]

Json = dict[str, Any]
MASK = 0xFFFF_FFFF
LIVE, CLOSED, VERIFIED, HOLE, MISSING = 1, 2, 3, 4, 5
INTERVAL_MS = {
    f"{count}{unit}": count * ms
    for unit, ms, counts in (
        ("s", 1000, (1,)),
        ("m", 60_000, (1, 3, 5, 15, 30)),
        ("h", 3_600_000, (1, 2, 4, 6, 8, 12)),
        ("d", DAY_MS, (1,)),
    )
    for count in counts
}


class _Words:
    def __init__(self, image: bytes) -> None:
        self.image = image

    def __getitem__(self, at: int) -> int:
        return int(struct.unpack_from("<Q", self.image, at)[0])

    def header(self, name: str) -> int:
        return self[FIELDS["header", name]]

    def double(self, at: int) -> float:
        return float(struct.unpack_from("<d", self.image, at)[0])

    def text(self, at: int, size: int) -> str:
        return self.image[at : at + size].split(b"\0")[0].decode(errors="replace")


def reading_of(image: bytes, boot_id: tuple[int, int]) -> Json:
    """Return what a reader finds in a file with these bytes, on a machine of that boot."""
    outcome, shape = _open(image, boot_id)
    if outcome != "ok":
        return {"open": outcome}
    words, (length, capacity, places) = _Words(image), shape
    interval = next(
        name for (kind, name), code in CODES.items() if (kind, code) == ("interval", words.header("interval"))
    )
    zone = words.text(FIELDS["header", "zone"], 64)
    price = next(name for (kind, name), code in CODES.items() if (kind, code) == ("price", words.header("price")))
    market = next(name for name, code in _markets(price).items() if code == words.header("market"))
    numbers = ("generation", "length", "ready", "missing", "holes", "universe_bar", "weight_used", "weight_limit")
    state = {2: "ready", 3: "superseded", 4: "closed"}[words.header("state")]
    return {
        "open": "ok",
        "minor": words[8] >> 32,
        "state": state,
        "market": market,
        "price": price,
        "interval": interval.replace("zone", zone),
        "exchange": words.text(FIELDS["header", "exchange"], 64),
        **{number: words.header(number) for number in (*numbers, "banned_until_ms")},
        "collector": "alive once" if words.header("heartbeat_ns") < 2**62 else "in the future",
        "series": [
            _series(words, place, length, capacity, places, interval) for place in range(words.header("symbol_count"))
        ],
    }


def _markets(price: str) -> dict[str, int]:
    """Return the codes of the markets in blocks of that price."""
    if price != "trade":
        return OTHER_PRICE_MARKETS
    return {name: code for (kind, name), code in CODES.items() if kind == "market"}


def _open(image: bytes, boot_id: tuple[int, int]) -> tuple[str, tuple[int, int, int]]:
    none = (0, 0, 0)
    if len(image) < 4096:
        return "corrupt", none
    words = _Words(image)
    if image[:8] != b"CANDLSHM":
        return "corrupt", none
    if words[8] & MASK != 1 or image[16:48] != LAYOUT_HASH:
        return "incompatible", none
    length, places = words.header("length"), words.header("symbol_capacity")
    known = {
        kind: {code: name for (other, name), code in CODES.items() if other == kind} for kind in ("price", "interval")
    }
    if any(words.header(kind) not in codes for kind, codes in known.items()):
        return "corrupt", none
    if words.header("market") not in _markets(known["price"][words.header("price")]).values():
        return "corrupt", none
    if not (2 <= length <= 100_000 and 1 <= places <= 16_384):
        return "corrupt", none
    capacity = (length + 64 + 7) // 8 * 8
    data_offset = (4096 + 640 * places + 4095) // 4096 * 4096
    data_stride = 200 * capacity + 768
    size = (data_offset + places * data_stride + 4095) // 4096 * 4096
    computed = {"capacity": capacity, "symbols_offset": 4096, "data_offset": data_offset, "symbol_stride": 640}
    computed |= {"data_stride": data_stride, "column_stride": 16 * capacity + 64, "block_bytes": size}
    if any(words.header(name) != value for name, value in computed.items()) or len(image) != size:
        return "corrupt", none
    if words.header("symbol_count") > places:
        return "corrupt", none
    at = FIELDS["header", "boot_id"]
    if words.header("state") not in (2, 3, 4) or (words[at], words[at + 8]) != boot_id:
        return "not_found", none
    return "ok", (length, capacity, places)


def _series(words: _Words, place: int, length: int, capacity: int, places: int, interval: str) -> Json:
    entry = 4096 + 640 * place
    data = (4096 + 640 * places + 4095) // 4096 * 4096 + place * (200 * capacity + 768)
    of = {name: words[entry + at] for (structure, name), at in FIELDS.items() if structure == "symbol"}
    latch = entry + 64 + 128 * (of["version"] % 4)
    head, solid, final = words[latch] & MASK, words[latch + 8] & MASK, min(words[latch + 8] >> 32, words[latch] & MASK)
    newest_state = words[latch + 16] & 0xFF if head else 0
    newest = [words.double(latch + 32 + 8 * column) for column in range(12)]
    live = int(newest_state == LIVE)

    def tag(bar: int) -> tuple[int, int, int]:
        word = words[data + 8 * (bar % capacity)]
        return word >> 32, word >> 8 & 0xFFFFFF, word & 0xFF

    def row(bar: int) -> list[float]:
        column = data + 8 * capacity + 8 * (bar % capacity)
        return [words.double(column + k * (16 * capacity + 64)) for k in range(12)]

    def state(bar: int) -> int:
        there, _, state = tag(bar)
        return state if there == bar and state in (LIVE, CLOSED, VERIFIED, HOLE) else MISSING

    def start(end: int, count: int) -> int:
        return min(max(end - count, head - length, of["first_bar"], 0), end)

    def open_ms(bar: int) -> int:
        if interval == "3d":
            return (3 * bar + of["phase_days"] % 3) * DAY_MS
        return bar * DAY_MS - 8 * 3_600_000 if interval == "1d@zone" else bar * INTERVAL_MS[interval]

    def slots(first: int, end: int, *, with_live: bool) -> Json:
        states = [state(bar) for bar in range(first, end)]
        rows = [
            row(bar) if s in (LIVE, CLOSED, VERIFIED) else None
            for bar, s in zip(range(first, end), states, strict=True)
        ]
        if with_live:
            states, rows = [*states, LIVE], [*rows, newest]
        # A row tells its own time; for a slot without one it follows from the bar.
        times = [open_ms(bar) if row is None else round(row[0]) for bar, row in enumerate(rows, first)]
        return {"start": first, "open_times_ms": times, "states": states, "rows": rows}

    shown = start(head, length - live)
    states = [state(bar) for bar in range(shown, head)]
    gaps: list[list[int]] = []
    for bar, s in zip(range(shown, head), states, strict=True):
        if s in (HOLE, MISSING) and tag(bar)[0] <= bar:
            if gaps and gaps[-1][1] == bar and gaps[-1][2] == int(s == HOLE):
                gaps[-1][1] += 1
            else:
                gaps.append([bar, bar + 1, int(s == HOLE)])
    settled = [bar for bar in range(start(head, length), head) if state(bar) in (CLOSED, VERIFIED, HOLE)]
    there_is_one = head > 0 and newest_state in (LIVE, CLOSED, VERIFIED)
    return {
        "symbol": words.text(entry + FIELDS["symbol", "name"], 64),
        **{name: of[name] for name in ("first_bar", "phase_days", "trading")},
        "last_close": _number(words.double(entry + FIELDS["symbol", "last_close"])),
        "age": "none" if words[latch + 24] in (0,) or words[latch + 24] > 2**62 else "known",
        "head": head,
        "final": final,
        "revision": words[latch + 16] >> 32,
        "newest": {"state": newest_state if there_is_one else 0, "row": newest if there_is_one else None},
        "candles": slots(shown, head, with_live=bool(live)),
        "closed_only": slots(start(final, length), final, with_live=False),
        "view": _view(start(final, length), final, solid, of, capacity, tag, row),
        "gaps": gaps,
        "gap_times_ms": [[open_ms(first), open_ms(end), hole] for first, end, hole in gaps],
        "newest_settled": max(settled, default=0),
    }


def _view(first: int, end: int, solid: int, of: dict[str, int], capacity: int, tag: Any, row: Any) -> Json:
    """Return the view of [first, end)."""
    present = {bar: True for bar in range(first, end)}
    if first < solid:
        present = {bar: tag(bar)[0] == bar and tag(bar)[2] in (CLOSED, VERIFIED) for bar in range(first, end)}
        for bar in reversed(range(first, end)):
            if not present[bar] and not (tag(bar)[0] == bar and all(math.isnan(value) for value in row(bar))):
                first = bar + 1
                break
    valid = of["wmark"] <= first + capacity or all(
        tag(bar)[0] == bar
        and (not present[bar] or (tag(bar)[2] in (CLOSED, VERIFIED) and (of["rev"] - tag(bar)[1]) % 2**24 < 2**23))
        for bar in range(first, end)
    )
    rows = [row(bar) if present[bar] else None for bar in range(first, end)]
    complete = all(present[bar] for bar in range(first, end))
    # What a view holds that is not valid means nothing.
    return {"start": first, "count": end - first, "complete": complete, "valid": valid, "rows": rows if valid else None}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
