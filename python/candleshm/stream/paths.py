"""Which of several paths to a market's streams is used: a retired one refuses, or acknowledges and sends nothing.

Pure: it is told what happened, and when, in local monotonic seconds. Belongs to one thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from urllib.parse import urlsplit

from candleshm.system.log_text import without_credentials

__all__ = ["Paths"]

# With these statuses a path is refused; with others the server, the client's address or its country is.
PATH_STATUSES = frozenset({200, 301, 302, 307, 308, 400, 403, 404, 405, 410})
# How long a new connection may send nothing, twice as long after each round in which all paths failed.
SILENT_SECONDS, SILENT_SECONDS_MAX = 10.0, 320.0
# A path that brought data so recently is not at fault; nor is it, for longer, when the connection has a single stream,
# whose symbol may be halted.
FLOWING_SECONDS, ONE_STREAM_SECONDS = 30.0, 3600.0


class Paths:
    """The URLs by which a market's streams may be opened, and what happened to connections to each."""

    def __init__(self, market: str, urls: Sequence[str]) -> None:
        """`urls` in order of preference, at least one."""
        self._market = market
        self._urls = tuple(urls)
        self._current = self._logged = self._urls[0]
        self._faults: dict[str, str] = {}
        self._flowed_seconds: dict[str, float] = {}
        self._rounds = 0
        self.moves = 0
        """How often another path was chosen."""

    @property
    def silent_seconds(self) -> float:
        """How long a connection may be subscribed and send nothing before that is told to `silent`."""
        rounds = self._rounds if len(self._urls) > 1 else 0
        return min(SILENT_SECONDS_MAX, SILENT_SECONDS * 2.0 ** min(rounds, 16))

    def choose(self) -> str:
        """Return the URL for the next connection, without names of streams."""
        return self._current

    def refused(self, url: str, status: int) -> bool:
        """Note that the server refused a handshake with `status`; return whether that moves on to another path.

        Not for the status of a proxy.
        """
        return status in PATH_STATUSES and self._move(url, f"was refused with HTTP {status}")

    def silent(self, url: str, streams: int, now_seconds: float) -> bool:
        """Note that a connection with so many acknowledged streams sent nothing; return whether that moves on.

        A stream that is idle beside others that flow is no such connection.
        """
        flowed_seconds = now_seconds - self._flowed_seconds.get(url, -math.inf)
        limit_seconds = FLOWING_SECONDS if streams > 1 else ONE_STREAM_SECONDS
        return flowed_seconds > limit_seconds and self._move(url, "acknowledged and sent no data")

    def works(self, url: str, now_seconds: float) -> str | None:
        """Note that a connection sends events, as often as it does; return a line for the log, once for a change."""
        self._flowed_seconds[url] = now_seconds
        if url != self._current:
            return None
        faults, self._faults, self._rounds = self._faults, {}, 0
        if url == self._logged:
            return None
        causes = " and ".join(f"{self._shown(other)} {fault}" for other, fault in faults.items() if other != url)
        self._logged = url
        text = f"streams of {self._market} come by {url}" + (f", because {causes}" if causes else "")
        return without_credentials(text)

    def _move(self, url: str, fault: str) -> bool:
        """Go on to the next path that has not failed; when all have, start over with the first."""
        if url != self._current:
            # Several connections to one path fail together, and move on once.
            return False
        self._faults[url] = fault
        place = self._urls.index(url)
        others = (*self._urls[place + 1 :], *self._urls[:place])
        following = next((other for other in others if other not in self._faults), None)
        if following is None:
            following = next((other for other in self._urls if other != url), url)
            self._faults = {}
            self._rounds += 1
        self._current = following
        self.moves += following != url
        return following != url

    def _shown(self, url: str) -> str:
        """Return the path alone where it is on the host of the current one."""
        parts = urlsplit(url)
        return parts.path if parts.netloc == urlsplit(self._current).netloc else url
