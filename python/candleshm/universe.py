"""Which symbols a feed serves: the configured ones among those that the exchange lists. Pure: no request, no file."""

from __future__ import annotations

import difflib
import logging
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError
from candleshm.exchanges.base import ExchangeInfo, Market
from candleshm.exchanges.continuous import is_continuous, parts_of
from candleshm.system.block_log import BlockLog
from candleshm.system.log_text import counted

__all__ = ["KINDS", "Kind", "Universe", "check_names", "implausibility", "symbols_of"]

logger = logging.getLogger(__name__)

# Of the symbols that pass the filters: those that trade, those that do not, or all of them.
Kind = Literal["trading", "not_trading", "all"]
KINDS: tuple[Kind, ...] = ("trading", "not_trading", "all")
SPARE_MIN = 16
SPARE_PART = 0.1
# A list that lost more than this part of its symbols at once is taken for an error of the exchange, or maintenance.
LOST_PART_MAX = 0.5
SHOWN_MAX = 20
# Perpetual contracts of CM, and quarterly ones, have names such as BTCUSD_PERP and BTCUSDT_261225.
_CONTRACT = re.compile(r"([A-Z0-9]+(?:USD|USDT|USDC))_(?:PERP|\d{6})")
# No exchange lists so many at once; a block for all of them would cost the rows of the existing ones.
GAINED_MAX = 1000


class Universe:
    """The symbols that one feed serves of a market's list: by its configuration, and by `add` and `remove` since.

    `add` and `remove` may be called from any thread, also while the loop reads.
    """

    def __init__(self, config: CollectorConfig) -> None:
        self._log = BlockLog(logger, config.block_name)
        self._config = config
        self._lock = threading.Lock()
        self._added: dict[str, None] = {}
        self._removed: frozenset[str] = frozenset()

    def add(self, symbols: Iterable[str]) -> None:
        """Serve symbols whatever the filters exclude; those that are not listed are added when they are."""
        with self._lock:
            names = dict.fromkeys(symbols)
            self._added = self._added | names
            self._removed -= names.keys()

    def remove(self, symbols: Iterable[str]) -> None:
        """Serve symbols no longer, until they are added again."""
        with self._lock:
            names = frozenset(symbols)
            self._added = {name: None for name in self._added if name not in names}
            self._removed |= names

    def follow(self, config: CollectorConfig) -> None:
        """Take the symbols and filters of another configuration; what was added or removed by hand stays so."""
        self._config = config

    def is_removed(self, symbol: str, info: ExchangeInfo) -> bool:
        """Return whether a symbol of the block is not wanted any longer: by `remove`, or by `follow`."""
        return symbol in self._removed or not (symbol in self._added or self.keeps(symbol, info))

    @property
    def is_ranked(self) -> bool:
        """Whether the symbols are chosen by their volumes, which `ExchangeInfo` then has to have."""
        return self._config.top is not None

    def keeps(self, symbol: str, info: ExchangeInfo) -> bool:
        """Return whether a symbol of an earlier collector may stay, listed now or not, and whatever its volume."""
        return self._passes(symbol, info) and (self._config.symbols == "all" or symbol in self._config.symbols)

    def wanted(self, info: ExchangeInfo) -> list[str]:
        """Return the listed symbols to serve: for 'all' those that trade, of a list all; of these the `top` ones."""
        return [name for name in self._named(info) if info.lists(name)]

    def unlisted(self, info: ExchangeInfo) -> list[str]:
        """Return the symbols that were configured by name and are not listed."""
        return [name for name in self._named(info) if not info.lists(name)]

    def at_start(self, info: ExchangeInfo) -> list[str]:
        """Return `wanted`, and log the symbols that are not listed.

        Raises ConfigError when no symbol is left, and where a pair is named instead of a symbol or the reverse.
        """
        check_names(self._config, info)
        market = self._config.market
        for name in self.unlisted(info):
            self._log.warning("%s: %s does not list it, left out%s", name, market, nearest(name, info, market))
        wanted = self.wanted(info)
        if wanted:
            if self.is_ranked:
                self._log.info(
                    "%s chosen by their volume in 24 hours: %s", counted(len(wanted), "symbol"), " ".join(wanted)
                )
            return wanted
        if self._config.symbols == "all":
            raise ConfigError(
                f"symbols cannot be `all`: no symbol of {market} trades now and passes the filters{self._nearest(info)}"
            )
        unlisted = self.unlisted(info)
        raise ConfigError(
            f"symbols: {market} lists none of `{', '.join(self._config.symbols)}`, or the filters leave them out"
            f"{nearest(unlisted[0], info, market) if unlisted else ''}"
        )

    def nearest(self, symbol: str, info: ExchangeInfo) -> str:
        """Return a hint at what was probably meant by a symbol that is not listed, or an empty text."""
        return nearest(symbol, info, self._config.market)

    def _nearest(self, info: ExchangeInfo) -> str:
        """Return what the exchange has instead of a quote or a kind of contract that it does not have."""
        for field, allowed, found in (
            ("quote", self._config.quote, info.quotes.values()),
            ("contract", self._config.contract, info.contracts.values()),
        ):
            if allowed and not set(allowed) & set(found):
                known = sorted(set(found) - {""})[:SHOWN_MAX]
                return f"; {field} is `{', '.join(allowed)}`, and there are: {' '.join(known)}"
        return ""

    def spare_places(self, info: ExchangeInfo) -> int:
        """Return how many places beyond `wanted` the block is to have."""
        if self._config.spare_symbols is not None:
            return self._config.spare_symbols
        if self._config.symbols == "all":
            return max(SPARE_MIN, round(len(self.wanted(info)) * SPARE_PART))
        return len(self.unlisted(info))

    def _named(self, info: ExchangeInfo) -> list[str]:
        config, added, removed = self._config, self._added, self._removed
        if config.symbols == "all":
            base: Iterable[str] = (name for name in info.statuses if info.is_trading(name))
        else:
            base = config.symbols
        chosen = [name for name in base if self._passes(name, info)]
        if config.top is not None:
            chosen = sorted(chosen, key=lambda name: -info.volumes.get(info.listed_as(name), 0.0))[: config.top]
        # `add` overrides the filters, and `remove` overrides `add`.
        passing = dict.fromkeys(chosen) | added
        return [name for name in passing if name not in removed]

    def _passes(self, symbol: str, info: ExchangeInfo) -> bool:
        config = self._config
        return (
            symbol not in config.symbols_filter
            and config.symbol_contains in symbol
            and symbol.endswith(config.symbol_endswith)
            and _is_among(info.quotes.get(info.listed_as(symbol)), config.quote)
            and _is_among(info.contracts.get(info.listed_as(symbol)), config.contract)
        )


