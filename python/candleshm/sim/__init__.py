"""The simulated exchange: Binance's REST market data for SPOT, UM and CM, deterministic, with faults to order."""

from candleshm.sim.archive import ArchiveFlaw
from candleshm.sim.control import Name, WorldChange
from candleshm.sim.events import KNOWN_OUTAGES, Outage, Restatement
from candleshm.sim.exchange import SimulatedExchange, run
from candleshm.sim.faults import Fault, FaultBook, banned, html, rate_limited, refused
from candleshm.sim.stats import PoolStats, RequestCount, Served, Stats
from candleshm.sim.truth import Truth
from candleshm.sim.universe import Instrument, Market, default_universe

__all__ = [
    "KNOWN_OUTAGES",
    "ArchiveFlaw",
    "Fault",
    "FaultBook",
    "Instrument",
    "Market",
    "Name",
    "Outage",
    "PoolStats",
    "RequestCount",
    "Restatement",
    "Served",
    "SimulatedExchange",
    "Stats",
    "Truth",
    "WorldChange",
    "banned",
    "default_universe",
    "html",
    "rate_limited",
    "refused",
    "run",
]
