"""Funding of perpetual contracts: when it is charged, and a rate that follows from the premium index."""

from __future__ import annotations

from dataclasses import dataclass

from candleshm.sim.world.grid import HOUR_MS, MINUTE_MS
from candleshm.sim.world.series import PriceSeries
from candleshm.sim.world.tape import hash_key
from candleshm.sim.world.universe import QUARTERS, Instrument

# In 1e-8: the interest of 8 hours, and how far the rate may be from the premium because of it.
_INTEREST = 10_000
_BAND = 50_000
# A charge carries the time at which it was made, up to so many ms after the full hour.
_LATE_MS = 8


@dataclass(frozen=True)
class Funding:
    """One charge: exchange time, rate and mark price, both in 1e-8."""

    symbol: str
    time_ms: int
    rate: int
    mark: int


def interval_hours(instrument: Instrument) -> int:
    """Return how many hours lie between two charges: 8, for some symbols 4, 0 for contracts without funding."""
    if instrument.market == "SPOT" or instrument.contract_type in {"", *QUARTERS}:
        return 0
    is_often = instrument.activity < 60 and hash_key(f"{instrument.market}/{instrument.symbol}/funding") % 4 == 0
    return 4 if is_often else 8


def fundings(seed: int, instrument: Instrument, start_ms: int, end_ms: int) -> list[Funding]:
    """Return the charges of [start_ms, end_ms], oldest first."""
    step_ms = interval_hours(instrument) * HOUR_MS
    if not step_ms:
        return []
    first_ms = max(start_ms - _LATE_MS, instrument.listed_ms)
    last_ms = end_ms if instrument.delisted_ms is None else min(end_ms, instrument.delisted_ms)
    series = PriceSeries.of(instrument, "mark")
    basket = series.basket(seed)
    charges = []
    for slot_ms in range(-(-first_ms // step_ms) * step_ms, last_ms + 1, step_ms):
        time_ms = slot_ms + hash_key(f"{seed}/{instrument.symbol}/funding/{slot_ms}") % _LATE_MS
        if start_ms <= time_ms <= end_ms:
            minute = slot_ms // MINUTE_MS
            premium = round(float(basket.premium(minute - 1, 1, series.worth).mean()))
            rate = premium + min(max(_INTEREST - premium, -_BAND), _BAND)
            mark = int(basket.mark(minute, 1, series.worth)[0])
            charges.append(Funding(instrument.symbol, time_ms, rate, mark))
    return charges
