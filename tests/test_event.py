"""Frames as the exchange really sent them, through the real parser and the real writer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import candleshm
from candleshm._core import Pushed, Writer
from candleshm.errors import BlockNotFound

DATA = Path(__file__).parent / "data" / "streams"
FILES: dict[str, Literal["SPOT", "UM", "CM"]] = {"spot": "SPOT", "um": "UM", "cm": "CM", "tr": "SPOT"}
LETTERS = ["t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q"]
MINUTE = 60_000

Open = Callable[..., Writer]


@pytest.fixture
def open_writer(block_name: str) -> Iterator[Open]:
    writers = []

    def open_writer(symbols: list[str], **changes: Any) -> Writer:
        settings: dict[str, Any] = {"market": "SPOT", "interval": "1m", "length": 10}
        writers.append(Writer.open(block_name, symbols=symbols, **(settings | changes)))
        return writers[-1]

    yield open_writer
    for writer in writers:
        writer.close()


def frames(name: str) -> list[bytes]:
    """Return the texts of a recording, in order."""
    lines = (DATA / f"{name}.frames").read_bytes().splitlines()
    return [line.split(b": ", 1)[1] for line in lines if line]


def kline_of(frame: bytes) -> dict[str, Any] | None:
    """Return the kline of a frame, None for events of another kind."""
    event = json.loads(frame)["data"]
    return event if event.get("e") == "kline" else None


def row_of(event: dict[str, Any]) -> list[float]:
    """Return the row that an event stands for, each value by Python's own float()."""
    return [*(float(event["k"][letter]) for letter in LETTERS), 0.0]


def begin(writer: Writer, symbol: str, open_ms: int) -> None:
    """Give a series its first row: a minute that closed before the recording, so that events count."""
    row = [open_ms, "1", "1", "1", "1", "0", open_ms + MINUTE - 1, "0", 0, "0", "0", "0"]
    now_ms = open_ms + 2 * MINUTE
    body = json.dumps([row]).encode()
    writer.ingest(symbol, body, sent_ms=now_ms, received_ms=now_ms, settle_ms=0, limit=1, from_end=True)


@pytest.mark.parametrize("name", FILES)
def test_recorded_events_become_rows_bit_for_bit(name: str, open_writer: Open, block_name: str) -> None:
    recorded = frames(name)
    events = [event for event in map(kline_of, recorded) if event is not None]
    symbols = sorted({event["s"] for event in events})
    writer = open_writer(symbols, market=FILES[name])
    for symbol in symbols:
        begin(writer, symbol, min(event["k"]["t"] for event in events) - MINUTE)
    newest: dict[tuple[str, int], list[float]] = {}
    closed = 0
    with candleshm.attach(block_name, max_age=None) as feed:
        for frame in recorded:
            event = kline_of(frame)
            now_ms = int(json.loads(frame)["data"].get("E", 0))
            pushed = writer.ingest_events([frame], received_ms=now_ms)
            assert not pushed.faults
            assert (pushed.events, pushed.foreign) == ((0, 1) if event is None else (1, 0))
            if event is None:
                continue
            newest[event["s"], event["k"]["t"]] = row_of(event)
            closed += pushed.closed
            rows = feed[event["s"]].candles()
            shown = rows[rows[:, candleshm.OPEN_TIME_MS] == event["k"]["t"]]
            np.testing.assert_array_equal(shown, [newest[event["s"], event["k"]["t"]]])
        for symbol, own in groupby(sorted(newest), key=lambda key: key[0]):
            rows = feed[symbol].candles()[1:]
            np.testing.assert_array_equal(rows, [newest[key] for key in own])
    assert closed == sum(event["k"]["x"] for event in events)


