"""The exchange's text of candles: JSON rows of twelve columns with decimals as strings."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from candleshm.sim.bars import (
    BUY_QUOTE,
    BUY_VOLUME,
    CLOSE,
    HIGH,
    LOW,
    OPEN,
    OPEN_MS,
    QUOTE,
    TRADES,
    VOLUME,
    Ints,
)
from candleshm.sim.universe import Instrument

_SPOT_DECIMALS = 8


@lru_cache(maxsize=256)
def _layout(market: str, price_decimals: int, lot_decimals: int) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return a row's template and the (bar column, decimals) that fill it, the close time standing apart."""
    price, lots = price_decimals, lot_decimals
    quote = 8 if market == "CM" else price + lots
    padded = _SPOT_DECIMALS if market == "SPOT" else 0

    def number(decimals: int) -> str:
        if decimals == 0:
            return '"%d.' + "0" * padded + '"' if padded else '"%d"'
        return f'"%d.%0{decimals}d' + "0" * (padded - decimals) + '"'

    prices = ",".join([number(price)] * 4)
    template = f'[%d,{prices},{number(lots)},%d,{number(quote)},%d,{number(lots)},{number(quote)},"0"]'
    columns = (
        *((column, price) for column in (OPEN, HIGH, LOW, CLOSE)),
        (VOLUME, lots),
        (QUOTE, quote),
        (TRADES, 0),
        (BUY_VOLUME, lots),
        (BUY_QUOTE, quote),
    )
    return template, columns


def encode(instrument: Instrument, bars: Ints, close_ms: Ints) -> list[str]:
    """Return one JSON array per bar.

    SPOT prints 8 decimals; UM and CM print as many as tick and lot have (CM: whole contracts, 8 decimals of coin).
    """
    template, columns = _layout(instrument.market, instrument.price_decimals, instrument.lot_decimals)
    values: list[list[int]] = [bars[OPEN_MS].tolist()]
    for column, decimals in columns:
        if column == QUOTE:
            values.append(close_ms.tolist())
        if decimals:
            whole, part = np.divmod(bars[column], 10**decimals)
            values += [whole.tolist(), part.tolist()]
        else:
            values.append(bars[column].tolist())
    return [template % row for row in zip(*values, strict=True)]
