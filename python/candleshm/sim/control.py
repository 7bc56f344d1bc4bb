"""The control endpoint under /sim/: faults, changes of the world and counts for tests in other processes.

====== =================== ==============================================================================
GET    /sim/stats          `Stats` as JSON
GET    /sim/faults         the faults in force, each with the number of requests it met
POST   /sim/faults         put one `Fault`, or a list of them, in force
DELETE /sim/faults         end all faults
GET    /sim/stream-faults  the stream faults in force, each with the number of handshakes or events it met
POST   /sim/stream-faults  put one `StreamFault`, or a list of them, in force
DELETE /sim/stream-faults  end all stream faults
GET    /sim/stream-rules   the `StreamRules`
POST   /sim/stream-rules   `StreamRules` for connections and streams opened from now on; what is not named is default
GET    /sim/connections    every `StreamConnection`
POST   /sim/world          a `WorldChange`
====== =================== ==============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec

from candleshm.errors import MissingExtra
from candleshm.sim.faults import Fault, FaultBook
from candleshm.sim.rest.archive import ArchiveFlaw, SimulatedArchive
from candleshm.sim.rest.responses import Response
from candleshm.sim.stats import Stats, StreamConnection
from candleshm.sim.stream.faults import StreamFault
from candleshm.sim.stream.rules import StreamRules
from candleshm.sim.world.events import BlockTrade, Outage, Restatement
from candleshm.sim.world.sessions import OffHours
from candleshm.sim.world.truth import Truth
from candleshm.sim.world.universe import Instrument, Market

PREFIX = "/sim/"


class Controlled(Protocol):
    """What the endpoint controls: the simulated exchange."""

    truth: Truth
    archive: SimulatedArchive
    faults: FaultBook[Fault]
    stream_faults: FaultBook[StreamFault]
    stream_rules: StreamRules
    skew_ms: int

    def now_ms(self) -> int:
        """Return the exchange's time, epoch ms."""

    def stats(self) -> Stats:
        """Return what was requested since the start."""

    def connections(self) -> list[StreamConnection]:
        """Return the newest connections to the stream side."""


@dataclass(frozen=True, kw_only=True)
class Name:
    """A symbol of a market."""

    market: Market
    symbol: str


@dataclass(frozen=True, kw_only=True)
class WorldChange:
    """What is to become different. Applied in the order of the fields; ``delist`` takes effect at once."""

    skew_ms: int | None = None
    enlist: tuple[Instrument, ...] = ()
    delist: tuple[Name, ...] = ()
    remove: tuple[Name, ...] = ()
    outages: tuple[Outage, ...] = ()
    restatements: tuple[Restatement, ...] = ()
    block_trades: tuple[BlockTrade, ...] = ()
    off_hours: OffHours | None = None
    archive_flaws: tuple[ArchiveFlaw, ...] = ()


class Control:
    """Responds to requests under `PREFIX`."""

    def __init__(self, exchange: Controlled) -> None:
        self._exchange = exchange

    def respond(self, method: str, path: str, body: bytes) -> Response:
        """Return the response; a body that cannot be used gets a 400 with the reason."""
        exchange = self._exchange
        try:
            match method, path[len(PREFIX) :]:
                case "GET", "stats":
                    return _json(exchange.stats())
                case "GET", "faults":
                    return _json([{"fault": fault, "met": met} for fault, met in exchange.faults.in_force()])
                case "POST", "faults":
                    decoded = msgspec.json.decode(body, type=Fault | list[Fault])
                    exchange.faults.add(*(decoded if isinstance(decoded, list) else [decoded]))
                case "DELETE", "faults":
                    exchange.faults.clear()
                case "GET", "stream-faults":
                    return _json([{"fault": fault, "met": met} for fault, met in exchange.stream_faults.in_force()])
                case "POST", "stream-faults":
                    met_by_streams = msgspec.json.decode(body, type=StreamFault | list[StreamFault])
                    exchange.stream_faults.add(
                        *(met_by_streams if isinstance(met_by_streams, list) else [met_by_streams])
                    )
                case "DELETE", "stream-faults":
                    exchange.stream_faults.clear()
                case "GET", "stream-rules":
                    return _json(exchange.stream_rules)
                case "POST", "stream-rules":
                    exchange.stream_rules = msgspec.json.decode(body, type=StreamRules)
                case "GET", "connections":
                    return _json(exchange.connections())
                case "POST", "world":
                    self._change(msgspec.json.decode(body, type=WorldChange))
                case _:
                    return _json({"error": f"no such control: `{method} {path}`"}, 404)
        except (msgspec.DecodeError, ValueError) as error:
            return _json({"error": str(error)}, 400)
        except KeyError as error:
            return _json({"error": f"not listed: `{error}`"}, 400)
        except MissingExtra as error:
            return _json({"error": str(error)}, 501)
        return _json({})

    def _change(self, change: WorldChange) -> None:
        exchange, truth = self._exchange, self._exchange.truth
        if change.skew_ms is not None:
            exchange.skew_ms = change.skew_ms
        for instrument in change.enlist:
            truth.enlist(instrument)
        for name in change.delist:
            truth.delist(name.market, name.symbol, exchange.now_ms())
        for name in change.remove:
            truth.remove(name.market, name.symbol)
        for outage in change.outages:
            truth.add_outage(outage)
        for restatement in change.restatements:
            truth.restate(restatement)
        for trade in change.block_trades:
            truth.add_block_trade(trade)
        if change.off_hours is not None:
            truth.off_hours = change.off_hours
        exchange.archive.add(*change.archive_flaws)


def _json(value: object, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(value))
