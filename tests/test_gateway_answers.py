"""What a gateway answers of candles, from which source, and what it refuses: stale, missing, too old, delisted."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from candleshm import _core, attach
from candleshm.sim import SimulatedExchange
from tests.support.collecting import collecting, until
from tests.support.downloading import day_before, downloaded
from tests.support.gateways import gateway
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

DAY, HOUR = 86_400_000, 3_600_000
SYMBOL = "BTCUSDT"


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=7, symbols=4, spot_limit=10**6, futures_limit=10**6) as exchange:
        yield exchange


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    """A block of ten places for one symbol, as a collector that has just begun."""
    block = _core.Writer.open(block_name, market="SPOT", interval="1m", length=10, symbols=[SYMBOL])
    yield block
    block.close()


def fill(writer: _core.Writer, first: int, last: int, *, limit: int = 1000) -> None:
    """Merge minutes as a response that was sent in the middle of the last one."""
    minutes = [kline(START_MS + minute * MINUTE_MS, 1 + minute) for minute in range(first, last + 1)]
    ingest(writer, SYMBOL, *minutes, sent_ms=START_MS + last * MINUTE_MS + 30_000, limit=limit)


def get(url: str, path: str, **parameters: object) -> requests.Response:
    """Request something of SPOT."""
    return requests.get(f"{url}/api/v3/{path}", params={"symbol": SYMBOL, **parameters}, timeout=30)  # type: ignore[arg-type]


def opens(response: requests.Response) -> list[int]:
    """Return the minutes that a response holds."""
    assert response.status_code == 200, response.text
    return [(row[0] - START_MS) // MINUTE_MS for row in response.json()]


def refusal(response: requests.Response) -> tuple[int, str]:
    """Return code and text of a refusal."""
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/json;charset=UTF-8"
    return response.json()["code"], response.json()["msg"]


# A block.


def test_answer_begins_where_the_window_does_or_is_refused(writer: _core.Writer, exchange: SimulatedExchange) -> None:
    fill(writer, 0, 20, limit=21)
    with gateway([writer.name], exchange.base_url, max_age_seconds=600.0) as url:
        whole = get(url, "klines", interval="1m", limit=11)
        assert opens(whole) == list(range(10, 21))
        assert whole.headers["x-candleshm-source"] == "block"
        assert whole.headers["x-mbx-used-weight-1m"].isdigit()
        code, text = refusal(get(url, "klines", interval="1m", limit=12))
        assert code == -1001
        assert "begin at 2023-11-14 22:25:00 UTC" in text
        assert refusal(get(url, "klines", interval="1m"))[0] == -1001
        start_ms = START_MS + 10 * MINUTE_MS
        assert refusal(get(url, "klines", interval="1m", limit=1, startTime=start_ms - MINUTE_MS))[0] == -1001
        assert opens(get(url, "klines", interval="1m", limit=2, startTime=start_ms)) == [10, 11]


def test_first_candle_of_a_symbol_is_known(writer: _core.Writer, exchange: SimulatedExchange) -> None:
    fill(writer, 3, 4)  # fewer rows than the limit, twice: there are no older ones
    fill(writer, 3, 5)
    with gateway([writer.name], exchange.base_url, max_age_seconds=600.0) as url:
        for name in ("klines", "uiKlines"):
            assert opens(get(url, name, interval="1m")) == [3, 4, 5]
            assert opens(get(url, name, interval="1m", startTime=0)) == [3, 4, 5]
            assert opens(get(url, name, interval="1m", endTime=START_MS)) == []
        # The first larger candle is made of what there is.
        rows = get(url, "klines", interval="5m", startTime=0).json()
        assert [(row[0], row[8]) for row in rows] == [(START_MS + MINUTE_MS, 4 + 5 + 6)]


def test_missing_row_is_never_left_out(writer: _core.Writer, exchange: SimulatedExchange) -> None:
    fill(writer, 0, 2)
    fill(writer, 0, 3)
    fill(writer, 6, 8, limit=3)
    with gateway([writer.name], exchange.base_url, max_age_seconds=600.0) as url:
        assert opens(get(url, "klines", interval="1m", limit=3)) == [6, 7, 8]
        assert opens(get(url, "klines", interval="1m", endTime=START_MS + 3 * MINUTE_MS)) == [0, 1, 2, 3]
        code, text = refusal(get(url, "klines", interval="1m", limit=4))
        assert code == -1001
        assert "lacks the candle of" in text
        response = get(url, "klines", interval="3m", limit=3)
        assert refusal(response)[0] == -1001
        assert response.headers["retry-after"] == "1"


def test_stale_data_answers_only_what_is_past(writer: _core.Writer, exchange: SimulatedExchange) -> None:
    fill(writer, 0, 20, limit=21)
    with gateway([writer.name], exchange.base_url, max_age_seconds=0.2) as url:
        time.sleep(0.3)
        for parameters in ({}, {"startTime": START_MS + 12 * MINUTE_MS}, {"endTime": START_MS + 20 * MINUTE_MS}):
            code, text = refusal(get(url, "klines", interval="1m", limit=9, **parameters))
            assert code == -1001
            assert "is stale" in text
            assert "2023-11-14 22:34:00 UTC" in text
        assert opens(get(url, "klines", interval="1m", limit=3, endTime=START_MS + 20 * MINUTE_MS - 1)) == [17, 18, 19]
        assert opens(get(url, "klines", interval="1m", limit=3, startTime=START_MS + 12 * MINUTE_MS)) == [12, 13, 14]
        assert refusal(get(url, "klines", interval="3m", limit=2))[0] == -1001
        assert get(url, "klines", interval="3m", limit=2, endTime=START_MS + 17 * MINUTE_MS).status_code == 200


@pytest.mark.parametrize(("market", "prefix"), [("SPOT", "/api/v3"), ("UM", "/fapi/v1")])
def test_end_of_trading_ends_the_candles_of_spot_alone(
    exchange: SimulatedExchange, block_name: str, market: Any, prefix: str
) -> None:
    writer = _core.Writer.open(block_name, market=market, interval="1m", length=10, symbols=[SYMBOL])
    minutes = [kline(START_MS + minute * MINUTE_MS, 1 + minute) for minute in range(6)]
    ingest(writer, SYMBOL, *minutes, sent_ms=START_MS + 6 * MINUTE_MS, limit=6)
    with gateway([writer.name], exchange.base_url, max_age_seconds=0.2) as url:
        path = f"{url}{prefix}/klines?symbol={SYMBOL}&interval=1m&limit=3"
        time.sleep(0.3)
        assert "is stale" in refusal(requests.get(path, timeout=30))[1]
        writer.set_trading(SYMBOL, False)
        writer.heartbeat()
        response = requests.get(path, timeout=30)
        if market == "SPOT":
            assert opens(response) == [3, 4, 5]
        else:
            assert "no longer trades" in refusal(response)[1]
        assert opens(requests.get(f"{path}&endTime={START_MS + 5 * MINUTE_MS}", timeout=30)) == [3, 4, 5]
    writer.close()


def test_stop_of_the_pool_is_told_with_its_end(writer: _core.Writer, exchange: SimulatedExchange) -> None:
    fill(writer, 0, 5)
    until_ms = round(time.time() * 1000) + 90_000
    writer.set_health(ready=True, weight_used=0, weight_limit=6000, banned_until_ms=until_ms)
    with gateway([writer.name], exchange.base_url, max_age_seconds=0.2) as url:
        time.sleep(0.3)
        response = get(url, "klines", interval="1m", limit=2)
        assert refusal(response)[0] == -1003
        assert 60 < int(response.headers["retry-after"]) <= 90


def test_block_that_loads_is_no_empty_answer(writer: _core.Writer, exchange: SimulatedExchange) -> None:
    with gateway([writer.name], exchange.base_url) as url:
        for interval in ("1m", "5m"):
            for parameters in ({}, {"startTime": START_MS}, {"endTime": START_MS}):
                assert refusal(get(url, "klines", interval=interval, **parameters))[0] == -1001


def test_block_that_is_gone_is_told(writer: _core.Writer, exchange: SimulatedExchange) -> None:
    fill(writer, 0, 5)
    with gateway([writer.name], exchange.base_url, max_age_seconds=600.0) as url:
        assert opens(get(url, "klines", interval="1m", limit=2)) == [4, 5]
        writer.close()
        until(lambda: get(url, "klines", interval="1m", limit=2).status_code == 503)
        assert "no block on this machine carries BTCUSDT" in refusal(get(url, "klines", interval="1m"))[1]


# What the exchange refuses, and other paths.


def test_listed_symbol_without_a_block_is_no_invalid_symbol(exchange: SimulatedExchange, block_name: str) -> None:
    with gateway([block_name], exchange.base_url) as url:
        get(url, "exchangeInfo")
        code, text = refusal(get(url, "klines", interval="1m"))
        assert code == -1001
        assert "no block on this machine carries BTCUSDT of SPOT" in text
        response = requests.get(f"{url}/api/v3/klines?symbol=NOSUCH&interval=1m", timeout=30)
        assert (response.status_code, response.json()) == (400, {"code": -1121, "msg": "Invalid symbol."})


@pytest.mark.parametrize("path", ["api/v3/nothing", "fapi/v1/nothing", "dapi/v1/uiKlines", "api/v3/klines/"])
def test_unknown_names_are_those_of_the_exchange(exchange: SimulatedExchange, block_name: str, path: str) -> None:
    with gateway([block_name], exchange.base_url) as url:
        mine, theirs = (requests.get(f"{base}/{path}", timeout=30) for base in (url, exchange.base_url))
        assert (mine.status_code, mine.content) == (theirs.status_code, theirs.content)


def test_methods_are_get_and_head(writer: _core.Writer, exchange: SimulatedExchange) -> None:
    fill(writer, 0, 5)
    with gateway([writer.name], exchange.base_url, max_age_seconds=600.0) as url:
        path = f"{url}/api/v3/klines?symbol={SYMBOL}&interval=1m&limit=2"
        head, whole = requests.head(path, timeout=30), requests.get(path, timeout=30)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
        refused = requests.post(path, timeout=30)
        assert (refused.status_code, refused.json()["code"]) == (405, -1099)


def test_time_unit_of_spot(writer: _core.Writer, exchange: SimulatedExchange) -> None:
    fill(writer, 0, 5)
    with gateway([writer.name], exchange.base_url, max_age_seconds=600.0) as url:
        path = f"{url}/api/v3/klines?symbol={SYMBOL}&interval=1m&limit=2"
        plain = requests.get(path, timeout=30).json()
        fine = requests.get(path, headers={"X-MBX-TIME-UNIT": "MICROSECOND"}, timeout=30).json()
        for row, other in zip(plain, fine, strict=True):
            assert other == [row[0] * 1000, *row[1:6], row[6] * 1000 + 999, *row[7:]]
        assert requests.get(path, headers={"X-MBX-TIME-UNIT": "MILLISECOND"}, timeout=30).json() == plain
        refused = requests.get(path, headers={"X-MBX-TIME-UNIT": "HOUR"}, timeout=30)
        assert (refused.status_code, refused.json()["code"]) == (400, -1194)
        told = requests.get(f"{url}/api/v3/time", headers={"X-MBX-TIME-UNIT": "MICROSECOND"}, timeout=30).json()
        assert len(str(told["serverTime"])) == 16


def test_contracts_with_a_date_are_not_mistaken(exchange: SimulatedExchange, block_name: str) -> None:
    with gateway([block_name], exchange.base_url) as url:
        path = f"{url}/fapi/v1/continuousKlines?pair=BTCUSDT&interval=1m&contractType="
        assert "CURRENT_QUARTER" in refusal(requests.get(f"{path}CURRENT_QUARTER", timeout=30))[1]
        assert requests.get(f"{path}WEEKLY", timeout=30).json()["code"] == -1130


def test_who_asks_for_a_quarter_is_told_which_contract_that_is(exchange: SimulatedExchange, block_name: str) -> None:
    info = requests.get(f"{exchange.base_url}/fapi/v1/exchangeInfo", timeout=30).json()["symbols"]
    contract = next(
        entry["symbol"] for entry in info if (entry["pair"], entry["contractType"]) == ("BTCUSDT", "CURRENT_QUARTER")
    )

    def told(symbol: str) -> str:
        block = _core.Writer.open(block_name, market="UM", interval="1m", length=10, symbols=[symbol])
        with closing(block), gateway([block_name], exchange.base_url) as url:
            path = f"{url}/fapi/v1/continuousKlines?pair=BTCUSDT&interval=1m&contractType=CURRENT_QUARTER"
            return refusal(requests.get(path, timeout=30))[1]

    assert f"a block carries {contract}, which is that now: ask /klines for it" in told(contract)
    continuous = told("BTCUSDT:CURRENT_QUARTER")
    assert "a block carries BTCUSDT:CURRENT_QUARTER, but the gateway answers no CURRENT_QUARTER" in continuous
    assert f"serve {contract} and ask /klines for it" in continuous
    assert f"no block carries contracts of CURRENT_QUARTER: serve {contract} and ask" in told("ETHUSDT")


# The collector's own blocks.


def test_time_is_the_exchanges_as_the_collector_measured_it(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.skew_ms = -37 * HOUR
    try:
        with collecting(exchange, block_name), gateway([block_name], exchange.base_url) as url:
            seen = len([served for served in exchange.served() if "/time" in served.target])
            times = [exchange.now_ms(), get(url, "time").json()["serverTime"], exchange.now_ms()]
            assert times == sorted(times) or abs(times[1] - times[0]) < 1000
            assert len([served for served in exchange.served() if "/time" in served.target]) == seen
    finally:
        exchange.skew_ms = 0


def test_time_without_a_block_is_measured_once(exchange: SimulatedExchange, block_name: str) -> None:
    with gateway([block_name], exchange.base_url) as url:
        seen = len([served for served in exchange.served() if "/dapi/v1/time" in served.target])
        for _ in range(3):
            told_ms = requests.get(f"{url}/dapi/v1/time", timeout=30).json()["serverTime"]
            assert abs(told_ms - exchange.now_ms()) < 5000
        assert len([served for served in exchange.served() if "/dapi/v1/time" in served.target]) == seen + 1


def test_delisted_symbol_stays_readable(block_name: str) -> None:
    with SimulatedExchange(seed=7, symbols=4, spot_limit=10**6, futures_limit=10**6) as exchange:
        exchange.truth.delist("SPOT", SYMBOL, exchange.now_ms() // MINUTE_MS * MINUTE_MS - 5 * MINUTE_MS)
        exchange.truth.delist("UM", SYMBOL, exchange.now_ms() // MINUTE_MS * MINUTE_MS - 5 * MINUTE_MS)
        with (
            collecting(exchange, f"{block_name}-spot"),
            collecting(exchange, f"{block_name}-um", market="UM"),
            gateway([f"{block_name}-spot", f"{block_name}-um"], exchange.base_url, max_age_seconds=0.001) as url,
        ):
            # On SPOT there are no more candles, and so the answer is whole.
            mine, theirs = (get(base, "klines", interval="1m", limit=20) for base in (url, exchange.base_url))
            assert (mine.status_code, mine.content) == (200, theirs.content)
            # Futures go on with flat candles, which nobody requests.
            path = f"{url}/fapi/v1/klines?symbol={SYMBOL}&interval=1m&limit=20"
            code, text = refusal(requests.get(path, timeout=30))
            assert code == -1001
            assert "no longer trades" in text
            end_ms = exchange.now_ms() - 10 * MINUTE_MS
            mine, theirs = (
                requests.get(f"{base}/fapi/v1/klines?symbol={SYMBOL}&interval=1m&limit=20&endTime={end_ms}", timeout=30)
                for base in (url, exchange.base_url)
            )
            assert (mine.status_code, mine.content) == (200, theirs.content)


def test_symbol_that_ended_before_the_machine_started_is_answered_whole(
    writer: _core.Writer, exchange: SimulatedExchange
) -> None:
    minutes = [kline(START_MS + minute * MINUTE_MS, 1 + minute) for minute in range(3)]
    ingest(writer, SYMBOL, *minutes, sent_ms=START_MS + 100 * 365 * DAY)
    with gateway([writer.name], exchange.base_url, max_age_seconds=600.0) as url:
        assert attach(writer.name)[SYMBOL].age == math.inf
        code, text = refusal(get(url, "klines", interval="1m", limit=3))
        assert code == -1001
        assert "is stale: not confirmed since this machine started" in text
        writer.set_trading(SYMBOL, False)
        assert opens(get(url, "klines", interval="1m", limit=3)) == [0, 1, 2]


# Daily files.


@pytest.fixture(scope="module")
def candle_dir(exchange: SimulatedExchange, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Daily files of three days, those of 1m and of 4h."""
    directory = tmp_path_factory.mktemp("candles")
    days = str(day_before(exchange, 3)), str(day_before(exchange))
    for interval in ("1m", "4h"):
        done = downloaded(exchange, directory, *days, symbols=[SYMBOL], interval=interval)
        assert done.failed == 0
    return directory


