"""The exchange's archive: days and months of klines as zipped CSV files, which cost no weight.

A file counts only when it matches its CHECKSUM file. A candle that is not in the archive may exist all the same: files
appear a day late, some never did, and some months have days missing. So only the exchange confirms holes.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from random import Random
from urllib.parse import unquote, urlsplit

from candleshm.errors import BadResponse, ConfigError, ExchangeUnavailable
from candleshm.exchanges.base import Response
from candleshm.exchanges.binance import retry_after_seconds
from candleshm.history.archive_file import CHECKSUM_SUFFIX, ArchiveFile
from candleshm.history.candles import Candles
from candleshm.history.plain_file import read_plain
from candleshm.history.zipped import ZIP_BYTES_MAX
from candleshm.network.backoff import Backoff
from candleshm.rest.transport import Transport
from candleshm.system.clock import Clock

__all__ = ["ARCHIVE_URL", "Archive", "Mirror", "checked_archive_url"]

logger = logging.getLogger(__name__)

ARCHIVE_URL = "https://data.binance.vision"
TRIES = 4
# After so many files in a row without a response the archive counts as unreachable for the rest of a run.
FAILED_FILES_MAX = 3
PAUSE_SECONDS = 10.0
# After a longer Retry-After the archive is not used for the rest of a run.
PAUSE_SECONDS_MAX = 120.0
# Worth another attempt, as is every status from 500 on.
PASSING = frozenset({408, 425, 429})
# A month of 1m has under 3 MB, and lines are slow; the transport's own timeout counts from byte to byte.
WHOLE_SECONDS = 120.0
LOOK_SECONDS = 0.2


class Archive:
    """Fetches files of the archive, checked. Its methods may be called from several threads."""

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        *,
        base_url: str = ARCHIVE_URL,
        stopping: threading.Event | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._base_url = base_url.rstrip("/")
        self._stopping = stopping or threading.Event()
        self._backoff, self._random = backoff or Backoff(first_seconds=0.5, limit_seconds=30.0), Random()
        self._lock = threading.Lock()
        self._failed_files = 0
        self._is_given_up = False
        self._paused_until_seconds = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether to send it further requests: it responds, set no long Retry-After, and nothing is stopping."""
        return not (self._is_given_up or self._stopping.is_set())

    def fetch(self, file: ArchiveFile) -> tuple[Candles, int] | None:
        """Return a file's rows and how many were left out, see `ArchiveFile.candles`; None when there is no such file.

        A zip that does not match its CHECKSUM file, or has none, is fetched once more: it may have been replaced in
        between. Raises BadResponse when the second one does not match either, or is malformed; ExchangeUnavailable.
        """
        zipped = self._checked(file)
        return None if zipped is None else file.candles(zipped)

    def _checked(self, file: ArchiveFile) -> bytes | None:
        wrong = BadResponse("never fetched")
        for _ in range(2):
            zipped = self._get(file.path)
            if zipped is None:
                return None
            checksum = self._get(file.path + CHECKSUM_SUFFIX)
            try:
                if checksum is None:
                    raise BadResponse("it has no CHECKSUM file")
                file.check(zipped, checksum)
            except BadResponse as error:
                wrong = error
            else:
                return zipped
        raise wrong

    def _get(self, path: str) -> bytes | None:
        """Return what lies at `path`, None when nothing does. Raises ExchangeUnavailable."""
        reason = ""
        for attempt in range(1, TRIES + 1):
            self._wait()
            try:
                response = self._transport.fetch(self._base_url + path)
            except (ExchangeUnavailable, BadResponse) as error:
                reason = str(error)
            else:
                if response.status in {200, 404}:
                    self._failed_files = 0
                    return response.body if response.status == 200 else None
                reason = f"the archive responds with HTTP {response.status}"
                if (response.status not in PASSING and response.status < 500) or not self._pause(response):
                    break
            if attempt < TRIES:
                self._stopping.wait(self._backoff.delay_seconds(attempt, self._random))
        self._count_failure(reason)
        raise ExchangeUnavailable(reason)

    def _wait(self) -> None:
        """Wait until the archive's Retry-After is over. Raises ExchangeUnavailable when it is not used any more."""
        while self.is_usable:
            left_seconds = self._paused_until_seconds - self._clock.monotonic_seconds()
            if left_seconds <= 0:
                return
            self._stopping.wait(min(left_seconds, LOOK_SECONDS))
        raise ExchangeUnavailable("the archive is not used any more")

    def _pause(self, response: Response) -> bool:
        """Let all threads wait for the Retry-After of a response; give the archive up when that is too long."""
        wait_seconds = retry_after_seconds(response, self._clock.epoch_ms()) or (
            PAUSE_SECONDS if response.status == 429 else 0.0
        )
        with self._lock:
            until_seconds = self._clock.monotonic_seconds() + wait_seconds
            self._paused_until_seconds = max(self._paused_until_seconds, until_seconds)
        if wait_seconds > PAUSE_SECONDS_MAX:
            self._give_up(f"it sent Retry-After {wait_seconds:.0f} s")
        return not self._is_given_up

    def _count_failure(self, reason: str) -> None:
        with self._lock:
            self._failed_files += 1
            is_enough = self._failed_files >= FAILED_FILES_MAX
        if is_enough:
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        with self._lock:
            is_news, self._is_given_up = not self._is_given_up, True
        if is_news:
            logger.warning("archive: %s; the remaining files are not requested from it", reason)


class Mirror:
    """A copy of the archive in a directory, in the archive's own layout, with the CHECKSUM of every zip."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def fetch(self, url: str) -> Response:
        """Return the file at a `file://` URL as a response: 200, or 404 when it is not there."""
        now_seconds = self._clock.monotonic_seconds()
        path, body, status = Path(unquote(urlsplit(url).path)), b"", 200
        try:
            body = read_plain(path, ZIP_BYTES_MAX)
        except (FileNotFoundError, NotADirectoryError):
            status = 404
        except ValueError as error:
            raise BadResponse(f"{path}: {error}") from None
        except OSError as error:
            raise ExchangeUnavailable(f"{path}: {error.strerror or error}") from None
        return Response(url, status, {}, body, now_seconds, self._clock.monotonic_seconds(), None)


def checked_archive_url(url: str) -> str:
    """Return the URL of an archive, checked. Raises ConfigError."""
    parts = urlsplit(url)
    is_web = parts.scheme in {"http", "https"} and parts.netloc
    if (is_web or (parts.scheme == "file" and parts.path)) and not parts.query and not parts.fragment:
        return url.rstrip("/")
    raise ConfigError(f"archive_url cannot be `{url}`; allowed: https://host[/path] or file:///directory")
