"""`serve` beyond one feed: several in a process, metrics for all of them, and an end with whoever started it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import requests

import candleshm
from candleshm.commands.settings import collector_configs, configuration
from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError
from candleshm.sim import Fault, SimulatedExchange
from tests.support.commanding import (
    DEADLINE_SECONDS,
    complaint,
    first_line,
    first_lines,
    lines_until,
    run,
    serving,
    started,
    until,
)

SHM = Path("/dev/shm")


@pytest.fixture(scope="module")
def shared_exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=7, symbols=4, spot_limit=10**6, futures_limit=10**6) as exchange:
        yield exchange


@pytest.fixture
def exchange(shared_exchange: SimulatedExchange) -> Iterator[SimulatedExchange]:
    yield shared_exchange
    shared_exchange.faults.clear()


@pytest.fixture
def two_feeds(exchange: SimulatedExchange, block_name: str, tmp_path: Path) -> Path:
    path = tmp_path / "feeds.toml"
    path.write_text(
        f'base_url = "{exchange.base_url}"\nsymbols = ["BTCUSDT"]\nlength = 50\n'
        f'[[feed]]\nmarket = "spot"\nname = "{block_name}-spot"\nderive = ["5m"]\n'
        f'[[feed]]\nmarket = "um"\ninterval = "5m"\nlength = 20\nname = "{block_name}-um"\n'
    )
    return path


# Several feeds.


def test_what_stands_at_the_top_holds_for_every_feed_and_flags_for_all(tmp_path: Path) -> None:
    path = tmp_path / "feeds.toml"
    path.write_text('length = 50\nworkers = 2\n[[feed]]\nmarket = "spot"\n[[feed]]\nmarket = "um"\nLENGTH = 20\n')

    assert collector_configs({"workers": 3}, path) == [
        CollectorConfig(market="SPOT", length=50, workers=3),
        CollectorConfig(market="UM", length=20, workers=3),
    ]
    with pytest.raises(ConfigError, match=r"--name names one block, but .* has 2 feeds"):
        collector_configs({"name": "x"}, path)


def test_one_feed_of_a_file_can_be_named_by_the_flag(tmp_path: Path) -> None:
    path = tmp_path / "feed.toml"
    path.write_text('[[feed]]\nmarket = "spot"\n')

    assert collector_configs({"name": "x"}, path) == [CollectorConfig(market="SPOT", name="x")]


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "feeds.toml"
    path.write_text('length = 50\nworkers = 2\nmetrics = 9100\n[[feed]]\nmarket = "spot"\n[[feed]]\nmarket = "um"\n')
    for name, value in {
        "LENGTH": "60",
        "WORKERS": "5",
        "SYMBOLS": "BTCUSDT,ETHUSDT",
        "TRUST_ENV": "yes",
        "METRICS": "9200",
        "TIMEZONE": "",
        "PORT": "tcp://10.0.0.1:8700",  # as Kubernetes sets it for a service of that name
    }.items():
        monkeypatch.setenv(f"CANDLESHM_{name}", value)
    expected = [
        CollectorConfig(market=market, length=60, workers=3, symbols=["BTCUSDT", "ETHUSDT"], trust_env=True)
        for market in ("SPOT", "UM")
    ]
    given = configuration({"workers": 3}, path)
    assert (given.feeds, given.process) == (expected, {"metrics": ("127.0.0.1", 9200)})
    assert configuration({"workers": 3, "metrics": ("h", 1)}, path).process == {"metrics": ("h", 1)}
    assert collector_configs({"market": "spot", "workers": 3}, None) == expected[:1]


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("CANDLESHM_SYMBOL", "BTCUSDT", "did you mean CANDLESHM_SYMBOLS"),
        ("CANDLESHM_LENGTH", "many", "CANDLESHM_LENGTH cannot be `many`"),
        ("CANDLESHM_LENGTH", "1", "length cannot be `1`"),
        ("CANDLESHM_TRUST_ENV", "perhaps", "allowed: 1 true yes 0 false no"),
        ("CANDLESHM_METRICS", "high", "must be a port"),
    ],
)
def test_a_variable_that_cannot_be_meant_is_named(variable: str, text: str, words: str) -> None:
    environment = {**os.environ, variable: text}
    assert words in complaint("serve", "--market", "spot", "--name", "x", env=environment)


def test_a_process_serves_every_feed_of_its_file(two_feeds: Path, block_name: str) -> None:
    names = [f"{block_name}-spot", f"{block_name}-um"]
    with started("serve", "--config", str(two_feeds)) as process:
        served = [names[0], f"{names[0]}-5m", names[1]]
        assert first_lines(process, 3) == [f'serving {name}: candleshm.attach("{name}")\n' for name in served]
        feeds = [candleshm.attach(name) for name in names]
        assert [(feed.market, feed.interval, feed.length) for feed in feeds] == [("SPOT", "1m", 50), ("UM", "5m", 20)]
        assert {feed.health.pid for feed in feeds} == {process.pid}
        until(lambda: all(feed.health.ready for feed in feeds))
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 0
    assert "Traceback" not in logged
    assert not any((SHM / name).exists() for name in names)


def test_a_feed_that_cannot_be_served_ends_all_with_one_line(two_feeds: Path, block_name: str) -> None:
    two_feeds.write_text(two_feeds.read_text() + 'symbols = ["NOSUCHUSDT"]\n')

    assert "`NOSUCHUSDT`" in complaint("serve", "--config", str(two_feeds))
    assert not list(SHM.glob(f"{block_name}*"))


def test_a_signal_ends_a_start_of_two_feeds_that_is_stuck(
    exchange: SimulatedExchange, two_feeds: Path, block_name: str
) -> None:
    exchange.faults.add(Fault(kind="hang"))
    asked = len(exchange.served())
    with started("serve", "--config", str(two_feeds)) as process:
        until(lambda: len(exchange.served()) > asked)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=DEADLINE_SECONDS)

    assert (process.returncode, stdout, stderr) == (0, "", "")
    assert not list(SHM.glob(f"{block_name}*"))


# Metrics.


def test_metrics_tell_what_readers_see_and_what_the_collectors_count(
    exchange: SimulatedExchange, two_feeds: Path, block_name: str
) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    exchange.faults.add(Fault(kind="status", status=500, path="/fapi/v1/klines", count=2))
    with started("serve", "--config", str(two_feeds), "--metrics", "0") as process:
        matched = re.fullmatch(r"metrics: (http://127\.0\.0\.1:\d+/metrics)\n", first_lines(process, 4)[-1])
        assert matched is not None
        feeds = {name: candleshm.attach(name) for name in (f"{block_name}-spot", f"{block_name}-um")}
        until(lambda: all(feed.health.ready for feed in feeds.values()))
        values: dict[tuple[str, ...], float] = {}

        def scrape() -> bool:
            for family in parser.text_string_to_metric_families(requests.get(matched[1], timeout=10).text):
                assert family.documentation
                for sample in family.samples:
                    values[sample.name, *sample.labels.values()] = sample.value
            return all(values["candleshm_loaded_symbols", name] == 1 for name in feeds)

        until(scrape)

        assert all(key[0].startswith(("candleshm_", "process_")) for key in values)
        assert values["candleshm_build_info", version("candleshm")] == 1
        assert values["process_resident_memory_bytes",] > 0
        derived = f"{block_name}-spot-5m"
        assert values["candleshm_ready", derived] == values["candleshm_symbols", derived] == 1
        assert values["candleshm_block_info", derived, "5m", "50", "SPOT", "trade"] == 1
        assert ("candleshm_series_age_seconds", derived, "BTCUSDT") not in values
        for name, feed in feeds.items():
            assert values["candleshm_symbols", name] == values["candleshm_ready", name] == 1
            assert 0 <= values["candleshm_series_age_seconds", name, "BTCUSDT"] < DEADLINE_SECONDS
            assert values["candleshm_series_newest_state", name, "BTCUSDT"] in (1, 2)
            assert values["candleshm_series_missing_rows", name, "BTCUSDT"] == values["candleshm_missing_rows", name]
            assert values["candleshm_series_corrections_total", name, "BTCUSDT"] == feed["BTCUSDT"].revision
            assert 0 <= values["candleshm_heartbeat_age_seconds", name] < DEADLINE_SECONDS
            assert 0 <= values["candleshm_universe_bar_age_seconds", name] < 3600
            assert values["candleshm_weight_limit", name] == 10**6
            assert 0 < values["candleshm_weight_used", name] < 10**6
            assert values["candleshm_requests_total", name] > 0
            assert values["candleshm_rows_total", name] >= feed.length
            assert values["candleshm_ingests_total", name] >= 1
            assert 0 < values["candleshm_ingest_seconds_total", name] < values["candleshm_ingests_total", name]
            assert values["candleshm_banned_until_timestamp_seconds", name] == 0
            assert abs(values["candleshm_local_clock_offset_seconds", name]) < 60
            for kind in ("given_up", "silent", "standing"):
                assert values[f"candleshm_{kind}_symbols", name] == 0
            series = [key for key in values if key[1:] == (name, "BTCUSDT")]
            assert len(series) == 6
        assert values["candleshm_request_errors_total", f"{block_name}-um", "ExchangeUnavailable"] == 2
        for kind in ("BadResponse", "Banned", "ExchangeError", "ExchangeUnavailable", "RateLimited"):
            assert values["candleshm_request_errors_total", f"{block_name}-spot", kind] == 0


def test_metrics_without_symbols_are_those_of_the_blocks(
    exchange: SimulatedExchange, two_feeds: Path, block_name: str
) -> None:
    two_feeds.write_text(f"metrics = 0\nmetrics_per_symbol = false\n{two_feeds.read_text()}")
    with started("serve", "--config", str(two_feeds)) as process:
        page = requests.get(first_lines(process, 4)[-1].split()[1], timeout=10).text
    assert f'candleshm_ready{{block="{block_name}-um"}}' in page
    assert "candleshm_series" not in page


def test_exit_codes_tell_a_typo_from_an_outage(exchange: SimulatedExchange, block_name: str, tmp_path: Path) -> None:
    def code(*words: str) -> int:
        return run(*words).returncode

    wrong = tmp_path / "wrong.toml"
    wrong.write_text('market = "spot"\nlenght = 5\n')
    assert code("serve", "--config", str(wrong)) == os.EX_CONFIG
    assert code("serve", "--market", "spot", "--interval", "2m") == os.EX_CONFIG
    assert code("serve", "--market", "spot", "--base-url", "http://127.0.0.1:1", "--start-seconds", "0.1") == (
        os.EX_TEMPFAIL
    )
    assert code(*serving(exchange, block_name, "--metrics", exchange.base_url.removeprefix("http://"))) == (
        os.EX_TEMPFAIL
    )
    with started(*serving(exchange, block_name)) as process:
        first_lines(process, 1)
        assert code(*serving(exchange, block_name)) == os.EX_TEMPFAIL
    assert code("read", f"{block_name}-nobody", "BTCUSDT") == 1
    assert code("serve", "--no-such-flag") == 2


def test_a_start_that_waits_says_for_what(block_name: str) -> None:
    words = ("serve", "--market", "spot", "--name", block_name, "--base-url", "http://127.0.0.1:1")
    quick, patient = run(*words, "--start-seconds", "0.1"), run(*words, "--start-seconds", "6")
    assert quick.stderr.count("\n") == 1, "its one line"
    assert patient.stderr.count("\n") > 1
    assert "no response from 127.0.0.1:1: " in patient.stderr.splitlines()[0]
    assert "next attempt in" in patient.stderr.splitlines()[0]


def test_a_start_of_several_feeds_that_fails_names_its_feed(two_feeds: Path, block_name: str) -> None:
    two_feeds.write_text(two_feeds.read_text().replace('interval = "5m"', 'interval = "5m"\nsymbol_contains = "XYZ"'))

    said = complaint("serve", "--config", str(two_feeds))
    assert said.startswith(f"candleshm: feed {block_name}-um: symbols: UM lists none of `BTCUSDT`")


def test_a_block_in_use_can_be_stopped_or_named_otherwise_but_removed_by_nobody_else(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with started(*serving(exchange, block_name)) as process:
        first_line(process)
        by = f"block `{block_name}`: a collector (process {process.pid}) already serves it; stop that one"
        assert f"{by}, which removes it\n" in complaint("rm", block_name)
        assert f"{by} or choose another name\n" in complaint(*serving(exchange, block_name))


def test_a_feed_with_streams_says_so_at_its_start(exchange: SimulatedExchange, block_name: str) -> None:
    with started(*serving(exchange, block_name, "--ws-url", exchange.ws_url)) as process:
        logged = lines_until(process, "and if one stalls")
        assert f"{block_name}: candles by streams of {exchange.ws_url}/stream (live is auto); by REST" in logged


def test_a_clock_that_is_off_is_said_once_and_measured(block_name: str) -> None:
    with (
        SimulatedExchange(seed=7, symbols=4, skew_ms=-7_200_000) as exchange,
        started(*serving(exchange, block_name, "--metrics", "0")) as process,
    ):
        url = first_lines(process, 2)[-1].split()[1]
        logged = lines_until(process, "not candles")
        assert re.search(r"this machine's clock is 7[12]\d\d\.\d s ahead of the exchange's", logged)
        page = requests.get(url, timeout=10).text
    (offset,) = re.findall(r"^candleshm_local_clock_offset_seconds{.*} (.*)$", page, re.MULTILINE)
    assert abs(float(offset) - 7200) < 60


def test_a_feed_without_streams_says_why(exchange: SimulatedExchange, block_name: str) -> None:
    with started(*serving(exchange, block_name), stderr=subprocess.PIPE) as process:
        first_lines(process, 1)
        stderr = process.stderr
        assert stderr is not None
        until(lambda: "no streams: base_url replaces the exchange's host" in stderr.readline())


def test_an_address_that_is_taken_is_named(exchange: SimulatedExchange, block_name: str) -> None:
    pytest.importorskip("prometheus_client")
    taken = exchange.base_url.removeprefix("http://")

    said = complaint(*serving(exchange, block_name, "--metrics", taken))

    assert said == f"candleshm: {taken}: Address already in use\n"
    assert not (SHM / block_name).exists()


def test_metrics_without_their_extra_name_it(exchange: SimulatedExchange, block_name: str) -> None:
    script = (
        "import sys; sys.modules['prometheus_client'] = None; sys.modules['prometheus_client.core'] = None\n"
        "from candleshm.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = serving(exchange, block_name, "--metrics", "0")
    result = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )

    assert (result.returncode, result.stdout) == (os.EX_CONFIG, "")
    assert result.stderr.startswith("candleshm: prometheus_client")
    assert "`pip install '.[metrics]'`" in result.stderr
    assert not (SHM / block_name).exists()


# An end with whoever started it.


def test_serve_ends_with_its_stdin_when_told_so(exchange: SimulatedExchange, block_name: str) -> None:
    read_end, write_end = os.pipe()
    with started(*serving(exchange, block_name, "--until-stdin-closes"), stdin=read_end) as process:
        os.close(read_end)
        first_line(process)
        assert process.poll() is None
        os.close(write_end)
        assert process.wait(DEADLINE_SECONDS) == 0
    assert not (SHM / block_name).exists()


def test_serve_does_not_mind_an_empty_stdin_otherwise(exchange: SimulatedExchange, block_name: str) -> None:
    with started(*serving(exchange, block_name), stdin=subprocess.DEVNULL) as process:
        first_line(process)
        until(lambda: candleshm.attach(block_name).health.ready)
        assert process.poll() is None
