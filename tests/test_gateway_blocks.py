"""`/blocks` of a gateway, and its metrics: the blocks as they are, with states and gaps, as JSON and as Arrow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

import candleshm
from candleshm.columns import NAMES
from candleshm.row_state import RowState
from candleshm.sim import SimulatedExchange
from tests.support.collecting import config_of, until
from tests.support.commanding import first_line, run
from tests.support.gateway_process import Served, gateway, parts_of

ARROW = "application/vnd.apache.arrow.stream"
CHINESE = "币安人生USDT"


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=3, symbols=6, spot_limit=10**6) as exchange:
        yield exchange


@pytest.fixture
def served(exchange: SimulatedExchange, block_name: str) -> Iterator[tuple[Served, candleshm.Feed]]:
    """A gateway over a block of two symbols, and a feed of it."""
    with (
        candleshm.Collector(config_of(exchange, block_name, symbols=["BTCUSDT", "ETHUSDT"])) as collector,
        gateway("--block", block_name, "--base-url", exchange.base_url) as gateway_of_it,
        candleshm.attach(block_name) as feed,
    ):
        assert collector.wait_loaded(60)
        yield gateway_of_it, feed


def test_blocks_are_those_of_ls_as_json(served: tuple[Served, candleshm.Feed]) -> None:
    gateway_of_it, feed = served
    listed = gateway_of_it.get("/blocks")
    assert listed.headers["Content-Type"].startswith("application/json")
    printed = [row for row in json.loads(run("ls", "--json").stdout) if row["name"] == feed.name]
    assert [row["name"] for row in listed.json()] == [feed.name]
    assert listed.json()[0].keys() == printed[0].keys()
    assert listed.json()[0]["symbols"] == 2


def test_candles_come_with_names_states_and_gaps(served: tuple[Served, candleshm.Feed]) -> None:
    gateway_of_it, feed = served
    page = gateway_of_it.get(f"/blocks/{feed.name}/candles?symbol=BTCUSDT&n=50").json()
    assert page["columns"] == [*NAMES, "state"]
    assert (page["block"], page["symbol"], page["market"], page["interval"]) == (feed.name, "BTCUSDT", "SPOT", "1m")
    assert page["gaps"] == []
    assert 0 <= page["age"] < 60
    assert len(page["rows"]) == 50
    assert all(
        isinstance(row[0], int) and isinstance(row[1], float) and isinstance(row[8], int) for row in page["rows"]
    )
    known = {row[0]: row for row in feed["BTCUSDT"].candles(100).tolist()}
    closed = [row for row in page["rows"] if row[-1] in ("closed", "verified")]
    assert len(closed) >= 49
    assert all(row[:-1] == known[row[0]] for row in closed)


def test_arrow_is_the_same_with_times(served: tuple[Served, candleshm.Feed]) -> None:
    ipc = pytest.importorskip("pyarrow.ipc")
    gateway_of_it, feed = served
    target = f"/blocks/{feed.name}/candles?symbol=ETHUSDT&n=20"
    response = gateway_of_it.get(target, headers={"Accept": ARROW})
    assert response.headers["Content-Type"] == ARROW
    table = ipc.open_stream(response.content).read_all()
    assert table.num_rows == 20
    assert str(table.schema.field("open_time").type) == "timestamp[ms, tz=UTC]"
    assert set(table["state"].to_pylist()) <= {state.word for state in RowState}
    rows = {row[0]: row for row in feed["ETHUSDT"].candles(100).tolist()}
    opens = table["open_time"].cast("int64").to_pylist()
    np.testing.assert_array_equal(table["high"].to_pylist()[:-1], [rows[ms][2] for ms in opens[:-1]])
    assert json.loads(table.schema.metadata[b"candleshm"])["gaps"] == []


@pytest.mark.parametrize(
    ("target", "status", "code", "said"),
    [
        ("/blocks/{name}/candles", 400, -1100, "symbol is missing"),
        ("/blocks/{name}/candles?symbol=", 400, -1100, "symbol is missing"),
        ("/blocks/{name}/candles?symbol=NOSUCH", 400, -1121, "no symbol `NOSUCH`"),
        ("/blocks/{name}/candles?symbol=BTCUSDT&n=0", 400, -1100, "1 to 10000"),
        ("/blocks/{name}/candles?symbol=BTCUSDT&n=-1", 400, -1100, "`-1`"),
        ("/blocks/{name}/candles?symbol=BTCUSDT&n=10001", 400, -1100, "`10001`"),
        ("/blocks/{name}/candles?symbol=BTCUSDT&n=1e3", 400, -1100, "`1e3`"),
        ("/blocks/{name}/candles?symbol=BTCUSDT&n=" + "9" * 5000, 400, -1100, "n cannot be `99999"),
        ("/blocks/{name}/candles?symbol=BTCUSDT&n=%C2%B2", 400, -1100, "n cannot be"),
        ("/blocks/{name}/candles?symbol=BTCUSDT&limit=5", 400, -1100, "symbol and n"),
        ("/blocks/{name}/candles?symbol=BTCUSDT&symbol=ETHUSDT", 400, -1100, "each once"),
        ("/blocks/{name}/candles?symbol=%FF", 400, -1100, "UTF-8"),
        ("/blocks/{name}/candles?" + "&".join(f"a{i}=1" for i in range(50)), 400, -1100, "too many parameters"),
        ("/blocks/no-such-block/candles?symbol=BTCUSDT", 404, -1099, "no block `no-such-block`"),
        ("/blocks/..%2F..%2Fetc/candles?symbol=BTCUSDT", 404, -1099, "/blocks"),
        ("/blocks/%00/candles?symbol=BTCUSDT", 404, -1099, "no block"),
        ("/blocks/{name}", 404, -1099, "/blocks"),
        ("/blocks/{name}/candles/", 404, -1099, "/blocks"),
    ],
)
def test_what_cannot_be_answered_says_why(
    served: tuple[Served, candleshm.Feed], target: str, status: int, code: int, said: str
) -> None:
    gateway_of_it, feed = served
    got, _, body = parts_of(
        gateway_of_it.answer(
            f"GET {target.format(name=feed.name)} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        )
    )
    assert (got, json.loads(body)["code"]) == (status, code)
    assert said in json.loads(body)["msg"]


def test_other_blocks_than_the_named_ones_are_not_served(
    exchange: SimulatedExchange, served: tuple[Served, candleshm.Feed], block_name: str
) -> None:
    other = f"{block_name}-other"
    with candleshm.Collector(config_of(exchange, other, symbols=["BTCUSDT"])):
        assert served[0].get(f"/blocks/{other}/candles?symbol=BTCUSDT").status_code == 404
        assert [row["name"] for row in served[0].get("/blocks").json()] == [block_name]


def test_names_that_are_not_ascii_are_percent_encoded(exchange: SimulatedExchange, block_name: str) -> None:
    with (
        candleshm.Collector(config_of(exchange, block_name, market="UM", symbols=[CHINESE])) as collector,
        gateway("--block", block_name, "--base-url", exchange.base_url) as served,
    ):
        assert collector.wait_loaded(60)
        page = served.get(f"/blocks/{block_name}/candles", params={"symbol": CHINESE}).json()
        assert page["symbol"] == CHINESE
        assert page["rows"]
        raw = f"/blocks/{block_name}/candles?symbol={CHINESE}".encode()
        assert parts_of(served.answer(b"GET " + raw + b" HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 400


def test_without_pyarrow_arrow_is_refused_with_what_to_install(exchange: SimulatedExchange, block_name: str) -> None:
    code = (
        "import sys, runpy; sys.modules['pyarrow'] = None; sys.argv = sys.argv[1:];"
        "runpy.run_module('candleshm', run_name='__main__', alter_sys=True)"
    )
    with candleshm.Collector(config_of(exchange, block_name, symbols=["BTCUSDT"])) as collector:
        assert collector.wait_loaded(60)
        command = [sys.executable, "-c", code, "candleshm", "gateway", "--listen", "0", "--block", block_name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                served = Served(first_line(process).removeprefix("gateway: ").strip(), process)
                target = f"/blocks/{block_name}/candles?symbol=BTCUSDT"
                response = served.get(target, headers={"Accept": ARROW})
                assert response.status_code == 406
                assert "pip install" in response.json()["msg"]
                assert served.get(target).status_code == 200
            finally:
                process.kill()
                process.communicate()


def test_metrics_count_what_was_asked(served: tuple[Served, candleshm.Feed]) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    gateway_of_it, _ = served
    until(lambda: gateway_of_it.get("/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=2").status_code == 200)
    for _ in range(3):
        gateway_of_it.get("/api/v3/klines?symbol=ETHUSDT&interval=1m&limit=2")
        gateway_of_it.get("/nothing?x=1")
        gateway_of_it.get("/api/v3/ping", headers={"X-MBX-APIKEY": "x"})
    values: dict[tuple[str, ...], float] = {}
    for family in parser.text_string_to_metric_families(gateway_of_it.get("/metrics").text):
        assert family.documentation
        for sample in family.samples:
            labels = [sample.labels[key] for key in ("path", "status", "source", "le") if key in sample.labels]
            values[sample.name, *labels] = sample.value

    name = "candleshm_gateway"
    assert values[f"{name}_requests_total", "/api/v3/klines", "200", "block"] >= 4
    assert values[f"{name}_requests_total", "other", "404", ""] == 3
    assert values[f"{name}_requests_total", "other", "403", ""] == 3
    assert values[f"{name}_request_seconds_count", "/api/v3/klines"] >= 4
    assert values[f"{name}_request_seconds_bucket", "/api/v3/klines", "+Inf"] >= 4
    assert values[f"{name}_connections",] >= 1
    assert values[f"{name}_requests_in_flight",] == 1
    assert values[f"{name}_websocket_clients",] == values[f"{name}_streams",] == 0


def test_labels_do_not_grow_with_what_clients_ask_for(served: tuple[Served, candleshm.Feed]) -> None:
    gateway_of_it, _ = served
    for number in range(50):
        gateway_of_it.get(f"/nothing/{number}")
        gateway_of_it.get(f"/blocks/{number}/candles?symbol={number}")
        gateway_of_it.get(f"/api/v3/no/{number}")
        gateway_of_it.get(f"/fapi/v1/klines?symbol=X{number}")
    text = gateway_of_it.get("/metrics").text
    paths = set(re.findall(r'path="([^"]*)"', text))
    assert not any(re.search(r"\d{2}", path) for path in paths), paths
    assert len(paths) < 12
