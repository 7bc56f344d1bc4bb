"""The archive of the simulated exchange, asked over real HTTP: its layout, what its files say, and its flaws."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

import pytest
import requests

from candleshm.sim import ArchiveFlaw, Fault, Market, SimulatedExchange
from tests.test_sim import Clock

MINUTE, DAY = 60_000, 86_400_000
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
FOLDER: dict[Market, str] = {"SPOT": "spot", "UM": "futures/um", "CM": "futures/cm"}
SYMBOL: dict[Market, str] = {"SPOT": "BTCUSDT", "UM": "BTCUSDT", "CM": "BTCUSD_PERP"}


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


class Archive:
    """A running exchange whose clock stands, and how to ask for its files."""

    def __init__(self, sim: SimulatedExchange, clock: Clock) -> None:
        self.sim = sim
        self.clock = clock
        self.session = requests.Session()

    def get(self, period: str, market: Market = "SPOT", interval: str = "1m", suffix: str = "") -> requests.Response:
        symbol = SYMBOL[market]
        kind = "daily" if len(period) == 10 else "monthly"
        path = f"data/{FOLDER[market]}/{kind}/klines/{symbol}/{interval}/{symbol}-{interval}-{period}.zip{suffix}"
        return self.session.get(f"{self.sim.base_url}/{path}", timeout=20)

    def lines(self, period: str, market: Market = "SPOT", interval: str = "1m") -> list[str]:
        answer = self.get(period, market, interval)
        assert answer.status_code == 200, answer.text
        with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
            assert packed.namelist() == [f"{SYMBOL[market]}-{interval}-{period}.csv"]
            text = packed.read(packed.namelist()[0]).decode()
        assert text.endswith("\n")
        return text.splitlines()

    def checksum(self, period: str) -> str:
        answer = self.get(period, suffix=".CHECKSUM")
        assert answer.status_code == 200
        return answer.text


@pytest.fixture(scope="module")
def served() -> Iterator[Archive]:
    clock = Clock()  # 2026-03-11T12:34:56.789
    with SimulatedExchange(clock_ms=clock, seed=7, symbols=5) as sim:
        archive = Archive(sim, clock)
        yield archive
        archive.session.close()


@pytest.fixture
def archive(served: Archive) -> Iterator[Archive]:
    now_ms = served.clock.now_ms
    yield served
    served.clock.now_ms = now_ms
    served.sim.archive.mend()
    served.sim.faults.clear()


def as_sent(archive: Archive, market: Market, period: str, interval: str = "1m") -> list[str]:
    """Return the truth's rows of a day as lines of a file, in milliseconds."""
    start = utc(period)
    rows = archive.sim.truth.klines(market, SYMBOL[market], interval, start, start + DAY)
    return [",".join(map(str, row)) for row in rows]


@pytest.mark.parametrize("market", ["SPOT", "UM", "CM"])
def test_a_day_agrees_with_klines_responses(archive: Archive, market: Market) -> None:
    lines = archive.lines("2023-06-01", market)
    if market != "SPOT":
        assert lines.pop(0) == HEADER
    assert lines == as_sent(archive, market, "2023-06-01")
    assert len(lines) == 1440


@pytest.mark.parametrize("market", ["SPOT", "UM", "CM"])
def test_old_files_have_no_header(archive: Archive, market: Market) -> None:
    assert archive.lines("2021-12-31", market, "1h") == as_sent(archive, market, "2021-12-31", "1h")


def test_spot_counts_in_microseconds_from_2025_on(archive: Archive) -> None:
    before, after = archive.lines("2024-12-31", interval="1h"), archive.lines("2025-01-01", interval="1h")
    assert before == as_sent(archive, "SPOT", "2024-12-31", "1h")
    for line, sent in zip(after, as_sent(archive, "SPOT", "2025-01-01", "1h"), strict=True):
        values, expected = line.split(","), sent.split(",")
        assert (values[0], values[6]) == (f"{expected[0]}000", f"{expected[6]}999")
        assert values[1:6] + values[7:] == expected[1:6] + expected[7:]
    assert archive.lines("2025-01-01", "UM", "1h")[1:] == as_sent(archive, "UM", "2025-01-01", "1h")


def test_a_day_is_there_once_it_is_over(archive: Archive) -> None:
    assert archive.get("2026-03-10").status_code == 200
    assert archive.get("2026-03-11").status_code == 404
    archive.clock.now_ms = utc("2026-03-11T23:59:59.999")
    assert archive.get("2026-03-11").status_code == 404
    archive.clock.now_ms = utc("2026-03-12")
    assert archive.get("2026-03-11").status_code == 200


def test_a_month_is_there_from_the_first_monday_after_it(archive: Archive) -> None:
    archive.clock.now_ms = utc("2026-03-02") - 1
    assert archive.get("2026-02", interval="1h").status_code == 404
    archive.clock.now_ms = utc("2026-03-02")
    assert len(archive.lines("2026-02", interval="1h")) == 28 * 24
    assert archive.get("2026-03", interval="1h").status_code == 404


def test_a_month_is_its_days(archive: Archive) -> None:
    days = [line for day in range(1, 29) for line in archive.lines(f"2026-02-{day:02}", interval="1h")]
    assert archive.lines("2026-02", interval="1h") == days


def test_months_as_an_interval_are_spelled_1mo(archive: Archive) -> None:
    [line] = archive.lines("2025-02", interval="1mo")
    assert line.startswith(f"{utc('2025-02-01')}000,")
    assert archive.get("2025-02", interval="1M").status_code == 404


