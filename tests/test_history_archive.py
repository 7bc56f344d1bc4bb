"""Days from the archive of the simulated exchange: what it has, what it lacks, what is wrong with it, and who wins."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import pytest

from candleshm import CandleRule, CandleServer, history
from candleshm._core import Zone
from candleshm.collector.collector import Collector
from candleshm.errors import ConfigError, ExchangeUnavailable
from candleshm.exchanges.base import Market
from candleshm.history.archive import Archive, Mirror, checked_archive_url
from candleshm.history.archive_file import ArchiveFile
from candleshm.history.block import with_states
from candleshm.history.candles import DayCandles
from candleshm.history.day import Day
from candleshm.history.store import ParquetStore
from candleshm.history.tally import DownloadProgress
from candleshm.network.backoff import Backoff
from candleshm.rest.transport import HttpTransport
from candleshm.row_state import RowState
from candleshm.sim import ArchiveFlaw, Fault, Outage, SimulatedExchange, refused
from candleshm.system.clock import SystemClock
from tests.support.collecting import SYMBOLS, collecting, config_of, klines, until
from tests.support.commanding import complaint, run
from tests.support.days import MINUTE, UTC_ZONE, candles_of, day_of, forget, store_in, written
from tests.support.downloading import counts, downloaded, truth_of
from tests.test_sim_archive import utc

NOW = utc("2026-03-11T12:34:56.789")
DAY_MS = 86_400_000


class RunningClock:
    """A clock that runs from a set moment on, so that tests know which files are there."""

    def __init__(self) -> None:
        self._started_seconds = time.monotonic()

    def __call__(self) -> int:
        return NOW + round((time.monotonic() - self._started_seconds) * 1000)


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4, clock_ms=RunningClock()) as running:
        yield running


def archive_of(exchange: SimulatedExchange, **options: Any) -> Archive:
    """Return a way to the archive that does not wait long before it asks again."""
    clock = SystemClock()
    settings: dict[str, Any] = {"base_url": exchange.base_url, "backoff": Backoff(0.01, limit_seconds=0.02)}
    return Archive(HttpTransport(clock), clock, **(settings | options))


def from_archive(
    exchange: SimulatedExchange, directory: Path, start: str, end: str | None = None, **changes: Any
) -> DownloadProgress:
    """Download days, one of BTCUSDT unless told otherwise, from the archive and the exchange."""
    options = {"archive": changes.pop("archive", None) or archive_of(exchange), **changes.pop("options", {})}
    return downloaded(exchange, directory, start, end or start, options=options, **({"symbols": ["BTCUSDT"]} | changes))


def verified(exchange: SimulatedExchange, directory: Path, start: str, end: str | None = None) -> DownloadProgress:
    return from_archive(exchange, directory, start, end, options={"verify": True})


def files(exchange: SimulatedExchange) -> list[str]:
    """Return the names of the files that were asked for, in that order."""
    return [served.target.rpartition("/")[2] for served in exchange.served() if served.target.startswith("/data/")]


def stored(directory: Path, day: str, symbol: str = "BTCUSDT", market: str = "SPOT") -> DayCandles:
    return store_in(directory, market=market, zone=UTC_ZONE).read(symbol, day_of(day, UTC_ZONE))


def said(caplog: pytest.LogCaptureFixture, *parts: str) -> bool:
    return any(all(part in record.getMessage() for part in parts) for record in caplog.records)


@pytest.mark.parametrize("market", ["SPOT", "UM", "CM"])
def test_days_from_the_archive_are_those_of_the_exchange_and_cost_no_weight(
    exchange: SimulatedExchange, tmp_path: Path, market: Market
) -> None:
    symbols = SYMBOLS[market][:2]
    done = from_archive(exchange, tmp_path, "2026-03-08", "2026-03-10", market=market, symbols=symbols)
    assert counts(done) == [(f"2026-03-{day:02}", 2, 0, 2, 0, 0) for day in (10, 9, 8)]
    assert done.rows == 2 * 3 * 1440
    assert klines(exchange) == []
    for symbol in symbols:
        rows = history.load(market, symbol, "2026-03-08", "2026-03-10", timezone="UTC", base_dir=tmp_path)
        truth = exchange.truth.floats(market, symbol, "1m", utc("2026-03-08"), utc("2026-03-11"))
        assert rows.tobytes() == truth.tobytes()
    day = stored(tmp_path, "2026-03-09", symbols[0], market)
    assert (day.source, day.verified, day.is_complete) == ("archive", (), True)


def test_the_same_download_by_either_source_writes_the_same_values(exchange: SimulatedExchange, tmp_path: Path) -> None:
    from_archive(exchange, tmp_path / "a", "2026-03-09")
    downloaded(exchange, tmp_path / "b", "2026-03-09", "2026-03-09", symbols=["BTCUSDT"])
    one, other = stored(tmp_path / "a", "2026-03-09"), stored(tmp_path / "b", "2026-03-09")
    assert (one.source, other.source) == ("archive", "exchange")
    assert one.rows.tobytes() == other.rows.tobytes()


def test_a_day_of_a_zone_needs_two_days_of_the_archive(exchange: SimulatedExchange, tmp_path: Path) -> None:
    # The clocks of New York change on the eighth; the tenth reaches into today, of which the archive has no file.
    done = from_archive(exchange, tmp_path, "2026-03-07", "2026-03-10", timezone="America/New_York")
    assert [tally.written for tally in done.tallies] == [1, 1, 1, 1]
    zips = [name for name in files(exchange) if name.endswith(".zip")]
    assert zips == [f"BTCUSDT-1m-2026-03-{day:02}.zip" for day in (10, 9, 8, 7)]
    assert len(klines(exchange)) == 2
    zone = Zone("America/New_York")
    rows = history.load("SPOT", "BTCUSDT", "2026-03-07", "2026-03-10", timezone=zone.name, base_dir=tmp_path)
    first, last = Day.parse("2026-03-07", zone), Day.parse("2026-03-10", zone)
    assert rows.tobytes() == exchange.truth.floats("SPOT", "BTCUSDT", "1m", first.start_ms, last.end_ms).tobytes()
    assert len(rows) == 4 * 1440 - 60
    # Of the newest day both know the first twenty hours, and agree.
    newest = store_in(tmp_path, zone=zone).read("BTCUSDT", last)
    assert newest.source == "exchange"
    assert newest.verified == ((last.start_ms, utc("2026-03-11")),)


def test_whole_months_are_one_file(exchange: SimulatedExchange, tmp_path: Path) -> None:
    done = from_archive(exchange, tmp_path, "2026-01-30", "2026-03-02", interval="1h")
    assert [tally.written for tally in done.tallies] == [1] * 32
    zips = [name for name in files(exchange) if name.endswith(".zip")]
    days = [f"BTCUSDT-1h-2026-{day}.zip" for day in ("03-02", "03-01", "01-31", "01-30")]
    assert zips == [*days[:2], "BTCUSDT-1h-2026-02.zip", *days[2:]]
    assert klines(exchange) == []
    rows = history.load("SPOT", "BTCUSDT", "2026-01-30", "2026-03-02", interval="1h", timezone="UTC", base_dir=tmp_path)
    truth = exchange.truth.floats("SPOT", "BTCUSDT", "1h", utc("2026-01-30"), utc("2026-03-03"))
    assert rows.tobytes() == truth.tobytes()


def test_months_that_are_not_there_or_mostly_stored_come_as_days(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(Fault(kind="status", status=404, path="BTCUSDT-1h-2026-02.zip"))
    done = from_archive(exchange, tmp_path, "2026-02-01", "2026-02-28", interval="1h")
    assert [tally.written for tally in done.tallies] == [1] * 28
    assert len(files(exchange)) == 1 + 28 * 2
    assert klines(exchange) == []
    exchange.faults.clear()
    forget(ParquetStore(tmp_path, "SPOT", "1h", UTC_ZONE), "BTCUSDT", "2026-02-03", "2026-02-17")
    done = from_archive(exchange, tmp_path, "2026-02-01", "2026-02-28", interval="1h")
    assert sum(tally.written for tally in done.tallies) == 2
    assert sum(tally.skipped for tally in done.tallies) == 26
    assert files(exchange)[1 + 28 * 2 :: 2] == ["BTCUSDT-1h-2026-02-17.zip", "BTCUSDT-1h-2026-02-03.zip"]


def test_months_that_were_not_requested_whole_come_as_days(exchange: SimulatedExchange, tmp_path: Path) -> None:
    done = from_archive(exchange, tmp_path, "2026-02-02", "2026-02-28", interval="1h")
    assert [tally.written for tally in done.tallies] == [1] * 27
    assert files(exchange)[::2] == [f"BTCUSDT-1h-2026-02-{day:02}.zip" for day in range(28, 1, -1)]


def test_days_that_a_month_lacks_come_from_their_own_files(exchange: SimulatedExchange, tmp_path: Path) -> None:
    start = utc("2026-02-10")
    exchange.archive.add(ArchiveFlaw(kind="lack", files="monthly", start_ms=start, end_ms=start + 2 * DAY_MS))
    done = from_archive(exchange, tmp_path, "2026-02-01", "2026-02-28", interval="1h")
    assert [tally.written for tally in done.tallies] == [1] * 28
    assert [name for name in files(exchange) if name.endswith(".zip")] == [
        "BTCUSDT-1h-2026-02.zip",
        "BTCUSDT-1h-2026-02-11.zip",
        "BTCUSDT-1h-2026-02-10.zip",
    ]
    assert klines(exchange) == []


def test_what_a_month_has_before_its_first_candle_is_requested_from_the_exchange(
    exchange: SimulatedExchange, tmp_path: Path
) -> None:
    exchange.truth.add_outage(Outage(start_ms=0, end_ms=utc("2026-02-20"), symbol="BTCUSDT"))
    done = from_archive(exchange, tmp_path, "2026-02-01", "2026-02-28", interval="1h")
    assert [tally.written for tally in done.tallies] == [1] * 9 + [0] * 19
    assert [tally.remarked for tally in done.tallies] == [0] * 9 + [1] * 19
    assert files(exchange) == ["BTCUSDT-1h-2026-02.zip", "BTCUSDT-1h-2026-02.zip.CHECKSUM"]


def test_what_the_archive_lacks_comes_from_the_exchange_which_verifies_the_rest(
    exchange: SimulatedExchange, tmp_path: Path
) -> None:
    start = utc("2026-03-09")
    gap = (start + 600 * MINUTE, start + 605 * MINUTE)
    exchange.archive.add(ArchiveFlaw(kind="lack", start_ms=gap[0], end_ms=gap[1]))
    done = from_archive(exchange, tmp_path, "2026-03-08", "2026-03-09")
    assert [tally.written for tally in done.tallies] == [1, 1]
    assert len(klines(exchange)) == 2
    day = stored(tmp_path, "2026-03-09")
    assert day.rows.tobytes() == truth_of(exchange, day.day, "BTCUSDT").tobytes()
    assert day.verified == ((start, gap[0]), (gap[1], start + DAY_MS))
    assert stored(tmp_path, "2026-03-08").verified == ()
    # What is verified here is verified in a block that the day is loaded into.
    _, states = with_states(day)
    assert (states == RowState.VERIFIED).sum() == 1435


def test_a_block_loads_archived_days_and_what_is_verified_is_so_there(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    gap = (utc("2026-03-10T06:00"), utc("2026-03-10T06:05"))
    exchange.archive.add(ArchiveFlaw(kind="lack", start_ms=gap[0], end_ms=gap[1]))
    from_archive(exchange, tmp_path, "2026-03-09", "2026-03-10")
    asked = len(klines(exchange))
    days: dict[str, Any] = {"timezone": "UTC", "candle_dir": tmp_path, "local_candle_days": 2, "download_time": None}
    with collecting(exchange, block_name, symbols=["BTCUSDT"], length=2400, **days) as (_, feed):
        rows = feed["BTCUSDT"].candles(closed_only=True)
        states = feed["BTCUSDT"].states(closed_only=True)[-len(rows) :]
        rows, states = rows[-2300:], states[-2300:]
    truth = exchange.truth.floats("SPOT", "BTCUSDT", "1m", int(rows[0, 0]), int(rows[-1, 0]) + 1)
    assert rows.tobytes(order="C") == truth.tobytes()
    of_the_tenth = (utc("2026-03-10") <= rows[:, 0]) & (rows[:, 0] < utc("2026-03-11"))
    lacked = (gap[0] <= rows[:, 0]) & (rows[:, 0] < gap[1])
    assert ((states == RowState.VERIFIED) == (of_the_tenth & ~lacked)).all()
    assert of_the_tenth.sum() == 1440
    # Only today is asked for.
    assert all("endTime" not in query for _, query in klines(exchange)[asked:])


def test_a_start_takes_the_days_that_lack_from_the_archive_where_that_is_asked_for(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    days: dict[str, Any] = {"timezone": "UTC", "candle_dir": tmp_path, "local_candle_days": 2, "download_time": None}
    days["archive_url"] = exchange.base_url
    with collecting(exchange, block_name, symbols=["BTCUSDT"], length=2400, **days) as (_, feed):
        rows = feed["BTCUSDT"].candles(closed_only=True)[-2300:]
    truth = exchange.truth.floats("SPOT", "BTCUSDT", "1m", int(rows[0, 0]), int(rows[-1, 0]) + 1)
    assert rows.tobytes(order="C") == truth.tobytes()
    assert [str(day) for day in history.days("SPOT", "BTCUSDT", timezone="UTC", base_dir=tmp_path)] == [
        "2026-03-09",
        "2026-03-10",
    ]
    # Only today is asked of the exchange.
    assert all("endTime" not in query for _, query in klines(exchange))


def test_a_running_server_completes_its_days_from_the_archive_too(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    days: dict[str, Any] = {"timezone": "UTC", "candle_dir": tmp_path, "local_candle_days": 3}
    days |= {"archive_url": exchange.base_url, "download_time": "00:00:00"}
    # The window reaches back for two hours, the days for three days.
    with collecting(exchange, block_name, symbols=["BTCUSDT"], length=120, **days):
        store = store_in(tmp_path, zone=UTC_ZONE)
        until(lambda: len(store.days("BTCUSDT")) == 3)
    for day in store.days("BTCUSDT"):
        assert store.read("BTCUSDT", day).source == "archive"
    assert all("endTime" not in query for _, query in klines(exchange))


def packed(directory: Path, symbol: str, day: str, minutes: int = 1440) -> None:
    """Put a day of UM into a mirror of the archive."""
    file = ArchiveFile("UM", symbol, "1m", date.fromisoformat(day))
    lines = [
        f"{open_ms},27.0,27.5,26.5,27.1,100,{open_ms + 59_999},2700.0,5,50,1350.0,0"
        for open_ms in range(file.start_ms, file.start_ms + minutes * MINUTE, MINUTE)
    ]
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(file.name.replace(".zip", ".csv"), "\n".join(lines) + "\n")
    path = directory / file.path.removeprefix("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.getvalue())
    checksum = hashlib.sha256(data.getvalue()).hexdigest()
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{checksum}  {path.name}\n")


def test_contracts_that_are_no_longer_listed_come_from_the_archive_by_name(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone, mirror = "SRMUSDT", tmp_path / "mirror"
    for day, minutes in (("2023-06-28", 1440), ("2023-06-29", 1440), ("2023-06-30", 480)):
        packed(mirror, gone, day, minutes)
    clock = SystemClock()
    archive = Archive(Mirror(clock), clock, base_url=mirror.as_uri())
    done = from_archive(exchange, tmp_path, "2023-06-28", "2023-07-01", market="UM", symbols=[gone], archive=archive)
    assert [(tally.written, tally.failed) for tally in done.tallies] == [(0, 1), (0, 1), (1, 0), (1, 0)]
    assert said(caplog, gone, "UM does not list it")
    assert len(history.load("UM", gone, "2023-06-28", "2023-06-29", timezone="UTC", base_dir=tmp_path)) == 2880
    # Whether the contract traded on after its last archived candle, only the exchange could say.
    last = stored(tmp_path, "2023-06-30", gone, "UM")
    assert (len(last.rows), last.is_complete, last.source) == (480, False, "archive")
    assert said(caplog, gone, "480 of 1440 candles")
    assert said(caplog, gone, "2023-07-01 could not be fetched")


def test_a_name_that_nobody_knows_costs_a_line_and_the_exit_code(exchange: SimulatedExchange, tmp_path: Path) -> None:
    flags = ["--market", "um", "--timezone", "UTC", "--base-url", exchange.base_url, "--candle-dir", str(tmp_path)]
    days = ["--start", "2026-03-09", "--end", "2026-03-09"]
    for source in (["--source", "archive", "--archive-url", exchange.base_url], []):
        result = run("download", "--symbols", "BTCUSDT,BTCUSDR", *days, *flags, *source)
        said_there = result.stderr
        assert result.returncode == 1
        assert "BTCUSDR: UM does not list it, requested all the same; did you mean BTCUSDT?" in said_there
        assert "BTCUSDR: 2026-03-09 could not be fetched: " in said_there
        assert stored(tmp_path, "2026-03-09", "BTCUSDT", "UM").is_complete
    result = run("download", "--symbols", "BTCUSDR", *days, *flags)
    assert result.returncode == os.EX_CONFIG
    assert "BTCUSDR: UM does not list it, left out; did you mean BTCUSDT?" in result.stderr
    assert "candleshm: symbols cannot be `BTCUSDR`: UM lists none of them; did you mean BTCUSDT?" in result.stderr
    assert "source `archive` has those that are no longer listed" in result.stderr


def test_an_archive_needs_a_place_for_its_days(exchange: SimulatedExchange, block_name: str) -> None:
    with pytest.raises(ConfigError, match="candle_dir"):
        Collector(config_of(exchange, block_name, archive_url=exchange.base_url))


def test_a_hole_of_the_exchange_is_one_whatever_the_archive_lacks(exchange: SimulatedExchange, tmp_path: Path) -> None:
    hole = (utc("2026-03-09T10:00"), utc("2026-03-09T10:20"))
    exchange.truth.add_outage(Outage(start_ms=hole[0], end_ms=hole[1], market="SPOT"))
    done = from_archive(exchange, tmp_path, "2026-03-09")
    assert counts(done) == [("2026-03-09", 1, 0, 0, 1, 0)]
    day = stored(tmp_path, "2026-03-09")
    assert (day.holes, day.is_complete) == ((hole,), True)
    assert day.verified_count == len(day.rows) == 1420


def test_the_outage_of_2018_with_cut_closes_and_times_off_the_grid(exchange: SimulatedExchange, tmp_path: Path) -> None:
    done = from_archive(exchange, tmp_path, "2018-02-07", "2018-02-10")
    assert [(tally.written, tally.remarked) for tally in done.tallies] == [(1, 0), (0, 1), (0, 1), (1, 0)]
    rows = history.load("SPOT", "BTCUSDT", "2018-02-07", "2018-02-10", timezone="UTC", base_dir=tmp_path)
    truth = exchange.truth.floats("SPOT", "BTCUSDT", "1m", utc("2018-02-07"), utc("2018-02-11"))
    assert rows.tobytes() == truth.tobytes()
    assert (rows[:, 0] % MINUTE != 0).sum() == 120
    for day in ("2018-02-08", "2018-02-09"):
        candles = stored(tmp_path, day)
        assert (candles.source, candles.verified_count) == ("exchange", len(candles.rows))
    assert [stored(tmp_path, day).source for day in ("2018-02-07", "2018-02-10")] == ["archive"] * 2


@pytest.mark.parametrize("market", ["UM", "CM"])
def test_old_files_of_futures_without_a_header(exchange: SimulatedExchange, tmp_path: Path, market: Market) -> None:
    symbol = SYMBOLS[market][0]
    from_archive(exchange, tmp_path, "2021-12-31", "2022-01-01", market=market, symbols=[symbol])
    rows = history.load(market, symbol, "2021-12-31", "2022-01-01", timezone="UTC", base_dir=tmp_path)
    truth = exchange.truth.floats(market, symbol, "1m", utc("2021-12-31"), utc("2022-01-02"))
    assert rows.tobytes() == truth.tobytes()
    assert klines(exchange) == []


def test_a_file_that_is_not_there_is_no_remark(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(Fault(kind="status", status=404, path="2026-03-09.zip"))
    done = from_archive(exchange, tmp_path, "2026-03-08", "2026-03-09")
    assert [tally.written for tally in done.tallies] == [1, 1]
    assert stored(tmp_path, "2026-03-09").source == "exchange"
    assert len(klines(exchange)) == 2


@pytest.mark.parametrize("kind", ["checksum", "cut"])
def test_a_file_that_was_replaced_meanwhile_is_fetched_once_more(
    exchange: SimulatedExchange, tmp_path: Path, kind: Any
) -> None:
    exchange.archive.add(ArchiveFlaw(kind=kind, count=1))
    done = from_archive(exchange, tmp_path, "2026-03-09")
    assert counts(done) == [("2026-03-09", 1, 0, 1, 0, 0)]
    assert files(exchange) == ["BTCUSDT-1m-2026-03-09.zip", "BTCUSDT-1m-2026-03-09.zip.CHECKSUM"] * 2
    assert stored(tmp_path, "2026-03-09").source == "archive"


@pytest.mark.parametrize("what", ["checksum", "cut", "no CHECKSUM", "HTML"])
def test_a_file_that_does_not_fit_its_checksum_twice_is_reported_and_not_used(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: Any
) -> None:
    if what == "no CHECKSUM":
        exchange.faults.add(Fault(kind="status", status=404, path="-09.zip.CHECKSUM"))
    elif what == "HTML":
        exchange.faults.add(Fault(kind="status", status=200, body="<html></html>", path="-09.zip"))
    else:
        exchange.archive.add(ArchiveFlaw(kind=what, start_ms=utc("2026-03-09"), end_ms=utc("2026-03-10")))
    done = from_archive(exchange, tmp_path, "2026-03-08", "2026-03-09")
    assert counts(done) == [("2026-03-08", 1, 0, 1, 0, 0), ("2026-03-09", 1, 0, 0, 1, 0)][::-1]
    assert said(caplog, "BTCUSDT-1m-2026-03-09.zip cannot be used", "CHECKSUM")
    assert len(files(exchange)) == 4 + 2
    day = stored(tmp_path, "2026-03-09")
    assert (day.source, day.verified) == ("exchange", ())
    assert day.rows.tobytes() == truth_of(exchange, day.day, "BTCUSDT").tobytes()


@pytest.mark.parametrize("kind", ["truncate", "reset", "status"])
def test_responses_that_break_off_are_requested_again(exchange: SimulatedExchange, tmp_path: Path, kind: Any) -> None:
    exchange.faults.add(Fault(kind=kind, status=500, path=".zip", count=2))
    done = from_archive(exchange, tmp_path, "2026-03-09")
    assert counts(done) == [("2026-03-09", 1, 0, 1, 0, 0)]
    assert stored(tmp_path, "2026-03-09").source == "archive"


def test_a_conflict_is_reported_and_the_exchange_wins(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = utc("2026-03-09")
    open_ms = start + 100 * MINUTE
    exchange.archive.add(
        ArchiveFlaw(kind="value", start_ms=open_ms, end_ms=open_ms + 7 * MINUTE),
        ArchiveFlaw(kind="lack", start_ms=start, end_ms=start + MINUTE),
    )
    done = from_archive(exchange, tmp_path, "2026-03-09")
    assert counts(done) == [("2026-03-09", 1, 0, 0, 1, 0)]
    assert done.conflicts == 7
    day = stored(tmp_path, "2026-03-09")
    assert day.rows.tobytes() == truth_of(exchange, day.day, "BTCUSDT").tobytes()
    assert day.verified == ((start + MINUTE, open_ms), (open_ms + 7 * MINUTE, start + DAY_MS))
    trades = float(day.rows[100, 8])
    assert said(
        caplog,
        f"BTCUSDT 2026-03-09 01:40:00 UTC: trades archive {trades + 1} exchange {trades}; the exchange's value is kept",
    )
    assert said(caplog, "BTCUSDT: 2 more candles of that day differ")


def test_replace_takes_every_day_again(exchange: SimulatedExchange, tmp_path: Path) -> None:
    written(store_in(tmp_path, zone=UTC_ZONE), candles_of(day_of("2026-03-09", UTC_ZONE)))
    assert from_archive(exchange, tmp_path, "2026-03-09").tallies[0].skipped == 1
    assert files(exchange) == []
    assert from_archive(exchange, tmp_path, "2026-03-09", options={"replace": True}).tallies[0].written == 1
    assert (
        stored(tmp_path, "2026-03-09").rows.tobytes()
        == truth_of(exchange, day_of("2026-03-09", UTC_ZONE), "BTCUSDT").tobytes()
    )


def test_the_csv_tree_takes_days_of_the_archive_too(exchange: SimulatedExchange, tmp_path: Path) -> None:
    done = from_archive(exchange, tmp_path, "2026-03-09", form="csv")
    assert counts(done) == [("2026-03-09", 1, 0, 1, 0, 0)]
    assert klines(exchange) == []
    with pytest.raises(ConfigError, match="csv"):
        from_archive(exchange, tmp_path, "2026-03-09", form="csv", options={"verify": True})
    with pytest.raises(ConfigError, match="without an archive"):
        downloaded(exchange, tmp_path, "2026-03-09", options={"verify": True})


# An archive that does not answer.


def test_an_archive_that_refuses_is_left_alone(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.faults.add(Fault(kind="status", status=403, path=".zip"))
    done = from_archive(exchange, tmp_path, "2026-03-01", "2026-03-10", interval="1h")
    assert [tally.written for tally in done.tallies] == [1] * 10
    assert len(files(exchange)) == 3
    assert said(caplog, "HTTP 403", "the remaining files are not requested")


def test_an_archive_that_wants_a_pause_gets_it(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(
        Fault(kind="status", status=429, headers={"Retry-After": "1"}, path="-10.zip", count=1),
    )
    started_ms = exchange.now_ms()
    from_archive(exchange, tmp_path, "2026-03-10")
    first, second, *_ = [served.received_ms for served in exchange.served() if served.target.startswith("/data/")]
    assert first >= started_ms
    assert second - first >= 990
    assert klines(exchange) == []


def test_a_pause_of_hours_is_not_waited_for(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.faults.add(Fault(kind="status", status=503, headers={"Retry-After": "7200"}, path=".zip"))
    done = from_archive(exchange, tmp_path, "2026-03-08", "2026-03-10")
    assert [tally.written for tally in done.tallies] == [1, 1, 1]
    assert len(files(exchange)) == 1
    assert said(caplog, "it sent Retry-After 7200 s", "the remaining files are not requested")


def test_nobody_is_there(exchange: SimulatedExchange, tmp_path: Path) -> None:
    done = from_archive(exchange, tmp_path, "2026-03-09", archive=archive_of(exchange, base_url="http://127.0.0.1:9"))
    assert counts(done) == [("2026-03-09", 1, 0, 1, 0, 0)]
    assert stored(tmp_path, "2026-03-09").source == "exchange"


def test_stopping_ends_it_at_once(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(Fault(kind="latency", delay_ms=50, path=".zip"))
    stopping = threading.Event()

    def stop(progress: DownloadProgress) -> None:
        if progress.files_done >= 1:
            stopping.set()

    done = from_archive(
        exchange,
        tmp_path,
        "2026-01-01",
        "2026-03-10",
        stopping=stopping,
        progress=stop,
        archive=archive_of(exchange, stopping=stopping),
        interval="1h",
    )
    assert done.is_stopped
    assert 1 <= done.files_done < done.files


@pytest.mark.parametrize("verify", [False, True])
def test_who_waits_for_a_response_of_the_archive_is_left_behind(
    exchange: SimulatedExchange, tmp_path: Path, *, verify: bool
) -> None:
    if verify:
        downloaded(exchange, tmp_path, "2026-03-09", "2026-03-09", symbols=["BTCUSDT"])
    exchange.faults.add(Fault(kind="hang", path=".zip"))
    stopping = threading.Event()

    def stop(_: DownloadProgress) -> None:
        if files(exchange):
            stopping.set()

    done = from_archive(
        exchange,
        tmp_path,
        "2026-03-09",
        archive=archive_of(exchange, stopping=stopping),
        stopping=stopping,
        progress=stop,
        options={"verify": verify},
    )
    assert done.is_stopped
    name = "candleshm-history-0"
    [left] = [thread for thread in threading.enumerate() if thread.name == name]
    assert left.is_alive()
    exchange.stop()  # the socket ends, and the thread with it
    left.join(30)
    assert not left.is_alive()
    verified_count = stored(tmp_path, "2026-03-09").verified_count if verify else 0
    assert (len(list(tmp_path.rglob("*.parquet"))), verified_count) == (int(verify), 0)


# Verifying.


def test_verifying_compares_what_is_stored(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "candleshm")
    downloaded(exchange, tmp_path, "2026-03-08", "2026-03-10", symbols=["BTCUSDT"])
    asked = len(klines(exchange))
    done = verified(exchange, tmp_path, "2026-03-08", "2026-03-10")
    assert len(klines(exchange)) == asked
    assert (done.verified, done.conflicts) == (3 * 1440, 0)
    for day in ("2026-03-08", "2026-03-09", "2026-03-10"):
        assert stored(tmp_path, day).verified == ((utc(day), utc(day) + DAY_MS),)
        assert said(caplog, f"verified {day}: 1 of 1 symbol new, 0 done before, 0 with remarks, 0 failed")
    reports = history.verify("SPOT", timezone="UTC", base_dir=tmp_path)
    assert {(report.source, report.verified) for report in reports} == {
        ("exchange", ((utc(day), utc(day) + DAY_MS),)) for day in ("2026-03-08", "2026-03-09", "2026-03-10")
    }
    # What is verified is not asked for again.
    before = len(files(exchange))
    caplog.clear()
    verified(exchange, tmp_path, "2026-03-08", "2026-03-10")
    assert len(files(exchange)) == before
    assert said(caplog, "verified 2026-03-09: 0 of 1 symbol new, 1 done before, 0 with remarks, 0 failed")


def test_verifying_takes_days_of_the_archive_from_the_exchange_first(
    exchange: SimulatedExchange, tmp_path: Path
) -> None:
    from_archive(exchange, tmp_path, "2026-03-09")
    done = verified(exchange, tmp_path, "2026-03-08", "2026-03-09")
    assert [tally.written for tally in done.tallies] == [1, 1]
    assert len(klines(exchange)) == 3
    assert done.verified == 2 * 1440
    assert stored(tmp_path, "2026-03-09").source == "exchange"


def test_days_of_the_archive_do_not_verify_themselves(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from_archive(exchange, tmp_path, "2026-03-09")
    exchange.faults.add(refused(400, -1121, "Invalid symbol.", path="/klines"))
    done = verified(exchange, tmp_path, "2026-03-09")
    assert (done.failed, done.verified) == (1, 0)
    assert (stored(tmp_path, "2026-03-09").source, stored(tmp_path, "2026-03-09").verified) == ("archive", ())
    assert said(caplog, "BTCUSDT: 2026-03-09 is from archive, not from the exchange")


def test_verifying_a_conflict_and_what_the_archive_lacks(
    exchange: SimulatedExchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "candleshm")
    open_ms = utc("2026-03-09T06:00")
    exchange.archive.add(
        ArchiveFlaw(kind="value", start_ms=open_ms, end_ms=open_ms + MINUTE),
        ArchiveFlaw(kind="lack", start_ms=open_ms + MINUTE, end_ms=open_ms + 3 * MINUTE),
        ArchiveFlaw(kind="checksum", start_ms=utc("2026-03-08"), end_ms=utc("2026-03-09")),
    )
    done = verified(exchange, tmp_path, "2026-03-08", "2026-03-09")
    assert (done.verified, done.conflicts) == (1437, 1)
    day = stored(tmp_path, "2026-03-09")
    assert day.rows.tobytes() == truth_of(exchange, day.day, "BTCUSDT").tobytes()
    assert day.verified == ((utc("2026-03-09"), open_ms), (open_ms + 3 * MINUTE, utc("2026-03-10")))
    assert said(caplog, "BTCUSDT 2026-03-09 06:00:00 UTC: trades archive")
    assert said(caplog, "does not have 2 of 1440 candles of 2026-03-09")
    assert said(caplog, "does not have 1440 of 1440 candles of 2026-03-08")
    assert said(caplog, "verified 2026-03-09: 0 of 1 symbol new, 0 done before, 1 with remarks, 0 failed")
    # The archive corrects its file: the rest is verified, and nothing is left to report.
    exchange.archive.mend()
    done = verified(exchange, tmp_path, "2026-03-08", "2026-03-09")
    assert (done.verified, done.conflicts) == (2 * 1440, 0)
    assert stored(tmp_path, "2026-03-09").verified_count == 1440


# A mirror on disk, and the command.


def mirrored(exchange: SimulatedExchange, directory: Path, *days: str) -> str:
    """Save files of the archive in their own layout; return the address of the copy."""
    with HttpTransportOf(exchange) as get:
        for day in days:
            path = f"/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-{day}.zip"
            for name in (path, f"{path}.CHECKSUM"):
                saved = directory / name[1:]
                saved.parent.mkdir(parents=True, exist_ok=True)
                saved.write_bytes(get(name))
    return directory.as_uri()


class HttpTransportOf:
    """Gets files of an exchange's archive."""

    def __init__(self, exchange: SimulatedExchange) -> None:
        self._base_url = exchange.base_url
        self._transport = HttpTransport(SystemClock())

    def __enter__(self) -> Any:
        return lambda path: self._transport.fetch(self._base_url + path).body

    def __exit__(self, *_: object) -> None: ...


