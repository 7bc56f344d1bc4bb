"""Daily files as users know them: CandleServer's download methods, and the command `download`."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import candleshm
from candleshm import history
from candleshm.compat.candle_server import CandleRule, CandleServer
from candleshm.errors import ConfigError, ExchangeUnavailable, MissingExtra
from candleshm.history.csv_tree import CsvStore
from candleshm.sim import Fault, SimulatedExchange
from tests.support.collecting import klines, until
from tests.support.commanding import DEADLINE_SECONDS, complaint, run, started
from tests.support.days import MINUTE, UTC_ZONE, store_in
from tests.support.downloading import day_before, truth_of

DAY = 86_400_000
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
Make = Callable[..., CandleServer]


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    """An exchange whose day, in UTC, began twenty minutes ago."""
    with SimulatedExchange(symbols=4) as running:
        running.skew_ms = 20 * MINUTE - running.now_ms() % DAY
        yield running


@pytest.fixture
def make(exchange: SimulatedExchange, block_name: str, tmp_path: Path) -> Iterator[Make]:
    """Make servers that keep days of UTC in a directory of their own; they are closed at the end."""
    with ExitStack() as close:

        def server(**settings: Any) -> CandleServer:
            rule = {
                "SYMBOLS": SYMBOLS,
                "LENGTH": 30,
                "TIMEZONE": "UTC",
                "CANDLE_DIR": tmp_path / "candles",
                "CACHE_DIR": tmp_path / "cache",
                "LOG_DIRPATH": tmp_path / "log",
                "LOCAL_CANDLE_DAYS": None,
                "DOWNLOAD_TIME": None,
            }
            made = CandleServer(
                "SPOT", type("MyRule", (CandleRule,), rule | settings), name=block_name, base_url=exchange.base_url
            )
            close.callback(made.close_run_candle_map)
            close.callback(made.close_download_daily)
            return made

        yield server


def kept(directory: Path) -> list[tuple[str, str]]:
    """Return (symbol, day) of every whole file."""
    reports = history.verify("SPOT", timezone="UTC", base_dir=directory / "candles")
    assert all(report.is_complete for report in reports)
    return [(report.symbol, str(report.day)) for report in reports]


def log_of(directory: Path) -> list[str]:
    lines = [line for path in sorted((directory / "log").iterdir()) for line in path.read_text().splitlines()]
    return [re.sub(r"^.*? \[(\w+)\] ", r"\1 ", line) for line in lines]


def test_days_are_downloaded_with_the_familiar_lines(exchange: SimulatedExchange, make: Make, tmp_path: Path) -> None:
    days = [day_before(exchange), day_before(exchange, 2)]
    server = make()
    done = server.download_candles_by_date(str(days[1]), days[0].date)
    assert done is not None
    assert [(tally.all, tally.written) for tally in done.tallies] == [(2, 2), (2, 2)]
    assert kept(tmp_path) == [(symbol, str(day)) for symbol in SYMBOLS for day in reversed(days)]
    said = log_of(tmp_path)
    for day in days:
        assert f"INFO COMPLETE DOWNLOAD {day} (ALL:2 SKIP:0 SUC:2 WARN:0 ERROR:0)" in said
        assert f"INFO DOWNLOAD ETHUSDT    1m  {day}" in said
    requested = len(klines(exchange))
    server.download_candles_by_date(start=str(days[1]))
    assert f"INFO COMPLETE DOWNLOAD {days[0]} (ALL:2 SKIP:2 SUC:0 WARN:0 ERROR:0)" in log_of(tmp_path)
    assert len(klines(exchange)) == requested
    server.download_candles_by_date(start=str(days[1]), end=str(days[1]), replace=True)
    assert len(klines(exchange)) == requested + 4


def test_dates_are_shown_as_new_york_shows_them(exchange: SimulatedExchange, make: Make, tmp_path: Path) -> None:
    make(TIMEZONE="America/New_York", SYMBOLS=["BTCUSDT"]).download_candles_by_date("2026-11-01", "2026-11-01")
    assert "INFO COMPLETE DOWNLOAD 01/11/2026 (ALL:1 SKIP:0 SUC:1 WARN:0 ERROR:0)" in log_of(tmp_path)


def test_a_download_beside_a_running_server_spends_from_one_budget(
    exchange: SimulatedExchange, make: Make, tmp_path: Path
) -> None:
    with make(SERVER_WEIGHT=0.05) as server:  # 300 a minute
        server.download_candles_by_date(day_before(exchange, 4).date)
        assert len(kept(tmp_path)) == 8
        assert len(server.candle_map["BTCUSDT"]) >= 29
        assert exchange.stats().pools["SPOT"].peak_60s <= 300


def test_what_cannot_be_requested(exchange: SimulatedExchange, make: Make, tmp_path: Path) -> None:
    server = make(SYMBOLS=["NOPEUSDT"])
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: server.download_candles_by_date("2026-11-01", type="trading"), "type cannot be `trading`"),  # type: ignore[arg-type]
        (lambda: server.download_candles_by_date("2026-11-01", "2026-10-01"), "end cannot be `2026-10-01`"),
        (lambda: server.download_candles_by_date("soon"), "day cannot be `soon`"),
        (lambda: server.download_candles_by_date("2026-11-01"), "SPOT lists none"),
        (lambda: server.download_daily(), "DOWNLOAD_TIME is None"),
    ]
    for call, words in calls:
        with pytest.raises(ConfigError, match=words):
            call()
    exchange.stop()
    quick = type("Quick", (CandleServer,), {"_start_seconds": 0.5})
    rule = type("MyRule", (CandleRule,), {"CANDLE_DIR": tmp_path, "LOG_DIRPATH": tmp_path / "log"})
    with pytest.raises(ExchangeUnavailable):
        quick("SPOT", rule, base_url=exchange.base_url).download_candles_by_date("2026-11-01")


def test_download_daily_writes_from_start_to_yesterday_and_ends_when_told(
    exchange: SimulatedExchange, make: Make, tmp_path: Path
) -> None:
    server = make(DOWNLOAD_TIME="00:10:00")
    server.close_download_daily()  # harmless
    server.download_daily(start=day_before(exchange, 3).date)
    assert until(lambda: (tmp_path / "candles").exists() and len(kept(tmp_path)) == 6)
    server.download_daily()  # harmless
    assert server._daily is not None
    server.close_download_daily()
    server._daily.join(DEADLINE_SECONDS)
    assert not server._daily.is_running
    # A new one finds everything done.
    requested = len(klines(exchange))
    server.download_daily(start=day_before(exchange, 2).date)
    said = f"INFO COMPLETE DOWNLOAD {day_before(exchange, 2)} (ALL:2 SKIP:2 SUC:0 WARN:0 ERROR:0)"
    assert until(lambda: said in log_of(tmp_path))
    assert len(klines(exchange)) == requested


def test_closing_finishes_the_day_in_hand(exchange: SimulatedExchange, make: Make, tmp_path: Path) -> None:
    exchange.faults.add(Fault(kind="latency", delay_ms=300, path="/klines"))
    server = make(DOWNLOAD_TIME="00:10:00")
    server.download_daily(start=day_before(exchange, 20).date)
    assert until(lambda: klines(exchange))
    server.close_download_daily()
    assert server._daily is not None
    server._daily.join(DEADLINE_SECONDS)
    assert kept(tmp_path) == [(symbol, str(day_before(exchange))) for symbol in SYMBOLS]


SCRIPT = """
import sys
from candleshm import CandleRule, CandleServer

