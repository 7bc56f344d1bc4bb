"""Series that no listed symbol has: mark price, index and premium index of futures, and continuous contracts.

Each is an `Instrument` of its own, so that the same rules make its candles: grids, outages, what REST shows when.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from candleshm.sim.world.samples import Basket
from candleshm.sim.world.tape import hash_key
from candleshm.sim.world.universe import QUARTERS, Instrument, Price


def _fields(instrument: Instrument) -> dict[str, object]:
    return {name: getattr(instrument, name) for name in Instrument.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class PriceSeries(Instrument):
    """The mark price or premium index of a contract, or the index of a pair, whose name is then its ``symbol``."""

    shows: Price = "mark"

    @classmethod
    def of(cls, instrument: Instrument, kind: Price) -> PriceSeries:
        """Return a contract's series; the index is that of its pair, and begins and ends with the contract."""
        names = {"symbol": instrument.pair} if kind == "index" else {}
        return cls(**{**_fields(instrument), **names}, shows=kind)  # type: ignore[arg-type]

    @property
    def kind(self) -> Price:
        """Return what the candles are of."""
        return self.shows

    @property
    def flat_after_end(self) -> bool:
        """Return False: nothing is sampled any more."""
        return False

    @property
    def worth(self) -> float:
        """Return what the contract is worth, in indexes."""
        return self.price / self.index_price if self.index_price else 1.0

    def basket(self, seed: int) -> Basket:
        """Return the index."""
        return Basket.of(self.voice(seed), self.index_price or self.price, hash_key(f"{seed}/index/{self.pair}"))


@dataclass(frozen=True, kw_only=True)
class Part:
    """The time in which a continuous contract stands for a contract."""

    start_ms: int
    end_ms: int
    contract: Instrument


@dataclass(frozen=True, kw_only=True)
class ContinuousSeries(Instrument):
    """A continuous contract, the contracts of a pair one after the other. Its symbol is ``BTCUSDT:CURRENT_QUARTER``."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, contracts: Iterable[Instrument], contract_type: str) -> ContinuousSeries:
        """Return the series that a pair's contracts make. Raises KeyError when it has none of the type."""
        if contract_type not in QUARTERS:
            same = next((item for item in contracts if item.contract_type == contract_type), None)
            if same is None:
                raise KeyError(contract_type)
            ended_ms = same.delivery_ms if same.delisted_ms is None or same.flat_after_end else same.delisted_ms
            parts = [Part(start_ms=same.listed_ms, end_ms=ended_ms, contract=same)]
        else:
            parts = _quarters(contracts, contract_type)
        if not parts:
            raise KeyError(contract_type)
        first = parts[0].contract
        own = {
            "symbol": f"{first.pair}:{contract_type}",
            "contract_type": contract_type,
            "listed_ms": parts[0].start_ms,
            "delisted_ms": None,
        }
        return cls(**{**_fields(first), **own}, parts=tuple(parts))  # type: ignore[arg-type]

    def name_at(self, time_ms: int) -> str:
        """Return the contract that it stands for at a time, its own name when there is none."""
        parts = (part.contract.symbol for part in self.parts if part.start_ms <= time_ms < part.end_ms)
        return next(parts, self.symbol)


def _quarters(contracts: Iterable[Instrument], contract_type: str) -> list[Part]:
    """Return the parts of the quarter that is delivered next, or of the one after it."""
    dated = sorted((item for item in contracts if item.contract_type in QUARTERS), key=lambda item: item.delivery_ms)
    ahead = QUARTERS.index(contract_type)
    parts = []
    for before, contract in enumerate(dated):
        start_ms, end_ms = contract.listed_ms, contract.delivery_ms
        if before > ahead:
            start_ms = max(start_ms, dated[before - ahead - 1].delivery_ms)
        if ahead:
            if before < ahead:
                continue
            end_ms = dated[before - ahead].delivery_ms
        if start_ms < end_ms:
            parts.append(Part(start_ms=start_ms, end_ms=end_ms, contract=contract))
    return parts


def as_of(contracts: list[Instrument], now_ms: int) -> list[Instrument]:
    """Return contracts of one pair as they are listed at ``now_ms``: what each quarter is called then, and its status.

    A contract is listed when the one two quarters before it is delivered, and for an hour after its own delivery.
    """
    dated = sorted((item for item in contracts if item.contract_type in QUARTERS), key=lambda item: item.delivery_ms)
    waiting = [item for item in dated if now_ms < item.delivery_ms]
    names = dict(zip((item.symbol for item in waiting), QUARTERS, strict=False))
    listed = []
    for item in contracts:
        if item.contract_type not in QUARTERS:
            listed.append(item)
        elif item.symbol in names and item.listed_ms <= now_ms:
            listed.append(replace(item, contract_type=names[item.symbol]))
        elif item.delivery_ms <= now_ms < item.delivery_ms + _DELIVERING_MS:
            listed.append(replace(item, contract_type=f"{QUARTERS[0]} DELIVERING", status="DELIVERING"))
    return listed


_DELIVERING_MS = 3_600_000
