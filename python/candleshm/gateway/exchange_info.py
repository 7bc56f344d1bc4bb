"""The exchange's list of symbols as the gateway keeps it: fetched at most hourly, on disk, and served from there.

A copy that is hours old is served as well while the exchange cannot be reached; what a market lists changes slowly.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from candleshm.exchanges.base import Market
from candleshm.gateway.directory import BlockDirectory
from candleshm.gateway.listing import Listing
from candleshm.gateway.precision import SPOT_DECIMALS, Decimals
from candleshm.gateway.refusals import Refused
from candleshm.gateway.upstream import MarketUpstream
from candleshm.system.atomic_file import make_directory, read_ours, replace_file
from candleshm.system.runtime_dir import runtime_dir

__all__ = ["ExchangeInfos"]

logger = logging.getLogger(__name__)

FRESH_SECONDS = 3600.0
# A block carries a symbol that the copy does not list; a client asks for one.
CARRIED_SECONDS, ASKED_SECONDS = 60.0, 600.0
LOOK_SECONDS = 1.0
RETRY_SECONDS, RETRY_SECONDS_MAX = 5.0, 300.0
FILE_BYTES_MAX = 32 * 1024 * 1024


class _Copy:
    """The copy of one market: in memory, and in a file."""

    def __init__(self, market: Market, path: Path) -> None:
        self.market = market
        self.path = path
        self.listing: Listing | None = None
        self.fetched_seconds = 0.0
        """When it was fetched, by the wall clock; the file's time after a restart."""
        self.unlisted: frozenset[str] = frozenset()
        """Symbols that blocks carry and it does not list, as far as it was fetched for them."""
        self.failures = 0
        self.tried_seconds = float("-inf")
        self.asked_for_more = False

    @property
    def age_seconds(self) -> float:
        """How old it is; infinite without one, and when the wall clock was set back since."""
        age_seconds = time.time() - self.fetched_seconds
        return age_seconds if self.listing is not None and age_seconds >= 0 else float("inf")

    def load(self) -> None:
        """Read the file of an earlier run, if there is one."""
        try:
            if self.path.stat().st_size > FILE_BYTES_MAX:
                raise ValueError(f"it is larger than {FILE_BYTES_MAX} bytes")
            fetched_seconds = self.path.stat().st_mtime
            self.listing = Listing(self.market, read_ours(self.path))
            self.fetched_seconds = fetched_seconds
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be used, the list of symbols is requested anew: %s", self.path, error)

    def replace(self, body: bytes) -> None:
        """Take a new body, and keep it. Raises ValueError."""
        self.listing = Listing(self.market, body)
        self.fetched_seconds = time.time()
        try:
            make_directory(self.path.parent)
            replace_file(self.path, body, mode=0o600)
        except OSError as error:
            logger.warning("%s cannot be written, the list of symbols is kept in memory: %s", self.path, error.strerror)


class ExchangeInfos:
    """The lists of symbols of all markets. `with` starts the thread that fetches them.

    A market's list is fetched once a block of that market is there, or a client asks for it. Methods may be called from
    any thread.
    """

    def __init__(
        self, upstreams: Mapping[Market, MarketUpstream], directory: BlockDirectory, path: str | os.PathLike[str] | None
    ) -> None:
        """`path` is the directory of the files, None for the runtime directory of this user. Raises ConfigError."""
        folder = runtime_dir() if path is None else Path(path)
        self._upstreams = upstreams
        self._directory = directory
        self._copies: Mapping[Market, _Copy] = {
            market: _Copy(market, folder / _file_name(upstream)) for market, upstream in upstreams.items()
        }
        self._wanted: set[Market] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gateway-exchange-info", daemon=True)

    def __enter__(self) -> Self:
        for copy in self._copies.values():
            copy.load()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def listing(self, market: Market) -> Listing | None:
        """Return the newest list of a market, None while there is none. No lock."""
        return self._copies[market].listing

    def decimals(self, market: Market, symbol: str) -> Decimals | None:
        """Return the digits of a symbol; None for the shortest text of each number, where they are not known."""
        listing = self._copies[market].listing
        found = None if listing is None else listing.decimals.get(symbol)
        return SPOT_DECIMALS if found is None and market == "SPOT" else found

    def is_listed(self, market: Market, symbol: str) -> bool:
        """Return whether the exchange lists a symbol, as far as is known."""
        listing = self._copies[market].listing
        return listing is not None and symbol in listing.statuses

    def want(self, market: Market, *, unknown_symbol: bool = False) -> None:
        """Have the list fetched soon if it is not there or old; with `unknown_symbol` if it is not new."""
        with self._changed:
            self._wanted.add(market)
            self._copies[market].asked_for_more |= unknown_symbol
            self._changed.notify_all()

    def is_awaited(self, market: Market) -> bool:
        """Return whether the first list of a market may come any moment: none was fetched, and none failed to be."""
        copy = self._copies[market]
        return copy.listing is None and not copy.failures

    def wait(self, market: Market, seconds: float) -> Listing | None:
        """Return the list of a market; without one wait for so long until it was fetched, or could not be."""
        self.want(market)
        copy = self._copies[market]
        with self._changed:
            self._changed.wait_for(lambda: copy.listing is not None or copy.failures or self._stopping, seconds)
        return copy.listing

    def _run(self) -> None:
        while not self._stopping:
            for copy in self._copies.values():
                try:
                    self._look(copy)
                except Exception:
                    logger.exception("the list of symbols of %s cannot be kept", copy.market)
            with self._changed:
                if not self._stopping:
                    self._changed.wait(LOOK_SECONDS)

    def _look(self, copy: _Copy) -> None:
        feeds = self._directory.of_market(copy.market)
        if not feeds and copy.market not in self._wanted:
            return
        listed: Collection[str] = () if copy.listing is None else copy.listing.statuses
        unlisted = frozenset(name for feed in feeds for name in feed if name not in listed)
        limit_seconds = FRESH_SECONDS
        if unlisted - copy.unlisted:
            limit_seconds = CARRIED_SECONDS
        elif copy.asked_for_more:
            limit_seconds = ASKED_SECONDS
        retry_seconds = min(RETRY_SECONDS * 2**copy.failures, RETRY_SECONDS_MAX) if copy.failures else 0.0
        if copy.age_seconds < limit_seconds or time.monotonic() < copy.tried_seconds + retry_seconds:
            return
        copy.tried_seconds = time.monotonic()
        try:
            self._fetch(copy)
        except (Refused, ValueError) as error:
            copy.failures += 1
            if copy.failures & (copy.failures - 1) == 0:  # The first of a row of failures, and then ever fewer.
                text = error.message if isinstance(error, Refused) else str(error)
                logger.warning("the list of symbols of %s was not fetched: %s", copy.market, text)
        else:
            copy.failures, copy.unlisted, copy.asked_for_more = 0, unlisted, False
        with self._changed:
            self._changed.notify_all()

    def _fetch(self, copy: _Copy) -> None:
        upstream = self._upstreams[copy.market]
        response = upstream.get("exchangeInfo", cost=upstream.exchange.info_weight)
        if (error := upstream.exchange.error_of(response, round(time.time() * 1000))) is not None:
            raise ValueError(str(error))
        copy.replace(response.body)


def _file_name(upstream: MarketUpstream) -> str:
    """Return the name of a market's file; another host may list other symbols."""
    url = upstream.exchange.info_url
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return f"exchange-info-{upstream.exchange.market.lower()}-{digest}.json"