class MyRule(CandleRule):
    SYMBOLS, TIMEZONE = ["BTCUSDT", "ETHUSDT"], "UTC"
    CANDLE_DIR, LOG_DIRPATH = sys.argv[3], sys.argv[3] + "/log"

CandleServer("SPOT", MyRule, base_url=sys.argv[1]).download_daily(start=sys.argv[2])
"""


@pytest.mark.parametrize(
    ("days", "left"), [(1, "no further day is stored"), (3, "2 days from {2} to {1} are not stored")]
)
def test_a_script_that_ends_with_download_daily_stores_the_day_in_hand(
    exchange: SimulatedExchange, tmp_path: Path, days: int, left: str
) -> None:
    newest = [str(day_before(exchange, back)) for back in range(1, days + 1)]
    exchange.faults.add(Fault(kind="latency", delay_ms=200, path="/klines"))
    # Newest first: the day in hand is yesterday.
    command = [sys.executable, "-c", SCRIPT, exchange.base_url, newest[-1], str(tmp_path / "candles")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert kept(tmp_path) == [(symbol, newest[0]) for symbol in SYMBOLS], done.stderr
    assert left.format("", *newest[1:]) in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_script_that_waits_for_the_day_in_hand(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(Fault(kind="latency", delay_ms=5000, path="/klines"))
    command = [sys.executable, "-c", SCRIPT, exchange.base_url, str(day_before(exchange)), str(tmp_path / "candles")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    assert until(lambda: klines(exchange))
    process.send_signal(signal.SIGINT)
    process.wait(DEADLINE_SECONDS)
    assert kept(tmp_path) == []


def test_replace_fetches_the_days_of_the_beginning_anew(
    exchange: SimulatedExchange, make: Make, tmp_path: Path
) -> None:
    server = make(DOWNLOAD_TIME="00:10:00")
    server.download_candles_by_date(day_before(exchange, 1).date)
    requested = len(klines(exchange))
    server.download_daily(replace=True)
    assert until(lambda: len(klines(exchange)) == requested + 4)
    assert until(lambda: log_of(tmp_path).count("INFO DOWNLOAD CANDLE BY DATE") == 1)


def test_a_running_server_writes_yesterday_with_the_familiar_line(
    exchange: SimulatedExchange, make: Make, tmp_path: Path
) -> None:
    with make(DOWNLOAD_TIME="00:10:00", LENGTH=1500):
        assert until(lambda: "INFO DOWNLOAD CANDLE BY DATE" in log_of(tmp_path))
    [day] = {day for _, day in kept(tmp_path)}
    store = store_in(tmp_path / "candles", zone=UTC_ZONE)
    assert store.read("BTCUSDT", day_before(exchange)).source == "block"
    assert day == str(day_before(exchange))


def test_without_pyarrow_a_server_runs_and_says_that_it_keeps_no_files(
    exchange: SimulatedExchange, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with make(DOWNLOAD_TIME="00:10:00", LOCAL_CANDLE_DAYS=2) as server:
        assert len(server.candle_map) == 2
        assert any("no daily files are read or written: pyarrow is not installed" in line for line in log_of(tmp_path))
        with pytest.raises(MissingExtra):
            server.download_daily()
    serve = run("serve", "--market", "spot", "--candle-dir", "", "--base-url", exchange.base_url)
    assert serve.returncode == os.EX_CONFIG
    assert "candle_dir cannot be ``" in serve.stderr
    assert not (tmp_path / "candles").exists()


# The command.


def words(exchange: SimulatedExchange, directory: Path, *more: str) -> list[str]:
    base = f"download --market spot --symbols BTCUSDT,ETHUSDT --timezone UTC --base-url {exchange.base_url}"
    return [*base.split(), "--candle-dir", str(directory / "candles"), *more]


def test_the_command_downloads_and_says_so(exchange: SimulatedExchange, tmp_path: Path) -> None:
    day = day_before(exchange, 2)
    result = run(*words(exchange, tmp_path, "--start", str(day)))
    assert result.returncode == 0, result.stderr
    assert len(kept(tmp_path)) == 4
    assert f"downloaded {day}: 2 of 2 symbols new, 0 done before, 0 with remarks, 0 failed\n" in result.stderr
    assert "written\n" not in result.stderr, "not a line for each file"
    total = result.stderr.splitlines()[-1]
    assert "4 of 4 daily files of " in total
    assert ": 4 new, 0 done before, 0 with remarks, 0 failed; " in total
    quiet = run(*words(exchange, tmp_path, "--start", str(day), "--quiet"))
    assert quiet.stderr.splitlines() == [quiet.stderr.rstrip()], "the sum alone"
    assert ": 0 new, 4 done before, 0 with remarks, 0 failed; 0 requests" in quiet.stderr
    exchange.faults.add(Fault(kind="status", status=400, body='{"code":-1121,"msg":"no"}', symbol="ETHUSDT"))
    result = run(*words(exchange, tmp_path, "--start", str(day), "--replace"))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith("2 of 4 daily files not downloaded; the same command retries them")
    assert "Traceback" not in result.stderr


def test_the_command_writes_the_predecessors_tree(exchange: SimulatedExchange, tmp_path: Path) -> None:
    day = day_before(exchange)
    for skipped in (0, 2):
        result = run(*words(exchange, tmp_path, "--start", str(day), "--format", "csv"))
        assert result.returncode == 0, result.stderr
        assert f"{2 - skipped} of 2 symbols new, {skipped} done before, 0 with remarks, 0 failed" in result.stderr
    store = CsvStore(tmp_path / "candles", "SPOT", "1m", UTC_ZONE)
    assert store.path("BTCUSDT", day).exists()
    assert store.read("BTCUSDT", day).rows.tobytes() == truth_of(exchange, day, "BTCUSDT").tobytes()


def test_the_command_says_what_is_wrong(exchange: SimulatedExchange, tmp_path: Path) -> None:
    today = str(day_before(exchange, 0))
    assert "a day that is over" in run(*words(exchange, tmp_path, "--start", today)).stderr
    assert "day cannot be `soon`" in complaint(*words(exchange, tmp_path, "--start", "soon"))
    assert "interval cannot be `1w`" in complaint(*words(exchange, tmp_path, "--start", today, "--interval", "1w"))
    assert run("download").returncode == 2


@pytest.mark.long
def test_a_killed_command_leaves_whole_files_and_the_next_one_goes_on(
    exchange: SimulatedExchange, tmp_path: Path
) -> None:
    exchange.faults.add(Fault(kind="latency", delay_ms=100, path="/klines"))
    command = words(exchange, tmp_path, "--start", str(day_before(exchange, 20)))
    for number in (signal.SIGKILL, signal.SIGINT):
        before = len(kept(tmp_path)) if (tmp_path / "candles").exists() else 0
        with started(*command) as process:
            until(lambda: len(list(tmp_path.rglob("*.parquet"))) > before + 2)  # noqa: B023
            process.send_signal(number)
            process.communicate(timeout=DEADLINE_SECONDS)
            assert process.returncode == (-9 if number == signal.SIGKILL else 0)
        assert before < len(kept(tmp_path)) < 40
    exchange.faults.clear()
    before, requested = len(kept(tmp_path)), len(klines(exchange))
    result = run(*command)
    assert result.returncode == 0, result.stderr
    assert len(kept(tmp_path)) == 40
    assert len(klines(exchange)) - requested <= (40 - before) * 2
    assert list(tmp_path.rglob(".*.tmp")) == []


def test_on_a_terminal_a_bar_shows_how_far_it_is(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(Fault(kind="latency", delay_ms=200, path="/klines"))
    main, terminal = pty.openpty()
    shown = bytearray()

    def listen() -> None:
        while True:
            try:
                shown.extend(os.read(main, 4096))
            except OSError:
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    with started(*words(exchange, tmp_path, "--start", str(day_before(exchange, 12))), stderr=terminal) as process:
        os.close(terminal)
        process.wait(DEADLINE_SECONDS)
        assert process.returncode == 0
    listener.join(DEADLINE_SECONDS)
    os.close(main)
    text = shown.decode()
    assert re.search(r"downloading \[#+ +\]  +\d+%  2 symbols, \d+ of 12 days, weight \d+%, \d+ s left", text)
    assert text.count("downloaded ") == 12


def test_serve_keeps_daily_files_only_where_it_is_told_to(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    serve = ["serve", "--market", "spot", "--symbols", "BTCUSDT,ETHUSDT", "--length", "1500", "--timezone", "UTC"]
    serve += ["--name", block_name, "--base-url", exchange.base_url]
    with started(*serve, cwd=tmp_path) as process:
        until(lambda: block_name in [health.name for health in candleshm.blocks() if health.ready])
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_SECONDS)
        assert list(tmp_path.iterdir()) == []
    with started(*serve, "--candle-dir", "candles", cwd=tmp_path) as process:
        until(lambda: (tmp_path / "candles").exists() and len(kept(tmp_path)) == 4)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 0
