"""Write the recorded blocks and the readings expected of them: ``python -m tests.conformance.generator``.

Nothing here depends on time, machine or the code of candleshm: the files come out the same everywhere, and
`tests/test_conformance.py` compares them. `README.md` beside this file describes them.
"""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

from tests.conformance.image import BOOT_ID, CODES, FIELDS, Image, Series
from tests.conformance.reading import reading_of

__all__ = ["BLOCKS", "CASES", "blocks", "cases", "patched"]

HERE = Path(__file__).parent
BLOCKS, CASES = HERE / "blocks", HERE / "cases"
BAR = 28_928_160
"""2025-01-01 00:00 UTC in minutes; a multiple of 72, so its slot is 0."""
HEAD = BAR + 40
Patches = list[tuple[int, bytes]]


def _word(value: int) -> bytes:
    return struct.pack("<Q", value % 2**64)


def rows() -> Image:
    """Whole windows: verified and closed rows, across the end of the ring, without a live row, without any row."""
    image = Image(places=5)
    image.add(Series(symbol="BTCUSDT", head=HEAD, states="VVVVVVVVVVCC", received_ms=900))
    # Slots 66 to 71 and 0 to 2: the window is one run because each column lies there twice.
    image.add(Series(symbol="WRAPUSDT", head=BAR + 75, states="VVVVVVCCC", received_ms=901))
    # The next candle has not been seen yet: the latch repeats the ring's newest row.
    image.add(Series(symbol="REPEATUSDT", head=HEAD, states="VVVVVVVVV", newest="V", trading=2))
    image.add(Series(symbol="币安人生USDT"))
    image.header(universe_bar=HEAD - 1)
    return image


def gaps() -> Image:
    """Windows with holes, missing rows, and a first candle inside."""
    image = Image(places=4)
    image.add(Series(symbol="HOLEUSDT", head=HEAD, states="VVVVHVHHCC"))
    image.add(Series(symbol="MISSUSDT", head=HEAD, states=".VC..Cx.C", revision=7))
    # Its first candle is three bars in front of the head: older slots are no gaps.
    image.add(Series(symbol="NEWUSDT", head=HEAD, states="CCC", first_bar=HEAD - 3))
    # Delisted; the oldest slot of the window is missing, and beside a live row it is not shown.
    image.add(Series(symbol="OLDUSDT", head=HEAD, states=".VVVVVVV", trading=0))
    image.header(missing=4, holes=3, universe_bar=HEAD - 1)
    return image


def provisional() -> Image:
    """Rows whose candle has ended and may still change."""
    image = Image(places=3)
    image.add(Series(symbol="ONEUSDT", head=HEAD, states="VVVVVVCCL"))
    # One is closed above another that is not: it counts as closed, and stands above `final`.
    image.add(Series(symbol="ABOVEUSDT", head=HEAD, states="VVVVVLCLC"))
    # All of the window, with a missing row among them.
    image.add(Series(symbol="ALLUSDT", head=HEAD, states="VVLLL.LLLL"))
    image.header(missing=1)
    return image