def test_a_mirror_in_a_directory(exchange: SimulatedExchange, tmp_path: Path) -> None:
    url = mirrored(exchange, tmp_path / "with spaces", "2026-03-09")
    clock = SystemClock()
    done = from_archive(
        exchange, tmp_path / "candles", "2026-03-08", "2026-03-09", archive=Archive(Mirror(clock), clock, base_url=url)
    )
    assert [tally.written for tally in done.tallies] == [1, 1]
    assert stored(tmp_path / "candles", "2026-03-09").source == "archive"
    assert stored(tmp_path / "candles", "2026-03-08").source == "exchange"
    with pytest.raises(ExchangeUnavailable):
        Mirror(clock).fetch(f"file://{tmp_path}")


@pytest.mark.parametrize("url", ["", "data.binance.vision", "ftp://host/x", "file://", "https://", "https://host/?a=b"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match="archive_url cannot be"):
        checked_archive_url(url)


def test_candle_server_takes_days_from_the_archive(exchange: SimulatedExchange, tmp_path: Path) -> None:
    class Rule(CandleRule):
        SYMBOLS: ClassVar = ["BTCUSDT"]
        TIMEZONE = "UTC"
        CANDLE_DIR = str(tmp_path / "candles")
        LOG_DIRPATH = str(tmp_path / "log")

    server = CandleServer("SPOT", Rule, base_url=exchange.base_url)
    done = server.download_candles_by_date("2026-03-09", "2026-03-09", source=exchange.base_url)
    assert done is not None
    assert (done.fetched, klines(exchange)) == (1, [])
    done = server.download_candles_by_date("2026-03-09", "2026-03-09", source=exchange.base_url, verify=True)
    assert done is not None
    assert done.verified == 1440
    with pytest.raises(ConfigError, match="archive_url cannot be `attic`"):
        server.download_candles_by_date("2026-03-09", source="attic")


def words(exchange: SimulatedExchange, directory: Path, *more: str) -> list[str]:
    return [
        *("download", "--market", "spot", "--symbols", "BTCUSDT", "--timezone", "UTC"),
        *("--base-url", exchange.base_url, "--candle-dir", str(directory / "candles")),
        *("--archive-url", exchange.base_url, "--settle-seconds", "0.2", *more),
    ]


def test_the_command(exchange: SimulatedExchange, tmp_path: Path) -> None:
    result = run(*words(exchange, tmp_path, "--source", "archive", "--start", "2026-03-09"))
    assert result.returncode == 0, result.stderr
    assert "downloaded 2026-03-09: 1 of 1 symbol new, 0 done before, 0 with remarks, 0 failed" in result.stderr
    assert klines(exchange) == []
    result = run(*words(exchange, tmp_path, "--verify", "--start", "2026-03-09"))
    assert result.returncode == 0, result.stderr
    assert "verified: the archive agrees on 2880 candles and differs on 0" in result.stderr
    assert stored(tmp_path / "candles", "2026-03-10").verified_count == 1440


def test_the_command_fails_where_verifying_finds_conflicts(exchange: SimulatedExchange, tmp_path: Path) -> None:
    open_ms = utc("2026-03-09T06:00")
    exchange.archive.add(ArchiveFlaw(kind="value", start_ms=open_ms, end_ms=open_ms + MINUTE))
    result = run(*words(exchange, tmp_path, "--verify", "--start", "2026-03-09"))
    assert result.returncode == 1
    assert result.stderr.endswith("1 candle not as in the archive; the exchange's are kept, not verified\n")
    assert "BTCUSDT 2026-03-09 06:00:00 UTC: trades archive" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_command_says_what_is_wrong(exchange: SimulatedExchange, tmp_path: Path) -> None:
    start = ("--start", "2026-03-09", "--source", "archive")
    assert "archive_url cannot be `nowhere`" in complaint(
        *words(exchange, tmp_path, *start, "--archive-url", "nowhere")
    )
    spare = words(exchange, tmp_path, "--start", "2026-03-09")
    assert "archive_url needs source `archive` or verify" in complaint(*spare)
    assert "format `csv`" in complaint(*words(exchange, tmp_path, *start, "--verify", "--format", "csv"))
    assert run(*words(exchange, tmp_path, "--source", "there")).returncode == 2
