"""Series for which the exchange repeats the same old response, while their newest candle is long over."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from candleshm.system.block_log import BlockLog

__all__ = ["Standing"]

logger = logging.getLogger(__name__)

# How long after the end of its newest candle a series of which no newer one is shown counts as late.
LATE_MS = 15_000
NAMED_MAX = 5


class Standing:
    """Which series stand still, and since when by the exchange's clock. Belongs to one thread."""

    def __init__(self, block_name: str, host: str) -> None:
        self._log = BlockLog(logger, block_name)
        self._host = host
        self._since_ms: dict[str, int] = {}
        self._is_told = False

    @property
    def symbols(self) -> tuple[str, ...]:
        """The series that stand still."""
        return tuple(self._since_ms)

    def saw(self, symbol: str, newest_end_ms: int, sent_ms: int) -> None:
        """Take in that a response to a request of `sent_ms` showed no candle that ends after `newest_end_ms`."""
        if sent_ms - newest_end_ms > LATE_MS:
            self._since_ms.setdefault(symbol, newest_end_ms)
        else:
            self._since_ms.pop(symbol, None)

    def tell(self, carried: frozenset[str]) -> None:
        """Say once that series stand still, and once that none does any more; those no longer carried are forgotten."""
        for symbol in self._since_ms.keys() - carried:
            del self._since_ms[symbol]
        if self._since_ms and not self._is_told:
            first = sorted(self._since_ms, key=self._since_ms.__getitem__)
            names = " ".join(first[:NAMED_MAX]) + (" ..." if len(first) > NAMED_MAX else "")
            self._log.warning(
                "%s has sent the same old data since %s (exchange time), although its clock runs: %d symbols (%s); "
                "their age grows, and none of their candles becomes final",
                self._host,
                datetime.fromtimestamp(self._since_ms[first[0]] / 1000, tz=UTC).isoformat(timespec="seconds"),
                len(first),
                names,
            )
        elif self._is_told and not self._since_ms:
            self._log.info("%s sends new data again", self._host)
        self._is_told = bool(self._since_ms)
