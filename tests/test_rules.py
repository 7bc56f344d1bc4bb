"""Rules that files, blocks and the exchange's answers share have one source: time zones, names, intervals, markets."""

from __future__ import annotations

import pickle
import random
import re
import subprocess
import sys
import unicodedata
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm import history
from candleshm._core import (
    INTERVAL_MS,
    MARKETS,
    ROW_STATES,
    ZONES_VERSION,
    Writer,
    Zone,
    candle_end_ms,
    candles_within,
    is_symbol_name,
    zone_names,
)
from candleshm.compat.rule import CandleRule, check_rule
from candleshm.config import CollectorConfig, is_zone
from candleshm.errors import ConfigError, HistoryError
from candleshm.history.day import Day
from candleshm.sim.world import grid as sim_grid
from candleshm.sim.world import universe as sim_universe
from candleshm.system.log_text import printable

DAY_MS = 86_400_000
EPOCH = date(1970, 1, 1)
FROM, UNTIL = 0, (date(2040, 12, 31) - EPOCH).days


@cache
def pythons(name: str) -> zoneinfo.ZoneInfo:
    """Return a zone as Python's own module reads it out of the package tzdata, whatever the machine has."""
    with (resources.files("tzdata") / "zoneinfo" / name).open("rb") as file:
        return zoneinfo.ZoneInfo.from_file(file, key=name)


def number_at(zone: zoneinfo.ZoneInfo, epoch_ms: int) -> int:
    return (datetime.fromtimestamp(epoch_ms / 1000, zone).date() - EPOCH).days


def edges_of(zone: zoneinfo.ZoneInfo) -> set[int]:
    """Return the days around every change of the clock, from 1970 to 2040."""
    edges, before = set(), None
    for day in range(FROM, UNTIL, 7):
        offset = datetime.fromtimestamp(day * 86400, zone).utcoffset()
        if offset != before:
            edges |= set(range(max(FROM, day - 9), day + 3))
        before = offset
    return edges


def test_the_names_are_those_of_the_database() -> None:
    listed = (resources.files("tzdata") / "zones").read_text().split()
    # The last one says on purpose that it is none.
    assert zone_names() == sorted(listed)
    stated = re.search(r'IANA_VERSION = "(.*)"', (resources.files("tzdata") / "__init__.py").read_text())
    assert stated is not None
    assert stated[1] == ZONES_VERSION


@pytest.mark.parametrize("part", range(8))
def test_days_of_every_zone_begin_where_its_clocks_say(part: int) -> None:
    random_days = random.Random(part)
    for name in zone_names()[part::8]:
        ours, theirs = Zone(name), pythons(name)
        for day in sorted(edges_of(theirs) | {random_days.randrange(FROM, UNTIL) for _ in range(20)}):
            start_ms = Day(EPOCH + timedelta(days=day), ours).start_ms
            assert number_at(theirs, start_ms) >= day, (name, day)
            # Not even a clock that is set back later has shown the date before.
            assert all(number_at(theirs, start_ms - step_ms) < day for step_ms in (1, 900_000, 3_600_000, 7_200_000)), (
                name,
                day,
            )
            noon_ms = start_ms + DAY_MS // 2
            offset = datetime.fromtimestamp(noon_ms / 1000, theirs).utcoffset()
            assert offset == timedelta(milliseconds=ours.offset_ms(noon_ms)), (name, day)


@pytest.mark.parametrize("year", [2020, 2026, 2038])
def test_derived_days_of_every_zone_are_those_of_daily_files(year: int) -> None:
    open_ms = round(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000) + np.arange(96 * 320) * 900_000
    rows = np.ones((len(open_ms), 12))
    rows[:, 0], rows[:, 6] = open_ms, open_ms + 899_999
    derived = 0
    for name in zone_names():
        try:
            found = candleshm.derive(rows, f"1d@{name}", source="15m")
        except ConfigError as error:
            assert "15m" in str(error)  # noqa: PT017 - a zone whose clock is ahead by odd minutes
            continue
        zone = Zone(name)
        assert [Day.of(ms, zone).start_ms for ms in found[:, 0]] == found[:, 0].tolist(), name
        assert np.diff(found[:, 0]).min() >= 22 * 3_600_000
        derived += 1
    assert derived > 500


