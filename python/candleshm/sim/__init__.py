"""The simulated exchange: Binance's market data of SPOT, UM and CM by REST and by stream, with faults on request."""

from candleshm.sim.control import Name, WorldChange
from candleshm.sim.exchange import SimulatedExchange, run
from candleshm.sim.faults import Fault, FaultBook, banned, cutover, html, rate_limited, refused
from candleshm.sim.rest.archive import ArchiveFlaw
from candleshm.sim.stats import PoolStats, Pushed, RequestCount, Served, Stats, StreamConnection
from candleshm.sim.stream.faults import StreamFault
from candleshm.sim.stream.recording import RecordedFrame, Recording
from candleshm.sim.stream.rules import StreamRules
from candleshm.sim.world.events import KNOWN_OUTAGES, BlockTrade, Outage, Restatement
from candleshm.sim.world.truth import Truth
from candleshm.sim.world.universe import Instrument, Market, Price, default_universe

__all__ = [
    "KNOWN_OUTAGES",
    "ArchiveFlaw",
    "BlockTrade",
    "Fault",
    "FaultBook",
    "Instrument",
    "Market",
    "Name",
    "Outage",
    "PoolStats",
    "Price",
    "Pushed",
    "RecordedFrame",
    "Recording",
    "RequestCount",
    "Restatement",
    "Served",
    "SimulatedExchange",
    "Stats",
    "StreamConnection",
    "StreamFault",
    "StreamRules",
    "Truth",
    "WorldChange",
    "banned",
    "cutover",
    "default_universe",
    "html",
    "rate_limited",
    "refused",
    "run",
]
