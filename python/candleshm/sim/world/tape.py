"""The trades of a simulated symbol, as a pure function of (seed, symbol, time).

A minute is drawn first and its trades are derived from it, so that a day of minutes costs a few dozen numpy calls and
still every trade adds up to its minute exactly, in integers (prices in ticks, volumes in lots):

- four key trades give the minute its open, high, low and close;
- the other trades come in pairs of equal volume at ``middle + x`` and ``middle - x``, one in each half of the minute.
  Whatever the x are, a pair's turnover is ``2 * middle * volume``: the minute's turnover needs no look at them.

A minute has 480 moments of 125 ms: pairs trade at even moments, key trades at odd ones. A minute of fewer than four
trades has one price. Quiet minutes have no trade; the first minute of a UTC day in which the symbol is there always
has one, so that a day never needs the day before it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from candleshm.sim.world.candles import (
    BUY_QUOTE,
    BUY_VOLUME,
    CLOSE,
    COLUMNS,
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

MINUTES_PER_DAY = 1440
MOMENTS = 480
MOMENT_MS = MINUTE_MS // MOMENTS
_SLOTS = MOMENTS // 2

Words = npt.NDArray[np.uint64]
_Bools = npt.NDArray[np.bool_]

# The level of a coin wanders from day to day as a sum of value noise: one octave per power of two, up to 2^10 days.
_LEVEL_OCTAVES = 11
_LEVEL_AMPLITUDE = 0.012
_BLOCK_DAYS = 256


@dataclass(frozen=True)
class Voice:
    """How a symbol trades. ``coin_key`` draws the price's path, which all markets of a coin share."""

    coin_key: int
    key: int
    level: float  # price around which the coin wanders, in ticks
    volatility: float  # relative standard deviation of one minute
    quiet: float  # share of minutes without a trade
    trades: float  # mean trades of a minute that has any
    lots: int  # mean volume of a trade
    spread: int  # the first trade of a minute comes within this many quarter seconds (at most 100)
    coins_per_lot_tick: int = 0  # CM: contract size in 1e-8 coin, times ticks per price unit; 0: turnover is in quote