def symbols_of(config: CollectorConfig, info: ExchangeInfo, kind: Kind) -> list[str]:
    """Return the listed symbols that a configuration leaves, of those that trade, do not trade, or of all.

    A list of symbols keeps its order; names that are not listed are left out.
    """
    states = {"trading": (True,), "not_trading": (False,), "all": (True, False)}[kind]
    named = info.statuses if config.symbols == "all" else config.symbols
    symbols = [name for name in named if info.lists(name) and info.is_trading(name) in states]
    return Universe(replace(config, symbols=symbols)).wanted(info) if symbols else []


def check_names(config: CollectorConfig, info: ExchangeInfo) -> None:
    """Raise ConfigError where a pair is named instead of a symbol, or for an index a symbol instead of a pair."""
    for name in () if config.symbols == "all" else config.symbols:
        if info.lists(name) or is_continuous(name):
            continue
        if config.price == "index":
            if name in info.pairs:
                raise ConfigError(
                    f"symbols cannot be `{name}` with price `index`: an index is of a pair, here `{info.pairs[name]}`"
                )
        elif symbols := [symbol for symbol, pair in info.pairs.items() if pair == name]:
            raise ConfigError(f"symbols cannot be `{name}`, which is a pair; its symbols: {' '.join(symbols)}")


def implausibility(believed: ExchangeInfo, newer: ExchangeInfo) -> str | None:
    """Return why a newer list of symbols is not plausible, None when it is."""
    # After maintenance all symbols trade again at once, which is plausible.
    for what, before, now, most in (
        ("lists", len(believed.statuses), len(newer.statuses), len(believed.statuses) + GAINED_MAX),
        ("trades", _trading(believed), _trading(newer), len(newer.statuses)),
    ):
        if now < before * (1 - LOST_PART_MAX) or now > most:
            return f"the exchange suddenly {what} {now} symbols instead of {before}"
    return None


def nearest(symbol: str, info: ExchangeInfo, market: Market) -> str:
    """Return a hint at the market or the listed name that was probably meant, or an empty text."""
    if is_continuous(symbol) and market == "SPOT":
        return "; SPOT has no contracts, UM and CM have"
    if is_continuous(symbol):
        pair, kind = parts_of(symbol)
        kinds = sorted(other for own, other in map(parts_of, info.continuous) if own == pair)
        if kinds:
            return f"; {pair} has no contract of kind {kind}, only: {' '.join(kinds)}"
        near = difflib.get_close_matches(pair.upper(), {own for own, _ in map(parts_of, info.continuous)}, n=1)
        return f"; no pair {pair} has contracts" + (f"; did you mean {near[0]}:{kind}?" if near else "")
    if (contract := _CONTRACT.fullmatch(symbol.upper())) and (of := _market_of(contract[1])) != market:
        return f"; that is the name of a contract of {of}, not of {market}"
    # An asset alone is a pair in many minds.
    whole = next((name for end in ("USDT", "USD_PERP") if (name := f"{symbol.upper()}{end}") in info.statuses), None)
    near = [whole] if whole else difflib.get_close_matches(symbol.upper(), info.statuses, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _market_of(pair: str) -> Market:
    """Return the market of futures that has a pair: prices of CM are in USD, those of UM in a coin such as USDT."""
    return "CM" if pair.endswith("USD") else "UM"


def _is_among(value: str | None, allowed: Sequence[str]) -> bool:
    """Return whether a value is allowed: without a condition any is, and so is that of a symbol that is not listed."""
    return not allowed or value is None or value in allowed


def _trading(info: ExchangeInfo) -> int:
    return sum(info.is_trading(symbol) for symbol in info.statuses)