def cut() -> Image:
    """What writers left that died between two stores."""
    image = Image(places=6)
    # A rewrite of two closed rows: published with `solid` above them, marked, `rev` raised, half of the values stored.
    place = image.add(series := Series(symbol="HALFUSDT", head=HEAD, states="VVVVVVVVC", rev=9))
    marks = (HEAD, HEAD - 3, HEAD)
    version = series.version + 1
    image.store_latch(place, version, marks=marks, state="L", row=image.row(HEAD, 9), series=series)
    for bar in (HEAD - 5, HEAD - 4):
        image.store_tag(place, bar, "x", series.rev + 1)
    image.store_row(place, HEAD - 5, image.row(HEAD - 5, 3))
    image.store_row(place, HEAD - 4, image.row(HEAD - 4, 3), columns=5)
    image.entry(place, version=version, rev=series.rev + 1)
    # A fill: one of two missing rows has half of its values.
    place = image.add(series := Series(symbol="FILLUSDT", head=HEAD, states="VVV..VVCC", rev=4))
    for bar in (HEAD - 6, HEAD - 5):
        image.store_tag(place, bar, ".", series.rev + 1)
    image.store_row(place, HEAD - 6, image.row(HEAD - 6), columns=7)
    image.entry(place, rev=series.rev + 1)
    # An advance by one bar: its slot is marked and stored, the latch is not published.
    place = image.add(series := Series(symbol="NEXTUSDT", head=HEAD, states="VVVVVVVCC"))
    image.store_tag(place, HEAD, "C", series.rev)
    image.store_row(place, HEAD, image.row(HEAD))
    image.entry(place, wmark=HEAD + 1)
    # An advance by 68 bars, beyond the ring: the slots of the window's oldest bars belong to bars to come.
    place = image.add(series := Series(symbol="JUMPUSDT", head=HEAD, states="VVVVVVVCC"))
    for bar in range(HEAD, HEAD + 68):
        image.store_tag(place, bar, ".", series.rev)
    image.store_row(place, HEAD + 64, image.row(HEAD + 64))
    image.entry(place, wmark=HEAD + 68)
    # A close: its tag says closed, `final` was not published.
    place = image.add(series := Series(symbol="CLOSEUSDT", head=HEAD, states="VVVVVVVCL"))
    image.store_tag(place, HEAD - 1, "C", series.rev - (HEAD - 1) % 2)
    # A publication: the next latch is half filled, `last_close` is ahead of the latch that counts.
    place = image.add(series := Series(symbol="LASTUSDT", head=HEAD, states="VVVVVVVCC"))
    ahead = image.row(HEAD, 12)
    half = (*ahead[:6], *[0.0] * 6)
    image.store_latch(place, series.version + 1, marks=(HEAD, 0, HEAD), state="L", row=half, series=series)
    struct.pack_into("<d", image.bytes, image.entry_at(place) + FIELDS["symbol", "last_close"], ahead[4])
    # As it was in front of the last batches: a missing row counts until its fill is published.
    image.header(missing=2)
    return image


def minor_0() -> Image:
    """The words of later minors are zero; a ban, and a collector that has not loaded everything."""
    image = Image(minor=0, market="UM", length=16)
    image.add(Series(symbol="BTCUSDT", head=HEAD, states="V" * 11 + ".CC", first_bar=HEAD - 14))
    image.header(missing=1, ready=0, banned_until_ms=1_735_690_000_000)
    return image


def minor_3() -> Image:
    """Mark prices: the market has another code, and volumes are 0 in real ones."""
    image = Image(minor=3, market="UM", price="mark")
    image.add(Series(symbol="BTCUSDT", head=HEAD, states="VVVVVVVVVVCC", received_ms=900))
    image.header(universe_bar=HEAD - 1)
    return image


def minor_4() -> Image:
    """A copy of a leader's block on another host."""
    image = Image(minor=4)
    image.add(Series(symbol="BTCUSDT", head=HEAD, states="VVVVVVVVVVCC", received_ms=900))
    image.header(universe_bar=HEAD - 1, cluster_epoch=7, source_ms=1_735_689_600_000, lag_us=350)
    image.text(FIELDS["header", "source"], "host-a/4242", 64)
    return image


def minor_2() -> Image:
    """One whole window; the damaged blocks are this one with other bytes."""
    image = Image(minor=2)
    image.add(Series(symbol="BTCUSDT", head=HEAD, states="VVVVVVVVVVCC", received_ms=900))
    image.header(universe_bar=HEAD - 1)
    return image


def minor_1() -> Image:
    """Days of a time zone: bars are dates there."""
    image = Image(minor=1, interval="1d@zone", zone="Asia/Shanghai")
    image.add(Series(symbol="BTCUSDT", head=20_089, states="VVHVVVVC"))
    image.header(holes=1)
    return image


def days_3d() -> Image:
    """Two symbols whose 3d candles open on different days."""
    image = Image(interval="3d", places=2, market="CM")
    image.add(Series(symbol="BTCUSD_PERP", head=6_700, states="VVVVVVVV", phase_days=1))
    image.add(Series(symbol="ETHUSD_PERP", head=6_700, states="VVVVV.VV", phase_days=2))
    image.header(missing=1)
    return image


def blocks() -> dict[str, bytes]:
    """Return the recorded blocks by name."""
    makers = (rows, gaps, provisional, cut, minor_0, minor_1, minor_2, minor_3, minor_4, days_3d)
    return {maker.__name__.replace("_", "-"): bytes(maker().bytes) for maker in makers}