def hash_key(text: str) -> int:
    """Return a 64-bit key of ``text`` that is the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def draw_words(key: int, index: Ints, lane: int) -> Words:
    """Return one pseudo-random 64-bit word per index (splitmix64's finaliser)."""
    x = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64((key + lane * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def bits_of(words: Words, shift: int, bits: int) -> Ints:
    """Return ``bits`` bits of every word as integers."""
    return ((words >> np.uint64(shift)) & np.uint64((1 << bits) - 1)).astype(np.int64)


@lru_cache(maxsize=2048)
def _wander(coin_key: int, block: int) -> npt.NDArray[np.float64]:
    """Return a coin's level, 1 in the long run, at the opening of each day of a block and of the day after it."""
    days = block * _BLOCK_DAYS + np.arange(_BLOCK_DAYS + 1, dtype=np.int64)
    walk = np.zeros(len(days))
    for octave in range(_LEVEL_OCTAVES):
        point = days >> octave
        near, far = (bits_of(draw_words(coin_key, point + side, 100 + octave), 0, 32) / 2**31 - 1.0 for side in (0, 1))
        share = (days - (point << octave)) / (1 << octave)
        walk += _LEVEL_AMPLITUDE * 2 ** (octave / 2) * (near + (far - near) * share)
    return np.asarray(np.exp(walk), dtype=np.float64)


def day_levels(voice: Voice, day: int) -> tuple[float, float]:
    """Return the price at the opening and at the end of a day (counted from the epoch), in ticks."""
    block, index = divmod(day, _BLOCK_DAYS)
    wander = _wander(voice.coin_key, block)
    return voice.level * float(wander[index]), voice.level * float(wander[index + 1])


@dataclass(frozen=True)
class _Draw:
    """What the hash gives for minutes before their prices are known; every field has one element per minute."""

    quiet: _Bools
    pairs: Ints
    trades: Ints
    key_lots: tuple[Ints, Ints, Ints, Ints]  # of the open, high, low and close trade
    key_buys: tuple[Ints, Ints, Ints, Ints]  # 1 when the taker bought
    pair_buys: Ints  # lots bought by takers in each half, spread over the pairs
    pair_sells: Ints  # lots sold by takers in each half, beyond one lot per pair
    first_slot: Ints
    high_slot: Ints
    low_slot: Ints


def _draw(voice: Voice, minutes: Ints) -> _Draw:
    shape, sizes, places = (draw_words(voice.key, minutes, lane) for lane in (1, 2, 3))
    trades = 1 + (voice.trades * (0.3 + 1.4 / 65536 * bits_of(shape, 16, 16))).astype(np.int64)
    few = trades < 4
    pairs = np.where(few, 0, (trades - 4) // 2)
    trades = np.where(few, trades, 4 + 2 * pairs)
    lots = [1 + ((bits_of(sizes, 8 * key, 8) * voice.lots) >> 7) for key in range(4)]
    many = (~few).astype(np.int64)
    first_slot = (bits_of(places, 0, 8) * voice.spread) >> 8
    early = first_slot + 1 + bits_of(places, 8, 16) % (_SLOTS // 2 - 1 - first_slot)
    late = _SLOTS // 2 + bits_of(places, 24, 16) % (_SLOTS // 2 - 1 - first_slot)
    high_first = bits_of(places, 40, 1) == 1
    return _Draw(
        quiet=bits_of(shape, 0, 16) < voice.quiet * 65536,
        pairs=pairs,
        trades=trades,
        key_lots=(np.where(few, trades * lots[0], lots[0]), lots[1] * many, lots[2] * many, lots[3] * many),
        key_buys=(bits_of(shape, 60, 1), bits_of(shape, 61, 1), bits_of(shape, 62, 1), bits_of(shape, 63, 1)),
        pair_buys=(pairs * voice.lots * bits_of(sizes, 32, 16)) >> 16,
        pair_sells=(pairs * voice.lots * bits_of(sizes, 48, 16)) >> 16,
        first_slot=first_slot,
        high_slot=np.where(high_first, early, late),
        low_slot=np.where(high_first, late, early),
    )


@lru_cache(maxsize=256)
def day_path(voice: Voice, day: int) -> npt.NDArray[np.float64]:
    """Return where a coin's price is at the end of each minute of a day, in ticks."""
    minutes = day * MINUTES_PER_DAY + np.arange(MINUTES_PER_DAY, dtype=np.int64)
    steps = draw_words(voice.coin_key, minutes, 0)
    step_sum = bits_of(steps, 0, 16) + bits_of(steps, 16, 16) + bits_of(steps, 32, 16) + bits_of(steps, 48, 16)
    walk = np.cumsum((step_sum / 65536 - 2.0) * (voice.volatility * 3**0.5))
    share = np.arange(1, MINUTES_PER_DAY + 1) / MINUTES_PER_DAY
    start, end = day_levels(voice, day)
    return np.asarray((start + (end - start) * share) * (1.0 + walk - walk[-1] * share), dtype=np.float64)


def day_of_minutes(voice: Voice, day: int, present: _Bools, halted: _Bools) -> Ints:
    """Return the final minute candles of one UTC day, shape (10, minutes present).

    ``present`` and ``halted`` have 1440 elements: minutes that exist, and minutes in which nobody can trade.
    """
    index = np.arange(MINUTES_PER_DAY, dtype=np.int64)
    minutes = day * MINUTES_PER_DAY + index
    candles = np.zeros((COLUMNS, MINUTES_PER_DAY), dtype=np.int64)
    candles[OPEN_MS] = minutes * MINUTE_MS
    if not present.any():
        return candles[:, :0]

    after = np.maximum(np.rint(day_path(voice, day)).astype(np.int64), 2)
    before = np.concatenate(([max(round(day_levels(voice, day)[0]), 2)], after[:-1]))

    draw = _draw(voice, minutes)
    extremes = draw_words(voice.key, minutes, 4)
    reach = np.maximum(after * voice.volatility, 1.0)
    single = draw.trades < 4
    jitter = np.array([0, 0, 1, -1], dtype=np.int64)[bits_of(extremes, 0, 2)]
    opening = np.where(single, after, np.maximum(before + jitter, 1))
    above = ((bits_of(extremes, 8, 16) / 65536) ** 2 * reach * 1.5).astype(np.int64)
    below = ((bits_of(extremes, 24, 16) / 65536) ** 2 * reach * 1.5).astype(np.int64)
    high = np.where(single, after, np.maximum(opening, after) + above)
    low = np.where(single, after, np.maximum(np.minimum(opening, after) - below, 1))
    middle = (opening + after) >> 1

    keys = (opening, high, low, after)
    paired = draw.pairs + draw.pair_buys + draw.pair_sells
    candles[VOLUME] = sum(draw.key_lots) + 2 * paired
    candles[BUY_VOLUME] = sum(lots * buy for lots, buy in zip(draw.key_lots, draw.key_buys, strict=True))
    candles[BUY_VOLUME] += 2 * draw.pair_buys
    if voice.coins_per_lot_tick:
        coins = coins_per_lot(voice, middle)
        candles[QUOTE] = candles[VOLUME] * coins
        candles[BUY_QUOTE] = candles[BUY_VOLUME] * coins
    else:
        for price, lots, buy in zip(keys, draw.key_lots, draw.key_buys, strict=True):
            candles[QUOTE] += price * lots
            candles[BUY_QUOTE] += price * lots * buy
        candles[QUOTE] += 2 * middle * paired
        candles[BUY_QUOTE] += 2 * middle * draw.pair_buys
    candles[TRADES] = draw.trades
    candles[OPEN], candles[HIGH], candles[LOW], candles[CLOSE] = keys

    traded = present & ~halted & ~draw.quiet
    traded[np.argmax(present)] = True
    last_traded = np.maximum.accumulate(np.where(traded, index, 0))
    candles[CLOSE] = candles[CLOSE, last_traded]
    flat = ~traded
    candles[OPEN:CLOSE, flat] = candles[CLOSE, flat]
    candles[VOLUME:, flat] = 0
    return candles[:, present]


def coins_per_lot(voice: Voice, middle: Ints) -> Ints:
    """Return what one contract is worth at ``middle`` ticks, in 1e-8 coin (CM)."""
    return (voice.coins_per_lot_tick + (middle >> 1)) // middle


def _split(total: Ints, weights: Ints) -> Ints:
    """Split each row's total into integers in proportion to its weights, by cumulative rounding: sums are exact."""
    cumulative = np.cumsum(weights, axis=1)
    whole = np.maximum(cumulative[:, -1:], 1)
    edges = (total[:, None] * (cumulative / whole)).astype(np.int64)
    edges[:, -1] = total
    return np.diff(edges, axis=1, prepend=0)


def moments_of_minutes(voice: Voice, candles: Ints) -> Ints:
    """Return the trades inside minutes, shape (10, minutes, 480): one candle per moment, all zero without a trade.

    Folding the moments of a minute gives its candle again. Every moment's open, high, low and close are one price.
    """
    count = candles.shape[1]
    minutes = candles[OPEN_MS] // MINUTE_MS
    draw = _draw(voice, minutes)
    traded = candles[TRADES] > 0
    several = traded & (draw.trades >= 4)
    moments = np.zeros((COLUMNS, count, MOMENTS), dtype=np.int64)
    moments[OPEN_MS] = candles[OPEN_MS][:, None] + np.arange(MOMENTS) * MOMENT_MS
    price, lots, trades, buys = moments[CLOSE], moments[VOLUME], moments[TRADES], moments[BUY_VOLUME]
    rows = np.arange(count)
    middle = (candles[OPEN] + candles[CLOSE]) >> 1

    half = np.arange(_SLOTS // 2, dtype=np.int64)
    words = draw_words(voice.key, minutes[:, None] * (_SLOTS // 2) + half, 5)
    inside = half[None, :] > draw.first_slot[:, None]
    pairs = _split(draw.pairs * several, (bits_of(words, 0, 8) + 16) * inside)
    weights = (bits_of(words, 8, 8) + 1) * (pairs > 0)
    bought = _split(draw.pair_buys * several, weights)
    sold = pairs + _split(draw.pair_sells * several, weights)
    room = np.minimum(candles[HIGH] - middle, middle - candles[LOW])[:, None]
    drift = ((candles[OPEN] - middle)[:, None] * (_SLOTS // 2 - half)) // (_SLOTS // 2)
    noise = ((bits_of(words, 16, 16) - 32768) * room) >> 16
    offset = np.clip(drift + noise, -room, room)
    for slots, prices in ((half * 2, middle[:, None] + offset), ((_SLOTS - 1 - half) * 2, middle[:, None] - offset)):
        price[:, slots] = prices * (pairs > 0)
        lots[:, slots] = bought + sold
        buys[:, slots] = bought
        trades[:, slots] = pairs

    places = (draw.first_slot, draw.high_slot, draw.low_slot, _SLOTS - 1 - draw.first_slot)
    counts = (np.where(several, 1, draw.trades), several, several, several)
    for column, place, number, key_lots, key_buys in zip(
        (OPEN, HIGH, LOW, CLOSE), places, counts, draw.key_lots, draw.key_buys, strict=True
    ):
        moment = 2 * place + 1
        here = traded & (number > 0)
        price[rows[here], moment[here]] = candles[column, here]
        lots[rows[here], moment[here]] = key_lots[here]
        buys[rows[here], moment[here]] = (key_lots * key_buys)[here]
        trades[rows[here], moment[here]] = np.asarray(number)[here]

    moments[OPEN] = moments[HIGH] = moments[LOW] = price
    unit = coins_per_lot(voice, middle)[:, None] if voice.coins_per_lot_tick else price
    moments[QUOTE] = lots * unit
    moments[BUY_QUOTE] = buys * unit
    return moments
