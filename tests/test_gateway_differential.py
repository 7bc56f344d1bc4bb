"""The gateway beside the exchange: random requests at one held instant get the same status, code and body from both.

The exchange is simulated and its clock stands still; real collectors have filled blocks from it, and a real gateway
answers from these. What the gateway refuses with a 503 must be what it cannot know, by a judgement of its own here: a
range that begins before the window, a symbol that no block carries, candles that whole smaller ones do not make.

Bodies are equal byte for byte, but for one thing: a row is kept as doubles, which hold 15 significant digits for sure.
Turnovers (columns 7 and 10) of more digits than that are compared as doubles, within two units in the last place.

`GATEWAY_QUERIES` says how many requests are compared, `GATEWAY_SEED` which.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

import candleshm
from candleshm.exchanges.base import Market
from candleshm.reader.feed import Feed
from candleshm.sim import SimulatedExchange
from candleshm.sim.world.events import Outage
from candleshm.sim.world.grid import FIXED_MS, INTERVALS
from candleshm.sim.world.truth import Truth
from candleshm.sim.world.universe import Instrument, default_universe
from tests.support.commanding import started, until
from tests.support.gateways import gateway_command

QUERIES = int(os.environ.get("GATEWAY_QUERIES", "1000"))
SEED = int(os.environ.get("GATEWAY_SEED", "1"))
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
LENGTH = 1000
DERIVED = ("5m", "1h")
PREFIXES = {"SPOT": "/api/v3", "UM": "/fapi/v1", "CM": "/dapi/v1"}
LIMITS = {"SPOT": 1000, "UM": 1500, "CM": 1500}
CARRIED: dict[Market, list[str]] = {
    "SPOT": ["BTCUSDT", "ETHUSDT", "SUSHIBTC", "YOUNGUSDT", "ENDEDUSDT"],
    "UM": ["BTCUSDT", "XRPUSDT", "币安人生USDT", "XAUUSDT"],
    "CM": ["BTCUSD_PERP", "ETHUSD_PERP"],
}
# Blocks of days, of symbols whose first candle they hold, and of one whose first is older.
DAYS: dict[Market, list[str]] = {"SPOT": ["BTCUSDT", "GROWNUSDT"], "CM": ["BTCUSD_PERP"]}
DAYS_LENGTH = 60
DIGITS_SURE = 15


class HeldClock:
    """The machine's clock until it is held."""

    def __init__(self) -> None:
        self.held_ms: int | None = None

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 if self.held_ms is None else self.held_ms


@dataclass
class World:
    """The exchange, the blocks that were made of it, and the URL of the gateway."""

    exchange: SimulatedExchange
    feeds: dict[tuple[Market, str], Feed]
    url: str
    now_ms: int


