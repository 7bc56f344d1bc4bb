"""J: from a response's bytes to rows: 2 rows (a refresh), 99 (the cheapest futures page), 1000 (a page).

Ours goes all the way: parsed, merged, published to readers. The peers stop at an array or a frame of their own. Two
bodies with other values take turns, so that ours has every row to write.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pandas as pd
import requests
from material import MINUTE_MS, START_MS, FloatArray, block, ingest, symbol_name
from rounds import TORN, WHOLE, Contender, Table, Target, each, race

import candleshm
from candleshm.columns import NAMES

OURS = "Writer.ingest: parse, merge, publish"
ORJSON, REQUESTS = "orjson + numpy dtype", "requests .json() + pandas"


def _orjson_numpy(body: bytes) -> FloatArray:
    return np.array(orjson.loads(body), dtype=np.float64)


def _requests_pandas(body: bytes) -> pd.DataFrame:
    response = requests.Response()
    response._content = body
    response.encoding = "utf-8"
    frame: pd.DataFrame = pd.DataFrame(response.json(), columns=list(NAMES)).astype(np.float64)
    return frame


def _json_numpy(body: bytes) -> FloatArray:
    return np.array(json.loads(body), dtype=np.float64)


def run(*, quick: bool) -> Iterator[Table]:
    rounds, seconds = (3, 0.05) if quick else (15, 0.1)
    name = f"candleshm-bench-bodies-{os.getpid()}"
    for count in (2, 99, 1000):
        with block(name, 1, 2880) as writer, candleshm.attach(name) as feed:
            yield _table(writer, feed[symbol_name(0)], count, rounds, seconds)


def _kline_bodies(count: int) -> list[bytes]:
    """Return bodies of the same candles with other values, written the way SPOT writes them.

    They have the same numbers of trades: a newest row with fewer trades than before counts as an old picture.
    """
    chance = random.Random(count)
    bodies = []
    for _ in range(8):
        klines = []
        for candle in range(2880 - count, 2880):
            open_ms = START_MS + candle * MINUTE_MS
            prices = sorted(chance.uniform(90_000, 99_000) for _ in range(4))
            low, first, last, high = (f"{price:.2f}000000" for price in prices)
            volume, taker = (f"{chance.uniform(0, 400):.5f}000" for _ in range(2))
            quote, taker_quote = (f"{chance.uniform(0, 4e7):.8f}" for _ in range(2))
            prices_and_volume = [first, high, low, last, volume]
            takers = [taker, taker_quote, "0"]
            trades = 500 + candle % 9000
            klines.append([open_ms, *prices_and_volume, open_ms + MINUTE_MS - 1, quote, trades, *takers])
        bodies.append(orjson.dumps(klines))
    return bodies


def _table(writer: Any, series: candleshm.Series, count: int, rounds: int, seconds: float) -> Table:
    bodies = _kline_bodies(count)
    expected = [np.array([[float(text) for text in row] for row in json.loads(body)]) for body in bodies]
    ticks = itertools.count(1)

    def parse_with(parse: Callable[[bytes], Any]) -> Callable[[list[int]], list[Any]]:
        return lambda picks: [parse(bodies[pick]) for pick in picks]

    def check(pick: int, rows: Any) -> str:
        return WHOLE if np.array_equal(np.asarray(rows), expected[pick]) else TORN

    def check_published(pick: int, result: Any) -> str:
        return check(pick, series.candles(count)) if result.rows == count and not result.refused else TORN

    contenders = [
        Contender(
            OURS,
            lambda picks: [ingest(writer, 0, 2879, bodies[pick], next(ticks)) for pick in picks],
            each(check_published),
        ),
        Contender(ORJSON, parse_with(_orjson_numpy), each(check)),
        Contender("json + numpy dtype", parse_with(_json_numpy), each(check)),
        Contender(REQUESTS, parse_with(_requests_pandas), each(check)),
    ]
    timings = race(contenders, range(len(bodies)), rounds=rounds, turn_seconds=seconds)
    targets = (
        Target("<= 1/4 of orjson + numpy", OURS, 1 / 4, ORJSON),
        Target("<= 1/20 of requests + pandas", OURS, 1 / 20, REQUESTS),
    )
    return Table("J", f"response bytes to rows, {count} rows", timings, OURS, targets if count == 1000 else ())