NO_ZONES: list[Any] = [
    *("", " ", "UTC ", "Asia/Peking", "America/NewYork", "+08:00", "UTC+8", "Etc/Unknown", "localtime", "posixrules"),
    *(
        "posix/Asia/Shanghai",
        "right/UTC",
        "../../etc/passwd",
        "/usr/share/zoneinfo/UTC",
        "Asia",
        "zone.tab",
        "tzdata.zi",
    ),
    *("\0", "Asia/Shanghai\0", "\ud800", "Z" * 300, 8, None, b"UTC"),
]


@pytest.mark.parametrize("name", NO_ZONES, ids=repr)
def test_what_is_no_zone_is_refused_wherever_one_comes_in(name: Any, tmp_path: Path) -> None:
    assert not is_zone(name)
    with pytest.raises(ConfigError, match="timezone"):
        Zone(name)
    with pytest.raises(ConfigError, match="timezone"):
        CollectorConfig(market="SPOT", timezone=name)
    with pytest.raises(ConfigError, match="TIMEZONE"):
        check_rule(type("Rule", (CandleRule,), {"TIMEZONE": name}), "SPOT")
    with pytest.raises(ConfigError, match="timezone"):
        history.load("SPOT", "BTCUSDT", "2026-11-01", "2026-11-01", timezone=name, base_dir=tmp_path)
    if isinstance(name, str) and name.isprintable():
        with pytest.raises(ConfigError):
            CollectorConfig(market="SPOT", interval="1h", derive=[f"1d@{name}"])


@pytest.mark.parametrize("name", ["asia/shanghai", "ASIA/SHANGHAI", "utc", "us/eastern", "prc"])
def test_any_case_of_letters_finds_a_zone_wherever_one_comes_in(name: str, tmp_path: Path) -> None:
    assert is_zone(name)
    spelled = Zone(name).name
    assert spelled in zone_names()
    assert spelled.lower() == name.lower()
    CollectorConfig(market="SPOT", interval="1h", timezone=name, derive=[f"1d@{name}"])
    check_rule(type("Rule", (CandleRule,), {"TIMEZONE": name}), "SPOT")
    with pytest.raises(HistoryError) as caught:
        history.load("SPOT", "BTCUSDT", "2026-11-01", "2026-11-01", timezone=name, base_dir=tmp_path)
    assert f"timezone={spelled.replace('/', '%2F')}" in str(caught.value)


def test_zones_are_values() -> None:
    zone = Zone("Asia/Tokyo")
    assert zone == Zone("asia/tokyo") == pickle.loads(pickle.dumps(zone))
    assert zone != Zone("Japan")
    assert len({zone, Zone("Asia/Tokyo"), Zone("UTC")}) == 2
    assert repr(zone) == "Zone('Asia/Tokyo')"


def test_days_at_the_ends_of_the_calendar() -> None:
    zone = Zone("America/New_York")
    assert Day.parse("1970-01-01", zone).start_ms == 5 * 3_600_000
    assert str(Day.parse("9998-12-31", zone).next()) == "9999-01-01"
    for value in ("1969-12-31", "0001-01-01", "9999-12-31", date.max, 1e18, -1, 10**30, True):
        with pytest.raises(ConfigError, match=r"day cannot be|epoch milliseconds"):
            Day.parse(value, zone)


def test_nothing_in_the_package_reads_the_time_zones_of_the_machine() -> None:
    for path in Path(candleshm.__file__).parent.rglob("*.py"):
        assert not re.search(r"zoneinfo|tzlocal|pytz|dateutil|\.astimezone\(\)", path.read_text()), path


def test_the_version_names_that_of_the_time_zones() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("candleshm")), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"candleshm {version('candleshm')} (time zones {ZONES_VERSION})\n"
    assert re.fullmatch(r"20\d\d[a-z]", ZONES_VERSION)


# Names.


@pytest.mark.parametrize("name", ["BTCUSDT", "BTCUSD_PERP", "币安人生USDT", "ö", "X" * 64, "1000SATSUSDT", "A-B.C"])
def test_names_that_can_be_a_symbol_s(name: str, block_name: str) -> None:
    assert is_symbol_name(name)
    writer = Writer.open(block_name, market="SPOT", interval="1m", length=2, symbols=[name])
    assert writer.symbols == (name,)
    writer.close()


