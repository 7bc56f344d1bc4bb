"""Daily files: days of candles that can be trusted and read by any tool. See docs/history.md.

`load` returns arrays as a block does, `panel` one field of many symbols, `scan` a polars frame, `paths` the files for
other tools; `days` lists what is stored, and `verify` checks it; `funding` returns funding rates.
`candleshm.history.downloader` fetches days.
"""

from candleshm.history.day import Day, DayLike
from candleshm.history.funding_rates import funding
from candleshm.history.reading import days, load, panel, paths, scan, verify
from candleshm.history.reports import DayReport

__all__ = ["Day", "DayLike", "DayReport", "days", "funding", "load", "panel", "paths", "scan", "verify"]
