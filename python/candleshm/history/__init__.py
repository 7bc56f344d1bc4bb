"""Daily files: days of candles that can be trusted and read by any tool. See docs/history.md.

`load` gives arrays as a block does, `scan` a polars frame, `paths` the files for other tools, `days` and `verify` say
what is there and what it is worth. What fetches days stands in `candleshm.history.download`.
"""

from candleshm.history.day import Day, DayLike
from candleshm.history.reading import days, load, paths, scan, verify
from candleshm.history.reports import DayReport

__all__ = ["Day", "DayLike", "DayReport", "days", "load", "paths", "scan", "verify"]