PAST: list[dict[str, Any]] = [
    {"interval": "1m", "limit": 1000, "startTime": -2 * DAY},
    {"interval": "1m", "limit": 1000, "startTime": -DAY - HOUR, "endTime": DAY},
    {"interval": "1m", "limit": 1000, "endTime": -DAY - 1},
    {"interval": "5m", "limit": 700},
    {"interval": "5m", "limit": 500, "startTime": -DAY - 7 * HOUR},
    {"interval": "1h", "limit": 40},
    {"interval": "1h", "startTime": -2 * DAY + 1},
    {"interval": "4h", "limit": 14},
    {"interval": "8h", "startTime": -3 * DAY},
    {"interval": "1d", "limit": 3},
    {"interval": "1d", "limit": 2, "timeZone": "5:30"},
    {"interval": "4h", "limit": 12, "timeZone": "-1:00"},
]


def test_files_and_block_join_without_a_seam(exchange: SimulatedExchange, block_name: str, candle_dir: Path) -> None:
    with (
        collecting(exchange, block_name, symbols=[SYMBOL], length=1500),
        gateway([block_name], exchange.base_url, max_age_seconds=60.0, candle_dir=str(candle_dir)) as url,
    ):
        midnight_ms = exchange.now_ms() // DAY * DAY
        for case in PAST:
            moments = {key: midnight_ms + case[key] for key in ("startTime", "endTime") if key in case}
            until(partial(same_final_rows, url, exchange.base_url, case | moments))
        # Beyond the oldest file nothing is known.
        code, text = refusal(get(url, "klines", interval="1d", limit=5))
        assert code == -1001
        assert "--candle-dir or --pass-through" in text
        assert refusal(get(url, "klines", interval="1h", startTime=midnight_ms - 5 * DAY))[0] == -1001


