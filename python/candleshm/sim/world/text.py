"""The exchange's text of candles: JSON rows of twelve columns, or events, with decimals as strings."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from candleshm.sim.world.candles import (
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
from candleshm.sim.world.grid import MINUTE_MS
from candleshm.sim.world.samples import SAMPLES
from candleshm.sim.world.series import ContinuousSeries
from candleshm.sim.world.universe import Instrument

_SPOT_DECIMALS = 8
_UPDATES_PER_TRADE = 30_011


def _number(decimals: int, market: str) -> str:
    """Return the template of a decimal in quotes; SPOT pads it to 8 digits."""
    padded = _SPOT_DECIMALS if market == "SPOT" else 0
    if decimals == 0:
        return '"%d.' + "0" * padded + '"' if padded else '"%d"'
    return f'"%d.%0{decimals}d' + "0" * (padded - decimals) + '"'


def decimal(value: int, decimals: int, market: str) -> str:
    """Return ``value`` counted in ``10 ** -decimals`` as decimal text; SPOT pads it to 8 digits."""
    whole, part = divmod(abs(value), 10**decimals)
    text = f"{whole}.{part:0{decimals}d}" if decimals else str(whole)
    if market == "SPOT":
        text = f"{text if decimals else text + '.'}{'0' * (_SPOT_DECIMALS - decimals)}"
    return f"-{text}" if value < 0 else text


def _digits(candles: Ints, columns: tuple[tuple[int, int], ...]) -> list[list[Any]]:
    """Return what fills the templates of (candle column, decimals): whole and part, or an integer."""
    values: list[list[Any]] = []
    for column, decimals in columns:
        if decimals:
            whole, part = np.divmod(candles[column], 10**decimals)
            values += [whole.tolist(), part.tolist()]
        else:
            values.append(candles[column].tolist())
    return values


@lru_cache(maxsize=256)
def _layout(market: str, price_decimals: int, lot_decimals: int) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return a row's template and the (candle column, decimals) that fill it, the close time standing apart."""
    price, lots = price_decimals, lot_decimals
    quote = 8 if market == "CM" else price + lots
    prices = ",".join([_number(price, market)] * 4)
    volume, turnover = _number(lots, market), _number(quote, market)
    template = f'[%d,{prices},{volume},%d,{turnover},%d,{volume},{turnover},"0"]'
    columns = (
        *((column, price) for column in (OPEN, HIGH, LOW, CLOSE)),
        (VOLUME, lots),
        (QUOTE, quote),
        (TRADES, 0),
        (BUY_VOLUME, lots),
        (BUY_QUOTE, quote),
    )
    return template, columns


def encode(instrument: Instrument, candles: Ints, close_ms: Ints) -> list[str]:
    """Return one JSON array per candle.

    SPOT prints 8 decimals; UM and CM print as many as tick and lot have (CM: whole contracts, 8 decimals of coin).
    """
    if instrument.kind != "trade":
        return _encode_samples(candles, close_ms)
    template, columns = _layout(instrument.market, instrument.price_decimals, instrument.lot_decimals)
    before = next(index for index, (column, _) in enumerate(columns) if column == QUOTE)
    values = [candles[OPEN_MS].tolist(), *_digits(candles, columns[:before]), close_ms.tolist()]
    values += _digits(candles, columns[before:])
    return [template % row for row in zip(*values, strict=True)]


def _encode_samples(candles: Ints, close_ms: Ints) -> list[str]:
    """Return rows of mark price, index or premium: 8 decimals, no volumes, the number of samples."""
    prices = [(candles[column] / 10**_SPOT_DECIMALS).tolist() for column in (OPEN, HIGH, LOW, CLOSE)]
    values = (candles[OPEN_MS].tolist(), *prices, close_ms.tolist(), candles[TRADES].tolist())
    template = '[%d,"%.8f","%.8f","%.8f","%.8f","0",%d,"0",%d,"0","0","0"]'
    return [template % row for row in zip(*values, strict=True)]


def _encode_sample_events(instrument: Instrument, interval: str, candles: Ints, close_ms: Ints) -> list[str]:
    """Return ``k`` of mark price or index: instead of ids the times of the first and the newest sample."""
    symbol = "0" if instrument.kind == "index" else instrument.symbol
    step_ms = MINUTE_MS // SAMPLES[instrument.kind]
    opens = candles[OPEN_MS]
    newest = opens + np.maximum(candles[TRADES] - 1, 0) * step_ms
    prices = [(candles[column] / 10**_SPOT_DECIMALS).tolist() for column in (OPEN, CLOSE, HIGH, LOW)]
    values = (opens.tolist(), close_ms.tolist(), opens.tolist(), newest.tolist(), *prices, candles[TRADES].tolist())
    template = (
        f'{{"t":%d,"T":%d,"s":"{symbol}","i":"{interval}","f":%d,"L":%d,"o":"%.8f","c":"%.8f","h":"%.8f","l":"%.8f",'
        '"v":"0","n":%d,"x":false,"q":"0","V":"0","Q":"0","B":"0"}'
    )
    return [template % row for row in zip(*values, strict=True)]


@lru_cache(maxsize=256)
def _event_layout(market: str, price_decimals: int, lot_decimals: int) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the template of an event's candle, times and ids first, and the (column, decimals) that follow."""
    price, lots = price_decimals, lot_decimals
    quote = 8 if market == "CM" else price + lots
    o, c, h, low, v, q, buys, bought = (
        _number(decimals, market) for decimals in (price, price, price, price, lots, quote, lots, quote)
    )
    template = (
        f'"f":%d,"L":%d,"o":{o},"c":{c},"h":{h},"l":{low},"v":{v},"n":%d,"x":false,'
        f'"q":{q},"V":{buys},"Q":{bought},"B":"0"'
    )
    columns = (
        *((column, price) for column in (OPEN, CLOSE, HIGH, LOW)),
        (VOLUME, lots),
        (TRADES, 0),
        (QUOTE, quote),
        (BUY_VOLUME, lots),
        (BUY_QUOTE, quote),
    )
    return template, columns


def encode_events(
    instrument: Instrument, interval: str, candles: Ints, close_ms: Ints, first_ids: Ints, blocks: Ints | None = None
) -> list[str]:
    """Return the object ``k`` of a kline event per candle, not closed, with the digits that `encode` prints.

    ``blocks`` of its trades are block trades, whose ids are not among the others'. The ids of a continuous contract's
    candles are no trade ids: they leave out many numbers.
    """
    if instrument.kind != "trade":
        return _encode_sample_events(instrument, interval, candles, close_ms)
    template, columns = _event_layout(instrument.market, instrument.price_decimals, instrument.lot_decimals)
    numbered = candles[TRADES] if blocks is None else candles[TRADES] - blocks
    traded = numbered > 0
    first = np.where(traded, first_ids, -1)
    last = np.where(traded, first_ids + numbered - 1, -1)
    name = f'"s":"{instrument.symbol}","i":"{interval}"'
    if isinstance(instrument, ContinuousSeries):
        name = f'"i":"{interval}"'
        first, last = (np.where(traded, ids * _UPDATES_PER_TRADE + own, -1) for ids, own in ((first, 7), (last, 11)))
    values = [candles[OPEN_MS].tolist(), close_ms.tolist(), [name] * candles.shape[1], first.tolist(), last.tolist()]
    values += _digits(candles, columns)
    whole = '{"t":%d,"T":%d,%s,' + template + "}"
    return [whole % row for row in zip(*values, strict=True)]
