<<<<<<< HEAD:python/candleshm/collector/outdated_responses.py
"""Series for which the exchange repeats the same old response, although their newest candle is long over."""
=======
"""Series for which the exchange repeats the same old response, while their newest candle is long over."""
>>>>>>> history:python/candleshm/collector/standing.py

from __future__ import annotations

import logging
from datetime import UTC, datetime

from candleshm.system.block_log import BlockLog

__all__ = ["OutdatedResponses"]

logger = logging.getLogger(__name__)

# A response that shows no newer candle this long after the end of the newest one is outdated.
LATE_MS = 15_000
NAMED_MAX = 5


class OutdatedResponses:
    """For which series responses are outdated, and since when by the exchange's clock. Belongs to one thread."""

    def __init__(self, block_name: str, host: str) -> None:
        self._log = BlockLog(logger, block_name)
        self._host = host
        self._since_ms: dict[str, int] = {}
        self._is_logged = False

    @property
    def symbols(self) -> tuple[str, ...]:
        """The series whose responses are outdated."""
        return tuple(self._since_ms)

<<<<<<< HEAD:python/candleshm/collector/outdated_responses.py
    def note(self, symbol: str, newest_end_ms: int, sent_ms: int) -> None:
        """Note that the response to a request of `sent_ms` showed no candle that ends after `newest_end_ms`."""
=======
    def saw(self, symbol: str, newest_end_ms: int, sent_ms: int) -> None:
        """Take in that a response to a request of `sent_ms` showed no candle that ends after `newest_end_ms`."""
>>>>>>> history:python/candleshm/collector/standing.py
        if sent_ms - newest_end_ms > LATE_MS:
            self._since_ms.setdefault(symbol, newest_end_ms)
        else:
            self._since_ms.pop(symbol, None)

    def report(self, carried: frozenset[str]) -> None:
        """Log once that responses are outdated, and once that none is any more; forget series not in `carried`."""
        for symbol in self._since_ms.keys() - carried:
            del self._since_ms[symbol]
        if self._since_ms and not self._is_logged:
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
        elif self._is_logged and not self._since_ms:
            self._log.info("%s sends new data again", self._host)
        self._is_logged = bool(self._since_ms)