def same_final_rows(url: str, other_url: str, query: dict[str, Any]) -> bool:
    """Compare all rows but the newest, whose candle changes from request to request; say whether files were needed."""
    mine, theirs = (get(base, "klines", **query) for base in (url, other_url))
    assert mine.status_code == 200, (query, mine.text)
    assert mine.headers["x-candleshm-source"] == "files"
    rows, others = ([drop_turnover(row) for row in response.json()[:-1]] for response in (mine, theirs))
    # A candle may close between the two requests.
    return rows == others


def drop_turnover(row: list[Any]) -> list[Any]:
    """Return a row without its turnovers, which in large candles have more digits than a double."""
    return row[:7] + row[8:10]


def test_files_alone_answer_what_is_past(exchange: SimulatedExchange, block_name: str, candle_dir: Path) -> None:
    with gateway([block_name], exchange.base_url, candle_dir=str(candle_dir)) as url:
        start_ms = exchange.now_ms() // DAY * DAY - 2 * DAY
        query = {"interval": "15m", "limit": 90, "startTime": start_ms}
        mine, theirs = (get(base, "klines", **query) for base in (url, exchange.base_url))
        assert (mine.status_code, mine.content) == (200, theirs.content)
        assert refusal(get(url, "klines", interval="1m", limit=5))[0] == -1001
