"""What files of candles are called: daily files, the archive's files, the predecessor's CSV files, caches. Pure.

::

    {base_dir}/market=SPOT/interval=1m/timezone=Asia%2FShanghai/symbol=BTCUSDT/2026-11-23.parquet
    {base_dir}/SPOT-AsiaShanghai-1m/2026-11/2026-11-23/BTCUSDT.csv
    {archive}/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-23.zip
    {archive}/data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-10.zip
    {cache_dir}/spot-1m-candleshm-spot-1m.cache

The directories of daily files are what Hive-style tools read as columns; values are percent-encoded, as such tools
expect.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from urllib.parse import quote, unquote

from candleshm.exchanges.base import Market
from candleshm.history.day import Day

__all__ = [
    "CSV_SUFFIX",
    "archive_path",
    "archive_zip",
    "cache_file",
    "csv_file",
    "csv_tree",
    "csv_tree_parts",
    "daily_date",
    "daily_file",
    "daily_files_pattern",
    "daily_series",
    "daily_symbol",
    "daily_tree",
]

CSV_SUFFIX = ".csv"
_DAILY_SUFFIX = ".parquet"
_ARCHIVE_FOLDERS: Mapping[Market, str] = {"SPOT": "spot", "UM": "futures/um", "CM": "futures/cm"}
_CSV_TREE = re.compile(r"(SPOT|UM|CM)-(.+)-(\w+)")


def daily_tree(base_dir: str | os.PathLike[str], market: str, interval: str, zone_name: str) -> Path:
    """Return the directory of a market's, an interval's and a zone's daily files."""
    return Path(base_dir, f"market={market}", f"interval={interval}", f"timezone={_quoted(zone_name)}")


def daily_file(tree: Path, symbol: str, day: Day) -> Path:
    """Return the daily file of a symbol.

    >>> from candleshm._core import Zone
    >>> daily_file(daily_tree("candles", "SPOT", "1m", "UTC"), "BTCUSDT", Day(date(2026, 11, 23), Zone("UTC")))
    PosixPath('candles/market=SPOT/interval=1m/timezone=UTC/symbol=BTCUSDT/2026-11-23.parquet')
    """
    return tree / f"symbol={_quoted(symbol)}" / f"{day}{_DAILY_SUFFIX}"


def daily_symbol(name: str) -> str | None:
    """Return the symbol that a directory in a tree of daily files is for; None for other names."""
    return unquote(name.removeprefix("symbol=")) if name.startswith("symbol=") else None


def daily_date(name: str) -> date | None:
    """Return the day that a name in a symbol's directory is for; None for other files."""
    if name.endswith(_DAILY_SUFFIX) and not name.startswith("."):
        with suppress(ValueError):
            return date.fromisoformat(name.removesuffix(_DAILY_SUFFIX))
    return None


def daily_files_pattern(symbol: str | None) -> str:
    """Return the pattern of all daily files of a symbol, or of all, below the directory of their market."""
    return f"interval=*/timezone=*/symbol={'*' if symbol is None else _quoted(symbol)}/*{_DAILY_SUFFIX}"


def daily_series(path: Path) -> str:
    """Return interval and zone of a daily file, by its directories: `interval=1m timezone=UTC`."""
    interval, zone = path.parts[-4:-2]
    return f"{interval} {unquote(zone)}"


def archive_zip(symbol: str, interval: str, first: date, *, is_month: bool) -> str:
    """Return the name of a zip in the exchange's archive; it does not contain the market.

    >>> archive_zip("BTCUSDT", "1m", date(2026, 10, 1), is_month=True)
    'BTCUSDT-1m-2026-10.zip'
    """
    return f"{symbol}-{_archive_interval(interval)}-{first:{'%Y-%m' if is_month else '%Y-%m-%d'}}.zip"


def archive_path(market: Market, symbol: str, interval: str, first: date, *, is_month: bool) -> str:
    """Return where a zip lies below the archive's address, ready for a URL."""
    folder = f"/data/{_ARCHIVE_FOLDERS[market]}/{'monthly' if is_month else 'daily'}/klines"
    name = archive_zip(symbol, interval, first, is_month=is_month)
    return quote(f"{folder}/{symbol}/{_archive_interval(interval)}/{name}")


def csv_tree(base_dir: str | os.PathLike[str], market: str, zone_name: str, interval: str) -> Path:
    """Return the directory of a market, a zone and an interval in the predecessor's tree."""
    return Path(base_dir) / f"{market}-{zone_name.replace('/', '')}-{interval}"


def csv_tree_parts(name: str) -> tuple[str, str, str] | None:
    """Return market, zone (without its slashes) and interval of such a directory; None for other names."""
    found = _CSV_TREE.fullmatch(name)
    return None if found is None else (found[1], found[2], found[3])


def csv_file(tree: Path, symbol: str, day: Day) -> Path:
    """Return the predecessor's file of a day."""
    return tree / f"{day}"[:7] / f"{day}" / f"{symbol}{CSV_SUFFIX}"


def cache_file(
    directory: str | os.PathLike[str], market: str, interval: str, block_name: str, price: str = "trade"
) -> Path:
    """Return the cache of a block; of one with other prices than those of trades the name has `-{price}` in it.

    >>> cache_file("caches", "SPOT", "1d@Asia/Shanghai", "days")
    PosixPath('caches/spot-1d-Asia-Shanghai-days.cache')
    """
    of_price = "" if price == "trade" else f"-{price}"
    spelled = interval.replace("/", "-").replace("@", "-")
    return Path(directory) / f"{market.lower()}{of_price}-{spelled}-{block_name}.cache"


def _archive_interval(interval: str) -> str:
    # The exchange's name for a month is 1M, which a file system may not tell from a minute's.
    return "1mo" if interval == "1M" else interval


def _quoted(text: str) -> str:
    return quote(text, safe="")