def truth_at(now_ms: int) -> Truth:
    """Return a world with holes in some series, a symbol listed three hours ago, and one that ended two hours ago."""
    listed: dict[tuple[Market, str], Instrument] = {
        (item.market, item.symbol): item for item in default_universe(SEED, 5, now_ms)
    }
    small = listed["SPOT", "NEWUSDT"]
    young = replace(
        small, symbol="YOUNGUSDT", base="YOUNG", listed_ms=now_ms // MINUTE * MINUTE - 3 * HOUR - 7 * MINUTE
    )
    ended_ms = now_ms // MINUTE * MINUTE - 2 * HOUR
    ended = replace(small, symbol="ENDEDUSDT", base="ENDED", delisted_ms=ended_ms, status="BREAK")
    spans: list[tuple[Market, str, int, int]] = [
        ("SPOT", "ETHUSDT", now_ms - 5 * HOUR, 22 * MINUTE),
        ("UM", "XRPUSDT", now_ms - 40 * MINUTE, 119_000),
        ("CM", "ETHUSD_PERP", now_ms - 3 * HOUR, 2 * HOUR),
    ]
    # As the outages that were seen: the candle in which the engine stops is cut short.
    outages = [
        Outage(start_ms=start_ms, end_ms=start_ms + length_ms, market=market, symbol=symbol, cut_close=True)
        for market, symbol, start_ms, length_ms in spans
    ]
    grown = replace(small, symbol="GROWNUSDT", base="GROWN", listed_ms=now_ms // HOUR * HOUR - 40 * DAY)
    return Truth(SEED, instruments=[*listed.values(), young, ended, grown], outages=outages)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    clock, stem = HeldClock(), f"test-{os.getpid()}-differential"
    exchange = SimulatedExchange(truth=truth_at(clock()), spot_limit=10**6, futures_limit=10**6, clock_ms=clock)
    with ExitStack() as stack:
        runtime = tmp_path_factory.mktemp("runtime")
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("XDG_RUNTIME_DIR", str(runtime))
        stack.enter_context(exchange)
        path = tmp_path_factory.mktemp("feeds") / "feeds.toml"
        path.write_text(
            f'base_url = "{exchange.base_url}"\nlive = "rest"\nlength = {LENGTH}\nupdate_interval_seconds = 0.5\n'
            f"derive = {json.dumps(DERIVED)}\n"
            + "".join(
                f'[[feed]]\nmarket = "{market}"\nname = "{stem}-{market}"\n'
                f"symbols = {json.dumps(symbols, ensure_ascii=False)}\n"
                for market, symbols in CARRIED.items()
            )
            + "".join(
                f'[[feed]]\nmarket = "{market}"\nname = "{stem}-{market}-days"\ninterval = "1d"\nderive = []\n'
                f"length = {DAYS_LENGTH}\nsymbols = {json.dumps(symbols)}\n"
                for market, symbols in DAYS.items()
            )
        )
        stack.callback(remove_blocks, stem)  # the collectors are killed at the end
        stack.enter_context(started("serve", "--config", str(path), stdout=None, stderr=None))
        feeds: dict[tuple[Market, str], Feed] = {}
        for market in CARRIED:
            days = [("-days", "1d")] if market in DAYS else []
            for name, interval in [("", "1m"), *((f"-{name}", name) for name in DERIVED), *days]:
                feed = stack.enter_context(candleshm.attach(f"{stem}-{market}{name}", timeout=60))
                feed.wait_ready(60)
                feeds[market, interval] = feed
        fetched = [feed for (_, interval), feed in feeds.items() if interval not in DERIVED]
        until(lambda: not any(missing_until_ms(feed, symbol) for feed in fetched for symbol in feed))
        # Not at the end of a minute, where candles close one after the other.
        until(lambda: 5_000 < clock() % MINUTE < 50_000)
        clock.held_ms = now_ms = clock()
        names = [feed.name for feed in feeds.values()]
        url = stack.enter_context(gateway_command(names, exchange.base_url, "--max-age", "3600"))
        made = World(exchange, feeds, url, now_ms)
        # The collectors have to see the held instant.
        until(lambda: all(is_level(made, market, symbol) for market in CARRIED for symbol in CARRIED[market]))
        yield made


def remove_blocks(stem: str) -> None:
    """Remove the blocks whose names begin so."""
    for left in Path("/dev/shm").glob(f"*{stem}*"):
        left.unlink(missing_ok=True)


def missing_until_ms(feed: Feed, symbol: str) -> int:
    """Return the end of what is not fetched yet of a window; 0 when all of it is.

    In a derived block the first candle may never be made: when its first row leaves the window before it was loaded.
    """
    return max((gap.end_ms for gap in feed[symbol].gaps() if gap.kind == "missing"), default=0)


def is_level(world: World, market: Market, symbol: str) -> bool:
    """Return whether a block's newest candles are those of the held instant, and the gateway knows the digits."""
    query = f"{PREFIXES[market]}/klines?symbol={symbol}&interval=1m&limit=3"
    mine, theirs = (requests.get(base + query, timeout=30) for base in (world.url, world.exchange.base_url))
    return mine.content == theirs.content


def test_random_requests_get_the_same_answer(world: World) -> None:
    draw = random.Random(SEED)
    sources: Counter[str] = Counter()
    with requests.Session() as session:
        for number in range(QUERIES):
            market, name, pairs = random_request(draw, world.now_ms)
            target = f"{PREFIXES[market]}/{name}?{urlencode(pairs)}"
            mine, theirs = (session.get(base + target, timeout=30) for base in (world.url, world.exchange.base_url))
            where = f"request {number}: {target}\n{mine.status_code} {mine.text[:300]}\n{theirs.text[:300]}"
            if mine.status_code == 503:
                assert theirs.status_code == 200, where
                assert not is_answerable(world, market, name, dict(pairs), theirs.json()), where
                sources["refused"] += 1
                continue
            assert mine.status_code == theirs.status_code, where
            assert mine.headers["content-type"] == theirs.headers["content-type"], where
            if mine.status_code == 200:
                assert_same_rows(mine.content, theirs.content, where)
                sources[mine.headers["x-candleshm-source"]] += 1
            else:
                assert mine.content == theirs.content, where
                sources[f"code {mine.json()['code']}"] += 1
    sys.stdout.write(f"{QUERIES} requests: {dict(sources.most_common())}\n")
    assert sources["refused"] < QUERIES / 3
    assert sources["block"] > QUERIES / 10
    assert sources["derived"] > QUERIES / 10
    if QUERIES >= 1000:
        codes = {-1023, -1100, -1101, -1102, -1104, -1105, -1120, -1121, -1127, -1130}
        assert {f"code {code}" for code in codes} <= sources.keys()


def assert_same_rows(mine: bytes, theirs: bytes, where: str) -> None:
    """Compare bodies: as bytes, where no turnover has more digits than a double holds for sure."""
    if mine == theirs:
        return
    rows, others = json.loads(mine), json.loads(theirs)
    assert len(rows) == len(others), where
    for row, other in zip(rows, others, strict=True):
        for column in range(12):
            if column in (7, 10) and len(other[column].replace(".", "").lstrip("0")) > DIGITS_SURE:
                value, expected = float(row[column]), float(other[column])
                assert abs(value - expected) <= 2 * math.ulp(expected), f"{where}\n{row}\n{other}"
            else:
                assert row[column] == other[column], f"{where}\n{row}\n{other}"
        assert len(row) == 12, where
    # Nothing but such digits differs: no blanks, no other type.
    assert json.dumps(rows, separators=(",", ":")).encode() == mine, where


def is_answerable(world: World, market: Market, name: str, values: dict[str, Any], rows: list[Any]) -> bool:
    """Return whether the blocks hold all that the exchange's answer `rows` is made of."""
    symbol, interval = values.get("symbol", ""), values["interval"]
    if name == "continuousKlines":
        symbol = values["pair"] if market == "UM" else f"{values['pair']}_PERP"
    if symbol not in CARRIED[market] + DAYS.get(market, []):
        return False
    zone_ms = zone_of(values.get("timeZone", "0"))
    grid = world.exchange.truth.grid(market, symbol, interval, zone_ms)
    limit = min(int(values.get("limit", 500)) or 500, LIMITS[market])
    start_ms, end_ms = (
        None if values.get(key) is None else int(values[key]) // (1000 if int(values[key]) >= 10**14 else 1)
        for key in ("startTime", "endTime")
    )
    counts_back = start_ms is None or market == "CM"
    if market == "CM" and start_ms is None:
        start_ms = (world.now_ms if end_ms is None else end_ms) - 200 * DAY
    if counts_back and len(rows) == limit:
        needed_ms = rows[0][0]
    elif start_ms is None:
        needed_ms = 0
    else:
        needed_ms = grid.floor(start_ms) if start_ms < 2**53 else start_ms
    first_ms = world.exchange.truth.first_ms(market, symbol)
    for own in ("1m", *DERIVED, "1d"):
        if (market, own) not in world.feeds or symbol not in world.feeds[market, own]:
            continue
        start_ms = int(world.feeds[market, own][symbol].candles(holes="nan")[0, candleshm.OPEN_TIME_MS])
        # What a derived block begins with may be the first that could be derived.
        is_whole = own not in DERIVED and start_ms <= first_ms
        if zone_ms % FIXED_MS[own] or not is_made_of(interval, own, zone_ms):
            continue
        start_ms = max(start_ms, missing_until_ms(world.feeds[market, own], symbol))
        begins_ms = grid.floor(start_ms)
        begins_ms = begins_ms if begins_ms == start_ms else grid.shift(begins_ms, 1)
        if is_whole or (needed_ms >= begins_ms and interval != "3d"):
            return True
    return False


def is_made_of(interval: str, own: str, zone_ms: int) -> bool:
    """Return whether whole candles of a block make those of an interval, or are these themselves."""
    if interval == own or interval == "1M":
        return True
    return FIXED_MS[interval] % FIXED_MS[own] == 0 and (interval != "3d" or zone_ms == 0)


def zone_of(text: str) -> int:
    """Return a time zone's distance from UTC in ms."""
    sign = -1 if text.startswith("-") else 1
    hours, _, minutes = text.strip("+-").partition(":")
    return sign * (int(hours) * HOUR + int(minutes or 0) * MINUTE)


def random_request(draw: random.Random, now_ms: int) -> tuple[Market, str, list[tuple[str, str]]]:
    """Return a market, a path and parameters: mostly good ones, and every kind of bad one now and then."""
    market: Market = draw.choice(["SPOT", "UM", "CM"])
    name = "klines"
    if draw.random() < 0.2:
        name = "uiKlines" if market == "SPOT" else "continuousKlines"
    values: dict[str, str | None] = {}
    are_days = market in DAYS and draw.random() < 0.25
    symbol = draw.choice((DAYS if are_days else CARRIED)[market])
    if name == "continuousKlines":
        values["pair"] = symbol.removesuffix("_PERP")
        values["contractType"] = "TRADIFI_PERPETUAL" if symbol == "XAUUSDT" else "PERPETUAL"
        if draw.random() < 0.1:
            values["contractType"] = draw.choice(["PERPETUAL", "TRADIFI_PERPETUAL", "perpetual", "", None])
        if draw.random() < 0.1:
            values["pair"] = draw.choice(["NOPAIR", "", None])
    else:
        values["symbol"] = symbol
        if draw.random() < 0.1:
            other = "BNBUSD_PERP" if market == "CM" else "BNBUSDT"
            odd = ["NOSYMBOL", "", None, symbol.lower(), f"{symbol} ", "BTC/USDT", "€URUSDT", "A" * 21, other]
            values["symbol"] = draw.choice(odd)
    short = ["1m", "1m", "1m", "5m", "5m", "1h", draw.choice(INTERVALS)]
    values["interval"] = draw.choice(["1d", "3d", "1w", "1M"] if are_days else short)
    if draw.random() < 0.05:
        values["interval"] = draw.choice(["7m", "1S", "1min", "", None, "1H", "60"])
    if draw.random() < 0.7:
        values["limit"] = str(draw.choice([1, 2, 3, 10, 99, 100, 499, 500, 999, 1000, 1001, 1499, 1500]))
        if draw.random() < 0.15:
            values["limit"] = draw.choice(["0", "-1", "1501", "abc", "", "1.5", "9" * 20, "9" * 21, "٣", " 1", None])
    # The simulated exchange makes whole days of trades for the candles of each day.
    length_ms = FIXED_MS.get(values["interval"] or "", 30 * DAY if values["interval"] == "1M" else 0)
    if length_ms >= 6 * HOUR:
        values["limit"] = str(draw.randrange(1, max(3, 80 * DAY // length_ms)))
    for key in ("startTime", "endTime"):
        if draw.random() < 0.45:
            moment_ms = random_moment(
                draw, now_ms, [20 * DAY, 70 * DAY] if are_days else [2 * HOUR, 10 * HOUR, 40 * HOUR]
            )
            in_microseconds = market == "SPOT" and draw.random() < 0.2
            values[key] = str(moment_ms * 1000 + draw.randrange(1000) if in_microseconds else moment_ms)
            if draw.random() < 0.05:
                values[key] = draw.choice(["", "abc", "-5", "9" * 20, "9" * 21, "1e12"])
    if market == "SPOT" and draw.random() < 0.2:
        values["timeZone"] = draw.choice(["0", "8", "+8", "-1:00", "05:45", "-12:00", "14:00", "5:30", "00:00"])
        if draw.random() < 0.15:
            values["timeZone"] = draw.choice(["15", "-13", "abc", "8:0", "14:01", "800"])
    pairs = [(key, value) for key, value in values.items() if value is not None]
    if draw.random() < 0.03:
        pairs.append(draw.choice([*pairs, ("limit", "7")]))
    if draw.random() < 0.03:
        pairs.append((draw.choice(["foo", "Symbol", "signal"]), draw.choice(["", "1"])))
    draw.shuffle(pairs)
    return market, name, pairs


def random_moment(draw: random.Random, now_ms: int, reaches_ms: list[int]) -> int:
    """Return a time: mostly within the windows, often on a candle's border or beside it."""
    moment_ms = now_ms - int(draw.random() ** 2 * draw.choice(reaches_ms))
    if draw.random() < 0.1:
        moment_ms = draw.choice(
            [0, 1, now_ms, now_ms + MINUTE, now_ms + 300 * DAY, now_ms - 300 * DAY, 1_600_000_000_000]
        )
    step_ms = draw.choice([1, MINUTE, 5 * MINUTE, HOUR, DAY])
    return max(0, moment_ms // step_ms * step_ms + draw.choice([0, 0, 0, -1, 1]))