def test_the_checksum_is_what_sha256sum_prints(archive: Archive) -> None:
    data = archive.get("2026-03-01").content
    assert archive.checksum("2026-03-01") == f"{hashlib.sha256(data).hexdigest()}  BTCUSDT-1m-2026-03-01.zip\n"


def test_files_are_the_same_bytes_every_time(archive: Archive) -> None:
    first = archive.get("2026-03-01")
    with SimulatedExchange(clock_ms=archive.clock, seed=7, symbols=5) as sim:
        again = Archive(sim, archive.clock).get("2026-03-01")
    assert (first.content, first.headers["ETag"]) == (again.content, again.headers["ETag"])


@pytest.mark.parametrize(
    "path",
    [
        "/data/spot/daily/klines/NOSUCH/1m/NOSUCH-1m-2026-03-01.zip",
        "/data/spot/daily/klines/BTCUSDT/7m/BTCUSDT-7m-2026-03-01.zip",
        "/data/spot/daily/klines/BTCUSDT/1m/ETHUSDT-1m-2026-03-01.zip",
        "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-03.zip",
        "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-02-30.zip",
        "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2009-01-01.zip",
        "/data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-02-01.zip",
        "/data/options/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-03-01.zip",
        "/data/",
    ],
)
def test_what_is_not_there_is_a_404_of_s3(archive: Archive, path: str) -> None:
    answer = archive.session.get(archive.sim.base_url + path, timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/xml")
    assert "<Code>NoSuchKey</Code>" in answer.text


def test_files_cost_no_weight(archive: Archive) -> None:
    before = archive.sim.stats().pools
    assert "x-mbx-used-weight" not in archive.get("2026-03-01").headers
    assert archive.sim.stats().pools == before


def test_faults_meet_files_by_market_symbol_and_path(archive: Archive) -> None:
    archive.sim.faults.add(
        Fault(kind="status", status=503, market="UM", symbol="BTCUSDT", path=".zip", count=1),
        Fault(kind="status", status=404, path="BTCUSDT-1m-2026-03-02.zip.CHECKSUM"),
    )
    assert archive.get("2026-03-02").status_code == 200
    assert archive.get("2026-03-02", suffix=".CHECKSUM").status_code == 404
    assert [archive.get("2026-03-02", "UM").status_code for _ in range(2)] == [503, 200]


def test_a_checksum_of_another_version(archive: Archive) -> None:
    archive.sim.archive.add(ArchiveFlaw(kind="checksum", symbol="BTCUSDT", count=1))
    right = hashlib.sha256(archive.get("2026-03-01").content).hexdigest()
    first, second = archive.checksum("2026-03-01"), archive.checksum("2026-03-01")
    assert right not in first
    assert second.startswith(right)


def test_a_zip_that_ends_half_way(archive: Archive) -> None:
    whole = archive.get("2026-03-01").content
    archive.sim.archive.add(ArchiveFlaw(kind="cut", start_ms=utc("2026-03-01"), end_ms=utc("2026-03-02"), count=1))
    assert archive.get("2026-03-02").status_code == 200
    assert archive.get("2026-03-01").content == whole[: len(whole) // 2]
    assert archive.get("2026-03-01").content == whole
    assert hashlib.sha256(whole).hexdigest() in archive.checksum("2026-03-01")


def test_a_month_that_lacks_a_day(archive: Archive) -> None:
    start = utc("2026-02-10")
    archive.sim.archive.add(ArchiveFlaw(kind="lack", files="monthly", start_ms=start, end_ms=start + DAY))
    opens = {int(line.split(",")[0]) // 1000 for line in archive.lines("2026-02", interval="1h")}
    assert len(opens) == 27 * 24
    assert not any(start <= open_ms < start + DAY for open_ms in opens)
    assert len(archive.lines("2026-02-10", interval="1h")) == 24


def test_a_value_that_klines_responses_do_not_have(archive: Archive) -> None:
    whole, start = archive.lines("2026-03-01"), utc("2026-03-01")
    archive.sim.archive.add(ArchiveFlaw(kind="value", start_ms=start + MINUTE, end_ms=start + 2 * MINUTE))
    changed = archive.lines("2026-03-01")
    assert [index for index, pair in enumerate(zip(whole, changed, strict=True)) if pair[0] != pair[1]] == [1]
    before, after = whole[1].split(","), changed[1].split(",")
    assert int(after[8]) == int(before[8]) + 1
    # Unlike a wrong checksum, the file is sound.
    assert hashlib.sha256(archive.get("2026-03-01").content).hexdigest() in archive.checksum("2026-03-01")


def test_flaws_from_another_process(archive: Archive) -> None:
    flaw = asdict(ArchiveFlaw(kind="checksum", market="SPOT"))
    answer = archive.session.post(f"{archive.sim.base_url}/sim/world", json={"archive_flaws": [flaw]}, timeout=10)
    assert answer.status_code == 200
    assert hashlib.sha256(archive.get("2026-03-01").content).hexdigest() not in archive.checksum("2026-03-01")


def test_a_correction_reaches_the_files(archive: Archive) -> None:
    from candleshm.sim import Restatement

    before = archive.lines("2026-03-05")
    archive.sim.truth.restate(Restatement(market="SPOT", symbol="BTCUSDT", minute_ms=utc("2026-03-05"), lots=3))
    after = archive.lines("2026-03-05")
    assert before[0] != after[0]
    assert before[1:] == after[1:]
