"""`candleshm.derive` against candles that the exchange itself sent for the bigger interval."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest

import candleshm
from candleshm import _core
from candleshm.columns import CLOSE, OPEN_TIME_MS, QUOTE_VOLUME, TAKER_BUY_QUOTE_VOLUME, TRADES, VOLUME
from candleshm.errors import ConfigError
from candleshm.exchanges.base import INTERVAL_MS, candle_end_ms

DATA = Path(__file__).parent / "data" / "derivation"
MINUTE = 60_000
Rows = npt.NDArray[np.float64]


def captured(file: str) -> dict[str, Rows]:
    """Return the rows of each interval as Python's own parsers read them, the column to be ignored as 0."""
    intervals: dict[str, list[list[Any]]] = json.loads((DATA / f"{file}.json").read_text())
    arrays = {name: np.array([[float(value) for value in row] for row in rows]) for name, rows in intervals.items()}
    return {name: array * (np.arange(12) < 11) for name, array in arrays.items() if array.shape[1] == 12}


def pairs() -> list[tuple[str, str, str]]:
    found = []
    for file in sorted(path.stem for path in DATA.glob("BTCUSDT*.json")):
        for small, big in permutations(captured(file), 2):
            if small != "1w" and INTERVAL_MS[small] < INTERVAL_MS[big] and INTERVAL_MS[big] % INTERVAL_MS[small] == 0:
                found.append((file, small, big))
    return found


def assert_same_candles(derived: Rows, sent: Rows) -> None:
    """All columns are the same bits, but for quote volumes: those are within 2 units in the last place."""
    assert derived.shape == sent.shape
    for column in range(12):
        if column in (QUOTE_VOLUME, TAKER_BUY_QUOTE_VOLUME):
            np.testing.assert_array_max_ulp(derived[:, column], sent[:, column], maxulp=2)
        else:
            np.testing.assert_array_equal(derived[:, column].view(np.uint64), sent[:, column].view(np.uint64))


