"""What files of candles are called: daily files, the archive's files, the predecessor's CSV files, caches. Pure.

::

    {base_dir}/market=SPOT/interval=1m/timezone=Asia%2FShanghai/symbol=BTCUSDT/2026-11-23.parquet
    {base_dir}/market=SPOT/interval=1h/timezone=UTC/symbol=BTCUSDT/2026-11.parquet
    {base_dir}/market=UM-mark/interval=1d/timezone=UTC/symbol=BTCUSDT/2026.parquet
    {base_dir}/funding/market=UM/symbol=BTCUSDT/2026.parquet
    {base_dir}/SPOT-AsiaShanghai-1m/2026-11/2026-11-23/BTCUSDT.csv
    {archive}/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-23.zip
    {archive}/data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-10.zip
    {archive}/data/futures/um/daily/markPriceKlines/BTCUSDT/1m/BTCUSDT-1m-2026-11-23.zip
    {cache_dir}/spot-1m-candleshm-spot-1m.cache

The directories of daily files are what Hive-style tools read as columns; values are percent-encoded, as such tools
expect.
"""

from __future__ import annotations

import os
import re
from calendar import isleap, monthrange
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from candleshm.exchanges.base import DAY_MS, INTERVAL_MS, Market, Price
from candleshm.history.day import Day

__all__ = [
    "CSV_SUFFIX",
    "Period",
    "archive_path",
    "archive_zip",
    "cache_file",
    "csv_file",
    "csv_tree",
    "csv_tree_parts",
    "daily_files_pattern",
    "daily_series",
    "daily_symbol",
    "daily_tree",
    "funding_file",
    "market_name",
    "period_days",
    "period_file",
    "period_of",
]

Period = Literal["day", "month", "year"]
"""What one file holds."""

CSV_SUFFIX = ".csv"
_DAILY_SUFFIX = ".parquet"
_ARCHIVE_FOLDERS: Mapping[Market, str] = {"SPOT": "spot", "UM": "futures/um", "CM": "futures/cm"}
_ARCHIVE_KINDS: Mapping[Price, str] = {
    "trade": "klines",
    "mark": "markPriceKlines",
    "index": "indexPriceKlines",
    "premium": "premiumIndexKlines",
}
_LENGTHS: Mapping[Period, int] = {"day": 10, "month": 7, "year": 4}
_MONTHLY_FROM_MS = INTERVAL_MS["15m"]
# Names of symbols and zones that are remembered in their spelling for directories.
NAMES_KEPT = 4096
_CSV_TREE = re.compile(r"(SPOT|UM|CM)-(.+)-(\w+)")


def market_name(market: str, price: Price = "trade") -> str:
    """Return what names a market in paths and tables: `UM`, with a price other than that of trades `UM-mark`."""
    return market if price == "trade" else f"{market}-{price}"


def daily_tree(
    base_dir: str | os.PathLike[str], market: str, interval: str, zone_name: str, price: Price = "trade"
) -> Path:
    """Return the directory of a market's, a price's, an interval's and a zone's files."""
    name = market_name(market, price)
    return Path(base_dir, f"market={name}", f"interval={interval}", f"timezone={_quoted(zone_name)}")


def period_of(interval: str) -> Period:
    """Return what one file of an interval holds: so much that it is not mostly footer, and little enough to rewrite.

    >>> [period_of(interval) for interval in ("1s", "5m", "15m", "12h", "1d")]
    ['day', 'day', 'month', 'month', 'year']
    """
    length_ms = INTERVAL_MS[interval]
    return "day" if length_ms < _MONTHLY_FROM_MS else "month" if length_ms < DAY_MS else "year"


def period_file(tree: Path, symbol: str, day: Day, period: Period) -> Path:
    """Return the file of the period that a day belongs to.

    >>> from candleshm._core import Zone
    >>> period_file(Path(), "BTCUSDT", Day(date(2026, 11, 23), Zone("UTC")), "month").name
    '2026-11.parquet'
    """
    return tree / f"symbol={_quoted(symbol)}" / f"{str(day)[: _LENGTHS[period]]}{_DAILY_SUFFIX}"


def period_days(name: str, period: Period) -> tuple[date, date] | None:
    """Return the first and the last day that a file of a period may hold, by its name; None for other files."""
    text = name.removesuffix(_DAILY_SUFFIX)
    if text == name or len(text) != _LENGTHS[period]:
        return None
    with suppress(ValueError):
        first = date.fromisoformat(text + "-01-01"[len(text) - 4 :])
        days = {"day": 1, "month": monthrange(first.year, first.month)[1], "year": 365 + isleap(first.year)}[period]
        return first, first + timedelta(days=days - 1)
    return None


def funding_file(base_dir: str | os.PathLike[str], market: str, symbol: str, year: int) -> Path:
    """Return the file with the funding rates of a year of UTC.

    They lie beside the directories of the markets, so that tools that read all candles of a market do not meet them.
    """
    return Path(base_dir, "funding", f"market={market}", f"symbol={_quoted(symbol)}", f"{year}{_DAILY_SUFFIX}")


@lru_cache(NAMES_KEPT)
def daily_symbol(name: str) -> str | None:
    """Return the symbol that a directory in a tree of daily files is for; None for other names."""
    return unquote(name.removeprefix("symbol=")) if name.startswith("symbol=") else None


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


def archive_path(
    market: Market, symbol: str, interval: str, first: date, *, is_month: bool, price: Price = "trade"
) -> str:
    """Return where a zip lies below the archive's address, ready for a URL."""
    folder = f"/data/{_ARCHIVE_FOLDERS[market]}/{'monthly' if is_month else 'daily'}/{_ARCHIVE_KINDS[price]}"
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


@lru_cache(NAMES_KEPT)
def _quoted(text: str) -> str:
    return quote(text, safe="")