def test_a_batch_stands_but_for_the_frames_that_cannot_be_read(open_writer: Open) -> None:
    event = next(frame for frame in frames("spot") if kline_of(frame))
    told = json.loads(event)["data"]
    writer = open_writer([told["s"]])
    begin(writer, told["s"], told["k"]["t"] - MINUTE)
    batch = [b"<html>", event, event[:-1], b'{"result":null,"id":7}', b'{"e":"serverShutdown","E":1}', b"\xff"]
    pushed = writer.ingest_events(batch, received_ms=told["E"])
    assert (pushed.events, pushed.changed, pushed.acknowledgements, pushed.shuts_down) == (1, 1, [3], True)
    assert pushed.faults == [
        (0, "the frame is not a JSON object, at byte 0"),
        (2, f"the frame ends before its object does, at byte {len(event) - 1}"),
        (5, "the frame is not UTF-8, at byte 0"),
    ]


@pytest.mark.parametrize(
    ("market", "family", "events"),
    [("UM", 1, 1), ("UM", 2, 0), ("CM", 2, 1), ("CM", 1, 0), ("UM", None, 1), ("SPOT", 2, 1)],
)
def test_the_other_futures_family_is_left_out(market: str, family: int | None, events: int, open_writer: Open) -> None:
    told = json.loads(next(frame for frame in frames("um") if kline_of(frame)))["data"]
    writer = open_writer([told["s"]], market=market)
    begin(writer, told["s"], told["k"]["t"] - MINUTE)
    if family is not None:
        told["st"] = family
    pushed = writer.ingest_events([json.dumps(told).encode()], received_ms=told["E"])
    assert (pushed.events, pushed.foreign) == (events, 1 - events)


def test_symbols_and_intervals_of_others(open_writer: Open) -> None:
    event = next(frame for frame in frames("spot") if kline_of(frame))
    writer = open_writer(["BTCUSDT"])
    longer = event.replace(b'"i":"1m"', b'"i":"3m"').replace(b"kline_1m", b"kline_3m")
    for text, counts in ((event, (0, 0, 1)), (longer, (0, 1, 0))):
        pushed = writer.ingest_events([text], received_ms=json.loads(event)["data"]["E"])
        assert (pushed.events, pushed.foreign, pushed.unknown) == counts


def test_notices_name_series_need_and_row(open_writer: Open) -> None:
    told = json.loads(next(frame for frame in frames("spot") if kline_of(frame)))["data"]
    symbol, open_ms = told["s"], told["k"]["t"]
    writer = open_writer([symbol])

    def push(later_minutes: int, **kline: Any) -> Pushed:
        event = json.loads(json.dumps(told))
        event["E"] += later_minutes * MINUTE
        event["k"] |= {"t": open_ms + later_minutes * MINUTE, "T": open_ms + (later_minutes + 1) * MINUTE - 1} | kline
        if event["k"]["x"]:
            event["E"] = event["k"]["T"] + 1
        return writer.ingest_events([json.dumps(event).encode()], received_ms=event["E"])

    assert push(0).repair_requests == [(symbol, "rows", open_ms)]
    begin(writer, symbol, open_ms - MINUTE)
    assert push(0).repair_requests == []
    assert push(1).repair_requests == [(symbol, "close", open_ms)]
    assert push(1, x=True, n=29).repair_requests == [(symbol, "suspect", open_ms + MINUTE)]


def test_the_last_event_is_known_by_symbol(open_writer: Open) -> None:
    event = next(frame for frame in frames("spot") if kline_of(frame))
    told = json.loads(event)["data"]
    writer = open_writer(["AAA", told["s"]])
    begin(writer, told["s"], told["k"]["t"] - MINUTE)
    assert writer.last_event_seconds() == {"AAA": -np.inf, told["s"]: -np.inf}
    writer.ingest_events([event], received_ms=told["E"])
    last_seconds = writer.last_event_seconds()
    assert last_seconds["AAA"] == -np.inf < last_seconds[told["s"]]
    writer.ingest_events([event], received_ms=told["E"])
    assert writer.last_event_seconds() == last_seconds, "the same event again is no news"


def test_a_closed_writer_takes_no_events(open_writer: Open) -> None:
    writer = open_writer(["AAA"])
    with closing(writer):
        pass
    with pytest.raises(BlockNotFound):
        writer.ingest_events([b"{}"], received_ms=0)
