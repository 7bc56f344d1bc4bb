"""`from candleshm.server import Collector`: the import of programs written before `candleshm.Collector`."""

from candleshm.collector.collector import Collector

__all__ = ["Collector"]
