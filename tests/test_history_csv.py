"""The predecessor's tree: written as it writes, read as it reads, imported with its damage named."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from candleshm import history
from candleshm._core import Zone
from candleshm.errors import DayDamaged, DayNotFound
from candleshm.history.csv_tree import CsvStore, csv_files
from candleshm.history.importing import import_files
from tests.support import days as made_up
from tests.support.commanding import complaint, run
from tests.support.days import MINUTE, NEW_YORK, UTC_ZONE, candles_of, rows_of, without

DATA = Path(__file__).parent / "data" / "candlelite_day.csv"
# The predecessor's days are those of New York.
day_of, store_in = partial(made_up.day_of, zone=NEW_YORK), partial(made_up.store_in, zone=NEW_YORK)


def tree_in(directory: Path) -> CsvStore:
    return CsvStore(directory, "SPOT", "1m", NEW_YORK)


def test_files_lie_where_the_predecessor_looks_for_them(tmp_path: Path) -> None:
    store = tree_in(tmp_path)
    path = store.path("BTCUSDT", day_of("2026-11-03"))
    assert path == tmp_path / "SPOT-AmericaNew_York-1m" / "2026-11" / "2026-11-03" / "BTCUSDT.csv"


def test_what_is_written_is_what_pandas_writes_and_reads(tmp_path: Path) -> None:
    store, day = tree_in(tmp_path), day_of("2026-11-01")
    store.write(candles_of(day))
    path, rows = store.path("BTCUSDT", day), rows_of(day)
    # Not to the bit: before version 3 pandas rounded the last digit of what it read.
    np.testing.assert_allclose(pd.read_csv(path).to_numpy(float), rows, rtol=1e-15)
    written = io.StringIO()
    pd.DataFrame(rows).to_csv(written, index=False)
    assert path.read_text() == written.getvalue()
    assert store.read("BTCUSDT", day).rows.tobytes() == rows.tobytes()
    assert [file[1:] for file in csv_files(tmp_path)] == [("BTCUSDT", day)]


def test_a_file_that_the_predecessor_wrote_is_read(tmp_path: Path) -> None:
    # Written by candlelite 1.0.17, `save_candle_by_date`, see tests/data/README.md.
    store, day = CsvStore(tmp_path, "SPOT", "1h", NEW_YORK), day_of("2026-11-01")
    path = store.path("BTCUSDT", day)
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA.read_bytes())
    candles = store.read("BTCUSDT", day)
    assert candles.is_complete
    assert candles.rows.tobytes() == rows_of(day, "1h").tobytes()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text[:-1], "its last line is cut short"),
        (lambda text: text[: len(text) // 2].rpartition("\n")[0] + "\n", ""),
        (lambda text: text.partition("\n")[2], "its header is not"),
        (lambda text: "", "its header is not"),
        (lambda text: text.replace(",0.0\n", "\n", 1), "line 2 has 11 columns"),
        (lambda text: text.replace(".", "x", 1), "could not convert"),
        (lambda text: text.replace(",0.0\n", ",nan\n", 1), "cannot be true"),
        (lambda text: text + text.splitlines()[-1] + "\n", "not ascending"),
    ],
)
def test_damage_is_found_as_far_as_such_a_file_can_show_it(tmp_path: Path, spoil: object, reason: str) -> None:
    store, day = tree_in(tmp_path), day_of("2026-11-03")
    store.write(candles_of(day))
    path = store.path("BTCUSDT", day)
    path.write_text(spoil(path.read_text()))  # type: ignore[operator]
    if reason:
        with pytest.raises(DayDamaged, match=reason):
            store.read("BTCUSDT", day)
    else:
        assert not store.read("BTCUSDT", day).is_complete


def test_a_day_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DayNotFound):
        tree_in(tmp_path).read("BTCUSDT", day_of("2026-11-03"))


def test_import_takes_what_is_good_and_names_what_is_not(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    days = [day_of(text) for text in ("2026-10-31", "2026-11-01", "2026-11-02")]
    store = tree_in(old)
    store.write(candles_of(days[0]))
    store.write(without(candles_of(days[1]), 100, 160, as_hole=False))
    store.write(candles_of(days[2]))
    path = store.path("BTCUSDT", days[2])
    path.write_text(path.read_text()[:-20])
    CsvStore(old, "UM", "1h", UTC_ZONE, spelled="1H").write(
        candles_of(day_of("2026-11-01", zone=UTC_ZONE), interval="1h", market="UM")
    )
    (old / "SPOT-AmericaNew_York-1m-FILE").mkdir()
    (old / "SPOT-AmericaNew_York-1m-FILE" / "BTCUSDT.csv").write_text("a cache, not a day")

    done = list(import_files(old, new))
    assert [(file.market, str(file.day), file.outcome) for file in done] == [
        ("SPOT", "2026-10-31", "imported"),
        ("SPOT", "2026-11-01", "incomplete"),
        ("SPOT", "2026-11-02", "damaged"),
        ("UM", "2026-11-01", "imported"),
    ]
    assert done[2].path == path
    assert "cut short" in done[2].reason
    assert (
        history.load("SPOT", "BTCUSDT", "2026-10-31", "2026-10-31", timezone=NEW_YORK.name, base_dir=new).tobytes()
        == rows_of(days[0]).tobytes()
    )
    reports = {str(report.day): report for report in history.verify("SPOT", timezone=NEW_YORK.name, base_dir=new)}
    first_ms = days[1].start_ms
    assert reports["2026-11-01"].missing == ((first_ms + 100 * MINUTE, first_ms + 160 * MINUTE),)
    assert store_in(new).read("BTCUSDT", days[0]).source == "csv"
    assert history.days("UM", "BTCUSDT", interval="1h", timezone="UTC", base_dir=new) == [days[1].date]
    assert [file.outcome for file in import_files(old, new)] == ["there", "incomplete", "damaged", "there"]


def test_the_command_ends_with_a_table(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    tree_in(old).write(candles_of(day_of("2026-10-31")))
    tree_in(old).write(candles_of(day_of("2026-11-01"), symbol="ETHUSDT"))
    result = run("import-csv", str(old), "--candle-dir", str(new))
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["MARKET", "INTERVAL", "TIMEZONE", "IMPORTED", "INCOMPLETE", "THERE", "DAMAGED"],
        ["SPOT", "1m", "America/New_York", "2", "0", "0", "0"],
    ]
    path = tree_in(old).path("ETHUSDT", day_of("2026-11-01"))
    path.write_text(path.read_text()[:1000])
    result = run("import-csv", str(old), "--candle-dir", str(new), "--replace")
    assert result.returncode == 1
    assert f"{path}: damaged: its last line is cut short" in result.stdout
    assert result.stderr == f"candleshm: {old}: 1 of 2 files damaged and left out\n"
    # What was there stays.
    assert history.load("SPOT", "ETHUSDT", "2026-11-01", "2026-11-01", timezone=NEW_YORK.name, base_dir=new).shape == (
        1500,
        12,
    )
    assert "holds no files such as" in complaint("import-csv", str(new))
    for wrong, reason in ((tmp_path / "nowhere", "there is no such directory"), (path, "it is no directory")):
        result = run("import-csv", str(wrong), "--candle-dir", str(new))
        assert result.returncode == os.EX_CONFIG
        assert result.stderr == f"candleshm: the directory to import cannot be `{wrong}`: {reason}\n"


@pytest.mark.parametrize(
    "place",
    [
        "SPOT-AmericaNowhere-1m/2026-11/2026-11-03/BTCUSDT.csv",
        "SPOT-AmericaNew_York-1M/2026-11/2026-11-03/BTCUSDT.csv",
        "SPOT-AmericaNew_York-2m/2026-11/2026-11-03/BTCUSDT.csv",
        "SPOT-AmericaNew_York-1m/2026-11/2026-11-03/BTCUSDT.CSV",
        "SPOT-AmericaNew_York-1m/2026-11/2026-11-31/BTCUSDT.csv",
        "SPOT-AmericaNew_York-1m/2026-11-03/BTCUSDT.csv",
        "spot-AmericaNew_York-1m/2026-11/2026-11-03/BTCUSDT.csv",
    ],
)
def test_files_whose_place_says_nothing_are_named_and_cost_the_exit_code(tmp_path: Path, place: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    tree_in(old).write(candles_of(day_of("2026-11-01")))
    path = old / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tree_in(old).path("BTCUSDT", day_of("2026-11-01")).read_bytes())
    (old / "SPOT-AmericaNew_York-1m-FILE").mkdir()
    (old / "SPOT-AmericaNew_York-1m-FILE" / "BTCUSDT.csv").write_text("")
    result = run("import-csv", str(old), "--candle-dir", str(new))
    assert result.returncode == 1
    assert f"{path}: its path does not name market, interval, zone and day\n" in result.stdout
    assert result.stderr == f"candleshm: {old}: 1 file left out because of their paths\n"
    assert history.days("SPOT", "BTCUSDT", timezone=NEW_YORK.name, base_dir=new) == [date(2026, 11, 1)]


@pytest.mark.parametrize(
    "spelled",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",", " , "),
        lambda text: "\n".join(
            ",".join(f'"{value}"' for value in row.split(",")) if row else "" for row in text.split("\n")
        ),
        lambda text: "\n".join([text.split("\n")[0], *text.split("\n")[-2:0:-1], ""]),
        lambda text: text + "\n\r\n",
    ],
    ids=["BOM", "CRLF", "blanks", "quoted", "backwards", "empty lines"],
)
def test_files_that_other_programs_saved_again_are_read(tmp_path: Path, spelled: Callable[[str], str]) -> None:
    store, day = tree_in(tmp_path), day_of("2026-11-03")
    store.write(candles_of(day))
    path = store.path("BTCUSDT", day)
    path.write_bytes(spelled(path.read_text()).encode())
    assert store.read("BTCUSDT", day).rows.tobytes() == rows_of(day).tobytes()


@pytest.mark.parametrize("value", ["1_000.0", "\uff11\uff12.0", "1 2", "0x10", "inf"])
def test_what_only_python_takes_for_a_number_is_damage(tmp_path: Path, value: str) -> None:
    store, day = tree_in(tmp_path), day_of("2026-11-03")
    store.write(candles_of(day))
    path = store.path("BTCUSDT", day)
    lines = path.read_text().split("\n")
    path.write_text(
        "\n".join([lines[0], ",".join([lines[1].split(",")[0], value, *lines[1].split(",")[2:]]), *lines[2:]])
    )
    with pytest.raises(DayDamaged):
        store.read("BTCUSDT", day)


def test_every_zone_is_found_again_by_its_spelling(tmp_path: Path) -> None:
    for name in ("Asia/Shanghai", "America/Argentina/Buenos_Aires", "Etc/GMT-3", "UTC"):
        zone = Zone(name)
        day = day_of("2026-11-03", zone=zone)
        CsvStore(tmp_path / "tree", "CM", "1h", zone).write(candles_of(day, interval="1h", market="CM"))
    assert sorted(file.day.zone.name for file in csv_files(tmp_path / "tree")) == sorted(
        ["Asia/Shanghai", "America/Argentina/Buenos_Aires", "Etc/GMT-3", "UTC"]
    )
    assert np.isfinite(rows_of(day, "1h")).all()