def patched(image: bytes, case: dict[str, Any]) -> bytearray:
    """Return a recorded block with the size and the patches of a case."""
    result = bytearray(image[: case["size"]].ljust(case["size"], b"\0"))
    for offset, digits in case["patches"]:
        result[offset : offset + len(digits) // 2] = bytes.fromhex(digits)
    return result


def cases() -> dict[str, dict[str, Any]]:
    """Return the cases by name: block, size and patches, and what is to be read."""
    recorded = blocks()
    found: dict[str, dict[str, Any]] = {}

    def case(name: str, about: str, block: str, patches: Patches = [], size: int | None = None) -> None:  # noqa: B006
        image = recorded[block]
        told = [[offset, data.hex()] for offset, data in patches]
        what = {
            "about": about,
            "block": f"{block}.block",
            "size": len(image) if size is None else size,
            "patches": told,
        }
        found[name] = what | {"reading": reading_of(bytes(patched(image, what)), BOOT_ID)}

    for block in recorded:
        about = (globals()[block.replace("-", "_")].__doc__ or "").strip()
        case(block, about, block)

    def header(field: str, value: int) -> Patches:
        return [(FIELDS["header", field], _word(value))]

    case("superseded", "Another block stands under the name, or will in a moment.", "minor-2", header("state", 3))
    case("closed", "The collector has ended.", "minor-2", header("state", 4))
    case("minor-5", "A later minor, which this reader may ignore.", "minor-4", [(12, b"\x05\0\0\0")])
    case("price-unknown", "A price that is not known.", "minor-3", header("price", 4))
    case(
        "price-of-trades",
        "The market says another price, and the price is that of trades.",
        "minor-3",
        header("price", 0),
    )
    case(
        "price-without-market",
        "A price beside the market of trades.",
        "minor-3",
        header("market", CODES["market", "UM"]),
    )
    case(
        "minor-9",
        "A much later minor, with words that have no meaning yet.",
        "minor-2",
        [(12, b"\x09\0\0\0"), (1024, _word(77))],
    )
    case(
        "heartbeat-future", "A heartbeat from the future counts as none.", "minor-2", header("heartbeat_ns", 2**63 + 5)
    )
    _damaged_headers(case, len(recorded["minor-2"]), header)
    _damaged_bodies(case)
    return found


def _damaged_headers(case: Any, size: int, header: Any) -> None:
    for name, about, patches in (
        ("magic", "Not a block.", [(0, b"CANDLESH")]),
        ("major", "Another major.", [(8, b"\x02\0\0\0")]),
        ("layout-hash", "Another layout under the same number.", [(47, b"\xb2")]),
        ("market", "An unknown market.", header("market", 99)),
        ("interval", "An unknown interval.", header("interval", 99)),
        ("length-1", "LENGTH below its limit.", header("length", 1)),
        ("length-huge", "LENGTH above its limit.", header("length", 100_001)),
        ("length-wide", "LENGTH with bits above 32.", header("length", 8 + 2**32)),
        ("places-0", "No places.", header("symbol_capacity", 0)),
        ("places-huge", "More places than there can be.", header("symbol_capacity", 2**63)),
        ("capacity", "A capacity that does not follow.", header("capacity", 80)),
        ("symbols-offset", "An offset that does not follow.", header("symbols_offset", 8192)),
        ("data-offset", "An offset that does not follow.", header("data_offset", 2**64 - 4096)),
        ("symbol-stride", "A stride that does not follow.", header("symbol_stride", 0)),
        ("data-stride", "A stride that does not follow.", header("data_stride", 15_232)),
        ("column-stride", "A stride that does not follow.", header("column_stride", 1152)),
        ("block-bytes", "A size that does not follow.", header("block_bytes", size + 4096)),
        ("symbol-count", "More symbols than places.", header("symbol_count", 2)),
        ("state-init", "Being written for the first time.", header("state", 1)),
        ("state-0", "No state.", header("state", 0)),
        ("state-5", "A state that does not exist.", header("state", 5)),
        ("boot-id", "Written before the machine was started again.", header("boot_id", BOOT_ID[0] ^ 1)),
    ):
        case(f"header-{name}", about, "minor-2", patches)
    for name, bytes_ in (("empty", 0), ("short", 4088), ("cut", size - 4096), ("odd", size - 3), ("long", size + 4096)):
        case(f"size-{name}", f"A file of {bytes_} bytes.", "minor-2", size=bytes_)


def _damaged_bodies(case: Any) -> None:
    image = minor_2()
    at = image.latch_at(0, image.symbols[0].version)
    entry = image.entry_at(0)

    def latch(field: str) -> int:
        return at + FIELDS["latch", field]

    def symbol(field: str) -> int:
        return entry + FIELDS["symbol", field]

    above = [(latch("solid"), struct.pack("<I", HEAD))]
    """No window is fast: every reader looks at the tags."""
    nan = struct.pack("<d", math.nan)
    for name, about, patches in (
        ("head-wide", "A head with bits above 32: they are cut off.", [(latch("head"), _word(HEAD | 7 << 32))]),
        (
            "head-max",
            "The highest head: its window has other bars in all slots.",
            [(latch("head"), _word(2**64 - 1)), *above],
        ),
        (
            "head-low",
            "A head below LENGTH: the window begins at 0.",
            [(latch("head"), _word(5)), (latch("solid"), _word(0))],
        ),
        ("head-0", "No head, so no row.", [(latch("head"), bytes(24))]),
        (
            "head-0-live",
            "No head, so no row, although the latch has a live one.",
            [(latch("head"), bytes(16))],
        ),
        ("final-max", "`final` above the head counts as the head.", [(latch("final"), b"\xff" * 4)]),
        ("final-0", "`final` far below the window: nothing is final.", [(latch("final"), bytes(4))]),
        ("solid-max", "`solid` above `final`: no window is fast.", [(latch("solid"), b"\xff" * 4)]),
        ("latch-state", "A row state without a meaning in the latch: no newest row.", [(latch("state"), b"\x09")]),
        (
            "first-bar-max",
            "A first bar above the head: the window is empty.",
            [(symbol("first_bar"), _word(2**64 - 1))],
        ),
        (
            "wmark-max",
            "`wmark` above all: nothing is fast, and the tags still vouch.",
            [(symbol("wmark"), _word(2**64 - 1))],
        ),
        (
            "rev-far",
            "`rev` 2^23 ahead of the tags: a view is not vouched for by them.",
            [(symbol("rev"), _word(2**23 + 9)), (symbol("wmark"), _word(2**64 - 1))],
        ),
        ("tag-state", "A tag with a state without a meaning: missing.", [*above, (image.tag_at(0, HEAD - 3), b"\x63")]),
        (
            "tag-bar",
            "A tag with an older bar: missing.",
            [*above, (image.tag_at(0, HEAD - 3) + 4, struct.pack("<I", HEAD - 75))],
        ),
        ("received-0", "No response yet: infinitely old.", [(latch("received_ms"), _word(0))]),
        ("received-future", "A response from the future: infinitely old.", [(latch("received_ms"), _word(2**63))]),
        ("last-close-nan", "`last_close` without a value.", [(symbol("last_close"), nan)]),
        ("name-full", "A name of 64 bytes, without a zero behind it.", [(symbol("name"), b"X" * 64)]),
        ("name-bytes", "A name that is not UTF-8: the byte is replaced by U+FFFD.", [(symbol("name"), b"BTC\xffUSD")]),
        ("trading-9", "A number without a meaning: to be awaited no longer.", [(symbol("trading"), _word(9))]),
    ):
        case(f"body-{name}", about, "minor-2", patches)


def main() -> None:
    for folder, ending in ((BLOCKS, "block"), (CASES, "json")):
        folder.mkdir(exist_ok=True)
        for left in folder.glob(f"*.{ending}"):
            left.unlink()
    for name, image in blocks().items():
        (BLOCKS / f"{name}.block").write_bytes(image)
    for name, case in cases().items():
        (CASES / f"{name}.json").write_text(text_of(case))


def text_of(case: dict[str, Any]) -> str:
    """Return a case as the text of its file: NaN, which JSON does not have, as null."""

    def clean(value: Any) -> Any:
        if isinstance(value, float) and math.isnan(value):
            return None
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        return [clean(inner) for inner in value] if isinstance(value, (list, tuple)) else value

    text = json.dumps(clean(case), indent=1, ensure_ascii=False, allow_nan=False)
    # A row, and a list of numbers, on one line.
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text) + "\n"


if __name__ == "__main__":
    main()
