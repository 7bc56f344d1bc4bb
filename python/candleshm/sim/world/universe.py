"""What the simulated exchange lists: well-known symbols at realistic prices, then generated ones (SIM001USDT, ...)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from candleshm.sim.world.grid import DAY_MS, HOUR_MS
from candleshm.sim.world.tape import Voice, hash_key

Market = Literal["SPOT", "UM", "CM"]
MARKETS: tuple[Market, ...] = ("SPOT", "UM", "CM")

Price = Literal["trade", "mark", "index", "premium"]
"""What candles are of."""

QUARTERS = ("CURRENT_QUARTER", "NEXT_QUARTER")
"""The types of dated contracts, in the order of their delivery."""

# The delivery date that real perpetual contracts carry: 2100-12-25.
NEVER_MS = 4_133_404_800_000
# How many years of quarterly contracts are known ahead, so that a test's clock may go on.
_YEARS_AHEAD = 3


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """One listed symbol. Times are epoch ms; ``delisted_ms`` is the end of trading, None while it trades.

    ``price`` is the level around which it wanders, in ``quote`` (CM: USD), ``index_price`` that of the index of its
    pair (0: the same). ``activity`` is the mean number of trades
    in a minute that has any, ``quiet`` the share of minutes without one. ``contract_usd`` is CM's contract size.
    ``hours`` names the timetable of `sessions` that a TradFi contract follows.
    """

    market: Market
    symbol: str
    base: str
    quote: str
    price: float
    price_decimals: int
    lot_decimals: int
    listed_ms: int
    delisted_ms: int | None = None
    status: str = "TRADING"
    contract_type: str = "PERPETUAL"
    delivery_ms: int = NEVER_MS
    contract_usd: int = 0
    activity: float = 60.0
    quiet: float = 0.0
    volatility: float = 0.0005
    index_price: float = 0.0
    hours: str = ""

    @property
    def kind(self) -> Price:
        """Return what the candles are of."""
        return "trade"

    @property
    def pair(self) -> str:
        """Return the pair, the symbol without a contract's suffix."""
        return self.base + self.quote

    def name_at(self, _time_ms: int) -> str:
        """Return the symbol that trades at a time."""
        return self.symbol

    @property
    def flat_after_end(self) -> bool:
        """Return whether klines go on flat after trading ended, as settled perpetual contracts do."""
        return self.market != "SPOT" and self.delivery_ms == NEVER_MS

    def voice(self, seed: int) -> Voice:
        """Return how the symbol trades under ``seed``. All markets of a pair of coins follow one path."""
        tick = 10.0**-self.price_decimals
        notional_per_trade = 40.0 * math.sqrt(self.activity) * (1.0 if self.contract_usd else self._usd_to_quote())
        lot_value = self.contract_usd or self.price * 10.0**-self.lot_decimals
        spread = 0 if self.activity >= 100 else min(100, round(400 / self.activity))
        dollar = "USD" if self.quote in {"USDT", "USDC", "FDUSD"} else self.quote
        return Voice(
            coin_key=hash_key(f"{seed}/{self.base}/{dollar}"),
            key=hash_key(f"{seed}/{self.market}/{self.symbol}"),
            level=self.price / tick,
            volatility=self.volatility,
            quiet=self.quiet,
            trades=self.activity,
            lots=max(1, round(notional_per_trade / lot_value)),
            spread=spread,
            coins_per_lot_tick=self.contract_usd * 10 ** (8 + self.price_decimals),
        )

    def _usd_to_quote(self) -> float:
        return {"BTC": 1 / 95_000, "ETH": 1 / 3_300, "BNB": 1 / 900}.get(self.quote, 1.0)