@pytest.mark.parametrize(("file", "small", "big"), pairs())
def test_captured_candles_are_derived_bit_for_bit(file: str, small: str, big: str) -> None:
    intervals = captured(file)
    rows, sent = intervals[small], intervals[big]
    # What is absent between the first row and the last the exchange does not have.
    end_ms = candle_end_ms(small, int(rows[-1, OPEN_TIME_MS]) // INTERVAL_MS[small] * INTERVAL_MS[small])
    ends_ms = np.array([candle_end_ms(big, int(open_ms)) for open_ms in sent[:, OPEN_TIME_MS]])
    whole = (sent[:, OPEN_TIME_MS] >= rows[0, OPEN_TIME_MS]) & (ends_ms <= end_ms)
    assert whole.any()
    derived = candleshm.derive(rows, big, source=small, end_ms=end_ms)
    assert_same_candles(derived, sent[whole])


def test_the_pairs_are_there() -> None:
    assert len(pairs()) > 60


def test_minutes_without_a_trade_give_no_open_high_or_low() -> None:
    intervals = json.loads((DATA / "ALGOBTC_2023-04-22T12.json").read_text())
    rows = np.zeros((len(intervals["1m"]), 12))
    rows[:, : VOLUME + 1] = intervals["1m"]
    rows[:, TRADES] = rows[:, VOLUME] > 0
    rows[:, 6] = rows[:, OPEN_TIME_MS] + MINUTE - 1
    derived = candleshm.derive(rows, "5m")
    np.testing.assert_array_equal(derived[:, : VOLUME + 1], np.array(intervals["5m"]))
    naive = rows[::5, 1]
    assert (naive != derived[:, 1]).sum() > 10, "the first row's open would have been wrong"


def minutes(count: int, start_ms: int = 0, seed: int = 1) -> Rows:
    random = Random(seed)
    rows = np.zeros((count, 12))
    for number in range(count):
        open_ms = start_ms + number * MINUTE
        prices = [round(random.uniform(0.5, 2), 5) for _ in range(2)]
        traded = random.random() < 0.7
        volume = round(random.uniform(0, 3e6), random.choice([0, 2, 5, 8])) if traded else 0.0
        row = [open_ms, prices[0], max(prices), min(prices), prices[1], volume, open_ms + MINUTE - 1]
        rows[number] = [*row, round(volume * prices[1], 8), random.randrange(1, 99) if traded else 0, volume / 2, 0, 0]
    return rows


def test_volumes_add_up_as_decimals_do() -> None:
    rows = minutes(1440)
    derived = candleshm.derive(rows, "1d")
    assert derived[0, VOLUME] == float(sum(Decimal(repr(float(volume))) for volume in rows[:, VOLUME]))
    assert derived[0, VOLUME] != np.cumsum(rows[:, VOLUME])[-1], "adding the doubles gives another number"


def test_the_same_rows_live_and_in_a_backtest_agree_bit_for_bit(block_name: str) -> None:
    start_ms = 1_741_478_400_000  # 2025-03-09: New York's clocks go forward, its day has 23 hours.
    rows = minutes(3000, start_ms)
    absent = np.isin(np.arange(3000), [*range(700, 740), 1900])
    texts = [[int(row[0]), *(repr(float(value)) for value in row[1:6]), int(row[6]), repr(float(row[7])), int(row[8]),
              *(repr(float(value)) for value in row[9:11]), "0"] for row in rows]  # fmt: skip
    intervals = ["3m", "5m", "1h", "4h", "1d", "1d@America/New_York"]
    writer = _core.Writer.open(
        block_name,
        market="SPOT",
        interval="1m",
        length=3000,
        symbols=["X"],
        derive=[(f"{block_name}-{number}", interval, 3000) for number, interval in enumerate(intervals)],
    )
    try:
        now_ms = start_ms + 3000 * MINUTE + 5000
        for _ in range(2):  # twice: what is absent is confirmed
            pages = list(range(0, 3000, 250))
            Random(3).shuffle(pages)
            for page in pages:
                body = json.dumps(
                    [text for text, gone in zip(texts, absent, strict=True) if not gone][page : page + 300]
                )
                first_ms = json.loads(body)[0][0] if json.loads(body) else start_ms
                writer.ingest("X", body.encode(), sent_ms=now_ms, received_ms=now_ms, settle_ms=1000, limit=300,
                              start_ms=first_ms)  # fmt: skip
            now_ms += 2000
        with candleshm.attach(block_name) as source:
            known = source["X"].candles(closed_only=True)
            np.testing.assert_array_equal(known, rows[~absent])
        for number, interval in enumerate(intervals):
            backtest = candleshm.derive(known, interval, start_ms=start_ms, end_ms=start_ms + 3000 * MINUTE)
            with candleshm.attach(f"{block_name}-{number}") as feed:
                assert feed.interval == interval
                live = feed["X"].candles(closed_only=True)
            assert len(backtest) > 0
            np.testing.assert_array_equal(live.view(np.uint64), backtest.view(np.uint64))
    finally:
        writer.close()


def test_edges_that_are_not_known_are_left_out() -> None:
    rows = minutes(14, 3 * MINUTE)
    assert (candleshm.derive(rows, "5m")[:, OPEN_TIME_MS] == [5 * MINUTE, 10 * MINUTE]).all()
    from_the_first = candleshm.derive(rows, "5m", start_ms=0)
    assert (from_the_first[:, OPEN_TIME_MS] == [0, 5 * MINUTE, 10 * MINUTE]).all()
    assert len(candleshm.derive(rows[:0], "5m")) == 0


def test_rows_of_nan_count_as_none() -> None:
    rows = minutes(10)
    gapped = rows.copy()
    gapped[3:7, 1:] = np.nan
    np.testing.assert_array_equal(
        candleshm.derive(gapped, "5m"), candleshm.derive(np.delete(rows, range(3, 7), 0), "5m")
    )


def test_any_order_of_memory() -> None:
    rows = minutes(60)
    np.testing.assert_array_equal(candleshm.derive(np.asfortranarray(rows), "1h"), candleshm.derive(rows, "1h"))


def test_3d_candles_open_on_the_days_of_the_symbol() -> None:
    day_ms = INTERVAL_MS["1d"]
    days = np.array(
        [[number * day_ms, 1, 1, 1, 1, 1, (number + 1) * day_ms - 1, 1, 1, 1, 1, 0.0] for number in range(9)]
    )
    opens = candleshm.derive(days, "3d", source="1d", first_open_ms=4 * day_ms + 5)[:, OPEN_TIME_MS] / day_ms
    assert opens.tolist() == [1, 4]


def every(interval: str, count: int, start_ms: int = 0) -> Rows:
    """Return candles of an interval with a trade each, prices counting up."""
    step_ms = INTERVAL_MS[interval]
    opens_ms = start_ms + step_ms * np.arange(count, dtype=float)
    rows = np.ones((count, 12))
    rows[:, OPEN_TIME_MS], rows[:, 6], rows[:, CLOSE] = opens_ms, opens_ms + step_ms - 1, np.arange(count)
    return rows


@pytest.mark.parametrize(
    ("small", "big"),
    [("1s", "1m"), ("1m", "1h"), ("5m", "1h"), ("1h", "1d"), ("12h", "1d"), ("1d", "1w"), ("1d", "1M")],
)
def test_the_interval_is_read_off_the_rows(small: str, big: str) -> None:
    rows = every(small, 62 * INTERVAL_MS[big] // INTERVAL_MS[small] // (31 if big == "1M" else 1))
    derived = candleshm.derive(rows, big)
    assert len(derived) > 0
    np.testing.assert_array_equal(derived, candleshm.derive(rows, big, source=small))
    # Without some of its rows it is the same interval, and so it is with any one row.
    assert len(candleshm.derive(rows[[0, 3, 4, 9]], big, start_ms=0, end_ms=int(rows[-1, 6]) + 1)) > 0
    if big != "1M":
        one = candleshm.derive(rows[7:8], big, start_ms=0, end_ms=int(rows[-1, 6]) + 1)
        assert one[:, CLOSE].tolist() == [7]


def test_rows_around_an_outage_are_of_their_interval() -> None:
    rows = every("1h", 48)
    rows[7, 6] = rows[7, OPEN_TIME_MS] + 1_234_567  # cut short
    rows[30, OPEN_TIME_MS] += 2_345_678  # opened late
    assert len(candleshm.derive(rows, "1d")) == 2
    assert len(candleshm.derive(rows[[7, 30]], "1d", source="1h", start_ms=0, end_ms=2 * INTERVAL_MS["1d"])) == 2
    with pytest.raises(
        ConfigError, match=r"the rows do not show it: the longest candle lasts `1254322` ms.* pass source"
    ):
        candleshm.derive(rows[[7, 30]], "1d")


@pytest.mark.parametrize(
    ("rows", "source", "text"),
    [
        (every("1h", 48), "1m", "source cannot be `1m`: the rows are candles of 1h"),
        (every("1h", 1), "1m", "source cannot be `1m`: the rows are candles of 1h"),
        (every("1m", 48), "1h", "source cannot be `1h`: the rows are candles of 1m"),
        (every("1m", 1), "1h", "source cannot be `1h`: the rows are candles of 1m"),
        (np.concatenate([every("1m", 60), every("1h", 3, 3_600_000)]), None, "is not a candle of 1h"),
        (every("1d", 9, 16 * 3_600_000), None, "days of a time zone cannot be a source"),
        (
            every("1h", 48, 30 * 60_000),
            None,
            "1h cannot open at 1970-01-01 00:30:00 UTC; days of a time zone",
        ),
        (every("1w", 9, 4 * 86_400_000), None, "1w candles cannot be combined"),
        (every("1m", 9) * [1000, 1, 1, 1, 1, 1, 1000, 1, 1, 1, 1, 1], None, "the rows do not show it"),
        (every("1m", 9) / [1000, 1, 1, 1, 1, 1, 1000, 1, 1, 1, 1, 1], None, "the rows do not show it"),
        (every("1m", 9) * [1000, 1, 1, 1, 1, 1, 1000, 1, 1, 1, 1, 1], "1m", "longer than that"),
        (every("1m", 9), "1M", "1M candles cannot be combined"),
    ],
)
def test_rows_of_another_interval_are_refused(rows: Rows, source: str | None, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        candleshm.derive(rows, "1d", source=source)


@pytest.mark.parametrize("name", ["start_ms", "end_ms"])
@pytest.mark.parametrize(("moment", "unit"), [(1_741_478_400, "seconds"), (1_741_478_400_000_000, "microseconds")])
def test_a_range_in_another_unit_is_refused(name: str, moment: int, unit: str) -> None:
    rows = every("1m", 60, 1_741_478_400_000)
    with pytest.raises(ConfigError, match=f"`{moment}` looks like {unit}"):
        candleshm.derive(rows, "5m", **{name: moment})  # type: ignore[arg-type]


def test_a_candle_that_is_running_is_left_out() -> None:
    # In a process of its own: what other tests have read as final counts as the clock, and may be hours ahead.
    code = "from tests.test_derivation import derive_a_running_candle; derive_a_running_candle()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def derive_a_running_candle() -> None:
    now_ms = int(time.time() * 1000)
    hour_ms = INTERVAL_MS["1h"]
    # The last row runs until an hour is full, so that nothing but the clock tells that it is not final.
    opens_ms = now_ms - now_ms % hour_ms - np.arange(119, -1, -1) * hour_ms
    rows = every("1h", 120)
    rows[:, OPEN_TIME_MS], rows[:, 6] = opens_ms, opens_ms + hour_ms - 1
    zone = f"1d@{zone_whose_day_ends(now_ms - now_ms % hour_ms + hour_ms)}"
    final = candleshm.derive(rows[:-1], zone)
    assert len(final) >= 3
    np.testing.assert_array_equal(candleshm.derive(rows, zone), final)
    np.testing.assert_array_equal(candleshm.derive(rows, zone, end_ms=now_ms + 3 * hour_ms), final)
    # Rows of days to come are somebody's own, whatever the clock says.
    assert len(candleshm.derive(every("1m", 60, 4_102_444_800_000), "1h")) == 1


def zone_whose_day_ends(moment_ms: int) -> str:
    hour = moment_ms // INTERVAL_MS["1h"] % 24
    return f"Etc/GMT{hour:+d}" if hour <= 12 else f"Etc/GMT{hour - 24:+d}"


def test_a_live_row_is_left_out_and_a_final_one_is_not_though_the_clock_is_behind(block_name: str) -> None:
    # In a process of its own: what other tests have read as final says how late it is at the exchange.
    code = f"from tests.test_derivation import derive_beside_a_live_row; derive_beside_a_live_row({block_name!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def derive_beside_a_live_row(block_name: str) -> None:
    # The clock stands still within the live candle, as one that is behind does.
    start_ms = int(time.time()) // 300 * 300_000 - 86_400_000
    texts = [[int(row[0]), *map(str, row[1:6]), int(row[6]), str(row[7]), int(row[8]), "1", "1", "0"]
             for row in every("1m", 11, start_ms)]  # fmt: skip
    writer = _core.Writer.open(block_name, market="SPOT", interval="1m", length=20, symbols=["X"])
    try:
        now_ms = start_ms + 9 * MINUTE + 30_000
        writer.ingest("X", json.dumps(texts[:10]).encode(), sent_ms=now_ms, received_ms=now_ms, settle_ms=0, limit=99)
        behind = mock.patch("candleshm.reader.derivation.time.time", return_value=start_ms / 1000 + 9 * 60 + 30)
        with behind, candleshm.attach(block_name) as feed:
            series = feed["X"]
            assert candleshm.derive(series.candles(), "5m")[:, CLOSE].tolist() == [4]
            now_ms += 30_000
            writer.ingest("X", json.dumps(texts).encode(), sent_ms=now_ms, received_ms=now_ms, settle_ms=0, limit=99)
            assert candleshm.derive(series.candles(closed_only=True), "5m")[:, CLOSE].tolist() == [4, 9]
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"interval": "7m"}, "interval must be one of .* `7m`"),
        ({"interval": "1d@Mars/Olympus"}, "`1d@Mars/Olympus`"),
        ({"interval": "1m"}, "1m candles cannot be combined .* `1m`"),
        ({"interval": "1d@Asia/Kolkata", "source": "1h"}, "1h candles cannot be combined .* `1d@Asia/Kolkata`"),
        ({"interval": "3d"}, "3d candles need first_open_ms"),
        ({"rows": np.zeros((3, 11))}, r"`\(3, 11\)`"),
        ({"rows": minutes(4)[::-1]}, "does not open after the one before it: `1`"),
    ],
)
def test_what_cannot_be_derived(change: dict[str, Any], text: str) -> None:
    asked: dict[str, Any] = {"rows": minutes(10), "interval": "5m"}
    with pytest.raises(ConfigError, match=text):
        candleshm.derive(**(asked | change))


def test_closes_are_the_last_rows() -> None:
    rows = minutes(120)
    np.testing.assert_array_equal(candleshm.derive(rows, "1h")[:, CLOSE], rows[59::60, CLOSE])
