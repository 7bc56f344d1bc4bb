"""Files of funding rates: those of a year of UTC in one, and which times of it have been fetched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from candleshm.errors import ConfigError, DayDamaged
from candleshm.exchanges.base import Market
from candleshm.exchanges.funding import FundingRate
from candleshm.history.candles import Span, as_spans, joined
from candleshm.history.file_names import funding_file
from candleshm.history.lock import writing
from candleshm.history.parquet import Columns, packed, unpacked
from candleshm.history.plain_file import read_plain
from candleshm.history.store import FILE_BYTES_MAX, checked_market, refusals
from candleshm.system.atomic_file import Directories, replace_file

__all__ = ["FundingFiles", "FundingYear", "uncovered", "year_span"]

FORMAT = 1
COLUMNS = Columns(("time_ms", "rate", "mark_price"), frozenset({0}), "rate_type")


@dataclass(frozen=True)
class FundingYear:
    """What a file holds: the charges of some times of a year, all of those that the exchange has of these times."""

    charges: Sequence[FundingRate] = ()
    """Oldest first."""
    covered: Sequence[Span] = ()
    """Half-open ranges of epoch ms, ascending; they do not touch each other."""

    def joined_with(self, charges: Iterable[FundingRate], covered: Span) -> FundingYear:
        """Return it with the charges of more times; where both have some, the new ones stand."""
        start_ms, end_ms = covered
        kept = [charge for charge in self.charges if not start_ms <= charge.time_ms < end_ms]
        spans: list[Span] = []
        for start, end in sorted([*self.covered, covered]):
            if spans and start <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end))
            else:
                spans.append((start, end))
        return FundingYear(sorted([*kept, *charges], key=lambda charge: charge.time_ms), spans)


class FundingFiles:
    """The funding rates of one market in a directory. Reading needs no lock, writing is for one process at a time."""

    def __init__(self, base_dir: str | os.PathLike[str], market: str) -> None:
        """Name the tree; nothing is read or made. Raises ConfigError."""
        self.market: Market = checked_market(market)
        if self.market == "SPOT":
            raise ConfigError("market cannot be `SPOT` for funding rates; allowed: UM | CM")
        self._base_dir = base_dir
        self._directories = Directories()

    @property
    def tree(self) -> Path:
        """The directory under which all files lie."""
        return self.path("", 1970).parent.parent

    def path(self, symbol: str, year: int) -> Path:
        """Return the file of a year."""
        return funding_file(self._base_dir, self.market, symbol, year)

    def read(self, symbol: str, year: int) -> FundingYear:
        """Read and check a year; an empty one where there is no file. Raises DayDamaged, StoreUnavailable."""
        path = self.path(symbol, year)
        try:
            with refusals(path):
                try:
                    data = read_plain(path, FILE_BYTES_MAX)
                except FileNotFoundError:
                    return FundingYear()
            about, rows, types = unpacked(data, COLUMNS)
            is_of = (about["format"], about["market"], about["symbol"], about["year"])
            if is_of != (FORMAT, self.market, symbol, year):
                raise ValueError(f"it holds {is_of}, its path names another one")
            covered = as_spans(about["covered"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise DayDamaged(str(path), f"damaged: {error}") from None
        charges = [
            FundingRate(int(row[0]), row[1], row[2], kind) for row, kind in zip(rows.tolist(), types, strict=True)
        ]
        return FundingYear(charges, covered)

    def write(self, symbol: str, year: int, content: FundingYear) -> None:
        """Put a year in the place of what is there, wholly or not at all. Raises StoreUnavailable, MissingExtra."""
        path = self.path(symbol, year)
        about = {"format": FORMAT, "market": self.market, "symbol": symbol, "year": year}
        rows = np.array([charge[:3] for charge in content.charges], float).reshape(-1, 3)
        types = [charge.rate_type for charge in content.charges]
        data = packed({**about, "covered": joined(content.covered)}, rows, COLUMNS, types)
        with refusals(path):
            self._directories.prepare(path.parent)
            replace_file(path, data)

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer of this tree. Raises StoreInUse, StoreUnavailable."""
        return writing(self.tree)


def year_span(year: int) -> Span:
    """Return where a year of UTC begins and ends, in epoch ms."""
    start, end = (round(datetime(number, 1, 1, tzinfo=UTC).timestamp() * 1000) for number in (year, year + 1))
    return start, end


def uncovered(covered: Iterable[Span], start_ms: int, end_ms: int) -> list[Span]:
    """Return the parts of a range that are in none of the others, which ascend."""
    found = []
    for start, end in covered:
        if start_ms < min(start, end_ms):
            found.append((start_ms, min(start, end_ms)))
        start_ms = max(start_ms, end)
    if start_ms < end_ms:
        found.append((start_ms, end_ms))
    return found