def utc_ms(text: str) -> int:
    """Return the epoch ms of an ISO date and time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


class _Coin(NamedTuple):
    base: str
    price: float  # USD
    spot_decimals: tuple[int, int]  # of price and lot
    um_decimals: tuple[int, int]
    activity: float
    spot_listed: str
    um_listed: str
    quiet: float = 0.0


_COINS = (
    _Coin("BTC", 95_000.0, (2, 5), (1, 3), 900.0, "2017-08-17T04:00", "2019-09-08T17:57"),
    _Coin("ETH", 3_300.0, (2, 4), (2, 3), 600.0, "2017-08-17T04:00", "2019-11-27T07:45"),
    _Coin("BNB", 900.0, (2, 3), (2, 2), 240.0, "2017-11-06T03:54", "2020-02-10T08:00"),
    _Coin("SOL", 160.0, (2, 3), (3, 2), 400.0, "2020-08-11T06:00", "2020-09-14T07:00"),
    _Coin("XRP", 2.2, (4, 1), (4, 1), 300.0, "2018-05-04T08:11", "2020-01-06T08:00"),
    _Coin("DOGE", 0.18, (5, 0), (5, 0), 220.0, "2019-07-05T12:00", "2020-07-10T09:00"),
    _Coin("ADA", 0.55, (4, 1), (4, 0), 160.0, "2018-04-17T04:00", "2020-01-31T08:00"),
    _Coin("LINK", 15.0, (2, 2), (3, 2), 120.0, "2019-01-16T10:00", "2020-01-17T08:00"),
    _Coin("AVAX", 18.0, (2, 2), (3, 0), 110.0, "2020-09-22T06:30", "2020-09-23T07:00"),
    _Coin("DOT", 3.2, (3, 2), (3, 1), 90.0, "2020-08-18T23:00", "2020-08-22T07:00"),
    _Coin("LTC", 95.0, (2, 3), (2, 3), 80.0, "2017-12-13T03:32", "2020-01-09T08:00"),
    _Coin("TRX", 0.28, (4, 1), (5, 0), 80.0, "2018-06-11T11:30", "2020-01-15T08:00"),
    _Coin("BCH", 480.0, (1, 3), (2, 3), 60.0, "2019-11-28T10:00", "2019-12-19T08:00"),
    _Coin("UNI", 7.0, (3, 2), (4, 0), 60.0, "2020-09-17T03:00", "2020-09-18T07:00"),
    _Coin("NEAR", 2.4, (3, 1), (4, 0), 50.0, "2020-10-14T06:00", "2020-10-15T07:00"),
    _Coin("APT", 3.1, (3, 2), (4, 1), 45.0, "2022-10-19T01:00", "2022-10-19T02:00"),
    _Coin("ATOM", 2.9, (3, 2), (3, 2), 40.0, "2019-04-29T04:00", "2020-02-07T08:00"),
    _Coin("FIL", 1.9, (3, 2), (3, 1), 40.0, "2020-10-15T09:00", "2020-10-16T09:00"),
    _Coin("AAVE", 180.0, (2, 3), (3, 1), 35.0, "2020-10-15T03:00", "2020-10-16T07:00"),
    _Coin("SUSHI", 0.5, (4, 1), (4, 0), 12.0, "2020-09-01T11:00", "2020-09-02T07:00", 0.1),
)
# Pairs quoted in a coin: base, quote, price, price and lot decimals, trades per minute, quiet minutes, listing.
_CROSSES = (
    ("ETH", "BTC", 0.0347, 5, 3, 40.0, 0.0, "2017-07-14T04:00"),
    ("BNB", "BTC", 0.00947, 6, 2, 15.0, 0.05, "2017-07-14T04:00"),
    ("SUSHI", "BTC", 0.0000526, 8, 0, 2.0, 0.73, "2020-09-01T11:00"),
)


def _decimals(price: float) -> int:
    """Return price decimals that leave five or six significant digits."""
    return max(0, min(8, 4 - math.floor(math.log10(price))))


def _coins(seed: int) -> Iterator[_Coin]:
    """Yield well-known coins, then generated ones without end."""
    yield from _COINS
    for number in itertools.count(1):
        base = f"SIM{number:03d}"
        draw = hash_key(f"{seed}/universe/{base}")
        price = 10.0 ** (-3 + 5 * (draw & 0xFFFF) / 65536)
        activity = 4.0 * 16 ** ((draw >> 16 & 0xFF) / 255)
        quiet = 0.35 * (draw >> 24 & 0xFF) / 255 if activity < 20 else 0.0
        decimals = (_decimals(price), max(0, min(3, 4 - _decimals(price))))
        listed = (datetime(2020, 1, 1, 8) + timedelta(days=draw >> 32 & 0x3FF)).isoformat()  # noqa: DTZ001
        yield _Coin(base, price, decimals, decimals, activity, listed, listed, quiet)


def _quarter_ends_ms(first_year: int, last_year: int) -> list[int]:
    """Return the deliveries: 08:00 UTC on the last Friday of March, June, September and December."""
    ends: list[int] = []
    for year in range(first_year, last_year + 1):
        for month, days in ((3, 31), (6, 30), (9, 30), (12, 31)):
            day = datetime(year, month, days, 8, tzinfo=UTC)
            ends.append(int((day - timedelta(days=(day.weekday() - 4) % 7)).timestamp() * 1000))
    return ends


def _dated(perpetual: Instrument, now_ms: int) -> Iterator[Instrument]:
    """Yield the quarterly contracts of a pair, from the first after its perpetual one to some years ahead.

    A contract is listed when the one two quarters before it is delivered.
    """
    first_year = datetime.fromtimestamp(perpetual.listed_ms / 1000, tz=UTC).year
    last_year = datetime.fromtimestamp(now_ms / 1000, tz=UTC).year + _YEARS_AHEAD
    ends = _quarter_ends_ms(first_year, last_year)
    for listed_ms, _, end_ms in zip(ends, ends[1:], ends[2:], strict=False):
        if listed_ms < perpetual.listed_ms:
            continue
        suffix = datetime.fromtimestamp(end_ms / 1000, tz=UTC).strftime("%y%m%d")
        yield replace(
            perpetual,
            symbol=f"{perpetual.pair}_{suffix}",
            contract_type=QUARTERS[0] if end_ms <= now_ms else QUARTERS[1],
            price=perpetual.price * 1.01,
            listed_ms=listed_ms,
            delisted_ms=end_ms,
            delivery_ms=end_ms,
            activity=perpetual.activity / 20,
        )


def default_universe(seed: int, symbols: int, now_ms: int) -> Iterator[Instrument]:
    """Yield ``symbols`` trading symbols per market, and the oddities that the real lists hold besides.

    These are: SPOT crosses, a SPOT symbol in BREAK and one listed yesterday; UM and CM quarterly contracts, a settled
    UM perpetual, one with a name that is not ASCII, two TRADIFI_PERPETUAL and one that does not trade yet
    (contractType ``""``).
    """
    yesterday_ms = now_ms // DAY_MS * DAY_MS - DAY_MS + 6 * HOUR_MS
    for coin in itertools.islice(_coins(seed), symbols):
        spot = Instrument(
            market="SPOT",
            symbol=f"{coin.base}USDT",
            base=coin.base,
            quote="USDT",
            price=coin.price,
            price_decimals=coin.spot_decimals[0],
            lot_decimals=coin.spot_decimals[1],
            listed_ms=utc_ms(coin.spot_listed),
            activity=coin.activity,
            quiet=coin.quiet,
        )
        um = replace(
            spot,
            market="UM",
            price=coin.price * 0.9996,
            index_price=coin.price,
            price_decimals=coin.um_decimals[0],
            lot_decimals=coin.um_decimals[1],
            listed_ms=utc_ms(coin.um_listed),
        )
        cm = replace(
            um,
            market="CM",
            symbol=f"{coin.base}USD_PERP",
            quote="USD",
            price=coin.price * 0.9994,
            lot_decimals=0,
            listed_ms=max(um.listed_ms, utc_ms("2020-08-10T07:00")),
            contract_usd=100 if coin.base == "BTC" else 10,
            activity=coin.activity / 3,
        )
        yield from (spot, um, cm)
        if coin.base in {"BTC", "ETH"}:
            yield from _dated(um, now_ms)
            yield from _dated(cm, now_ms)
    for base, quote, price, price_decimals, lot_decimals, activity, quiet, listed in _CROSSES:
        yield Instrument(
            market="SPOT",
            symbol=base + quote,
            base=base,
            quote=quote,
            price=price,
            price_decimals=price_decimals,
            lot_decimals=lot_decimals,
            listed_ms=utc_ms(listed),
            activity=activity,
            quiet=quiet,
        )
    small = Instrument(
        market="SPOT",
        symbol="",
        base="",
        quote="USDT",
        price=1.0,
        price_decimals=4,
        lot_decimals=1,
        listed_ms=yesterday_ms,
        activity=20.0,
        quiet=0.05,
    )
    ended = replace(small, listed_ms=utc_ms("2020-08-21T08:00"), delisted_ms=utc_ms("2022-05-13T00:00"))
    future = replace(small, market="UM")
    yield replace(small, symbol="NEWUSDT", base="NEW")
    yield replace(ended, symbol="LUNAUSDT", base="LUNA", status="BREAK")
    yield replace(ended, market="UM", symbol="FTTUSDT", base="FTT", status="SETTLING")
    yield replace(future, symbol="币安人生USDT", base="币安人生", price=0.12)
    yield replace(
        future, symbol="BTCSTUSDT", base="BTCST", status="PENDING_TRADING", contract_type="", listed_ms=NEVER_MS
    )
    yield replace(
        future,
        symbol="XAUUSDT",
        base="XAU",
        price=4_000.0,
        price_decimals=2,
        lot_decimals=3,
        contract_type="TRADIFI_PERPETUAL",
        listed_ms=utc_ms("2025-12-11T08:00"),
        hours="COMMODITY",
    )
    yield replace(
        future,
        symbol="TSLAUSDT",
        base="TSLA",
        price=420.0,
        price_decimals=2,
        lot_decimals=2,
        contract_type="TRADIFI_PERPETUAL",
        listed_ms=utc_ms("2026-01-28T14:30"),
        hours="EQUITY",
    )