NO_SYMBOLS: list[Any] = [
    *(
        "",
        " ",
        "BTC USDT",
        "BTC\tUSDT",
        "BTC\n",
        "\0",
        "\x1b[2J",
        "a/b",
        "..\\b",
        "..",
        "\u202eBTC",
        "\u200b",
        "\ufeffX",
    ),
    *("\ufeffX", "\u00a0", "\u2028", "\u3000", "\U000e0041", "X" * 65, "ö" * 33),
]


@pytest.mark.parametrize("name", NO_SYMBOLS, ids=repr)
def test_names_that_cannot_be_a_symbol_s(name: Any, block_name: str) -> None:
    assert not is_symbol_name(name)
    with pytest.raises(ConfigError):
        Writer.open(block_name, market="SPOT", interval="1m", length=2, symbols=[name])
    with pytest.raises(ConfigError):
        CollectorConfig(market="SPOT", symbols=[name])
    with pytest.raises(ConfigError):
        check_rule(type("Rule", (CandleRule,), {"SYMBOLS": [name]}), "SPOT")


@pytest.mark.parametrize("name", [None, 1, b"BTCUSDT", "\ud800", ["BTCUSDT"]], ids=repr)
def test_what_is_no_text_names_no_symbol(name: Any) -> None:
    assert not is_symbol_name(name)


def test_no_character_of_a_symbol_s_name_does_anything_but_show_itself() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if is_symbol_name(character):
            assert unicodedata.category(character) not in {"Cc", "Cs", "Zs", "Zl", "Zp", "Co"}, hex(code)
            assert printable(character) == character, hex(code)


# Intervals and markets.


def test_the_simulated_exchange_writes_the_same_intervals_and_markets_on_its_own() -> None:
    assert tuple(INTERVAL_MS) == sim_grid.INTERVALS
    assert {**sim_grid.FIXED_MS, "1M": 28 * DAY_MS} == INTERVAL_MS
    assert sim_universe.MARKETS == MARKETS


@pytest.mark.parametrize("interval", INTERVAL_MS)
def test_candles_end_where_the_next_one_of_the_exchange_opens(interval: str) -> None:
    numbers = random.Random(interval)
    for _ in range(200):
        moment_ms = numbers.randrange(0, 70 * 365 * DAY_MS)
        listed_ms = moment_ms - numbers.randrange(0, 400) * DAY_MS
        grid = sim_grid.Grid.of(interval, listed_ms)
        open_ms = grid.floor(moment_ms)
        assert candle_end_ms(interval, open_ms) == grid.shift(open_ms, 1)
        # Off the grid, as after an outage.
        assert candle_end_ms(interval, open_ms + min(789, INTERVAL_MS[interval] - 1)) == grid.shift(open_ms, 1)


def test_the_end_of_a_candle_of_no_interval_is_refused() -> None:
    for interval in ("", "2m", "1d@Nowhere", "1h@UTC"):
        with pytest.raises(ConfigError):
            candle_end_ms(interval, 0)
    assert candle_end_ms("1d@Asia/Shanghai", 0) == 16 * 3_600_000


def test_states_of_rows_are_those_of_the_core() -> None:
    assert {state.name: state.value for state in candleshm.RowState} == ROW_STATES


def test_candles_within_a_range_are_those_that_open_in_it() -> None:
    minute = INTERVAL_MS["1m"]
    assert candles_within("1m", 0, 3 * minute) == (0, 3)
    assert candles_within("1m", 1, 3 * minute) == (minute, 2)
    assert candles_within("1m", 0, 3 * minute + 1) == (0, 4)
    assert candles_within("1m", -minute - 1, 0) == (-minute, 1)
    assert candles_within("1m", 5, 6) == (minute, 0)
    # 1970-01-05 is a Monday; February 1970 has 28 days.
    assert candles_within("1w", 0, 14 * DAY_MS) == (4 * DAY_MS, 2)
    assert candles_within("1M", 1, 59 * DAY_MS + 1) == (31 * DAY_MS, 2)
    with pytest.raises(ConfigError, match="3d"):
        candles_within("3d", 0, 1)
