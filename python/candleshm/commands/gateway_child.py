"""The gateway of `serve --gateway`: a process of its own, started again when it ends, ended with this one."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec

from candleshm.commands.gateway import GatewayOptions, check_libraries
from candleshm.commands.log import LogFormat
from candleshm.config import CollectorConfig
from candleshm.gateway.listening import listen
from candleshm.gateway.settings import GatewaySettings, Upstream
from candleshm.gateway.staleness import max_age_of

__all__ = ["GatewayChild", "options_of"]

logger = logging.getLogger(__name__)

# How long to wait before it is started again: doubled each time, until it has run for a while.
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.5, 60.0
RUN_SECONDS = 60.0
# Ctrl-C reaches every process of a terminal; this one may receive it so long after the gateway.
GRACE_SECONDS = 0.5
END_SECONDS = 5.0


class GatewayChild:
    """A gateway that runs from `start` until it is closed; a context manager that leaves no process behind."""

    def __init__(self, options: GatewayOptions) -> None:
        """Check that it can run and listen, as far as that can be known. Raises MissingExtra, OSError."""
        check_libraries()
        listen(options.host, options.port).close()
        self._told = msgspec.json.encode(options) + b"\n"
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="candleshm-gateway", daemon=True)

    def start(self) -> None:
        """Start it. It prints its URL, and logs, where this process does."""
        self._thread.start()

    def close(self) -> None:
        """End it in order."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        pause_seconds = PAUSE_SECONDS
        while not self._stopping.is_set():
            began_seconds = time.monotonic()
            ended = self._run_once()
            if self._stopping.wait(GRACE_SECONDS):
                return
            if time.monotonic() - began_seconds > RUN_SECONDS:
                pause_seconds = PAUSE_SECONDS
            logger.warning("the gateway has ended (%s); it is started again in %g s", ended, pause_seconds)
            self._stopping.wait(pause_seconds)
            pause_seconds = min(2 * pause_seconds, PAUSE_SECONDS_MAX)

    def _run_once(self) -> str:
        """Run one process to its end, or to that of this one; return how it ended."""
        try:
            process = subprocess.Popen([sys.executable, "-m", "candleshm.commands.gateway"], stdin=subprocess.PIPE)
        except OSError as error:
            return str(error)
        assert process.stdin is not None
        try:
            process.stdin.write(self._told)
            process.stdin.flush()
            while process.poll() is None:
                if self._stopping.wait(GRACE_SECONDS / 5):
                    process.terminate()
                    process.wait(END_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            process.kill()
        finally:
            # Its end of the pipe stays open until it has ended: by that it would end as well.
            code = process.wait()
            with suppress(BrokenPipeError):
                process.stdin.close()
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def options_of(
    feeds: Sequence[CollectorConfig], host: str, port: int, *, log_level: str, log_format: LogFormat
) -> GatewayOptions:
    """Return the options of a gateway beside these feeds: it reaches each market as the first feed of it does."""
    upstreams = {
        config.market: Upstream(
            base_url=config.base_url,
            proxy_host=config.proxy_host,
            proxies=config.proxies,
            trust_env=config.trust_env,
        )
        for config in reversed(feeds)
    }
    directories = [str(config.candle_dir) for config in feeds if config.candle_dir is not None]
    return GatewayOptions(
        host=host,
        port=port,
        log_level=log_level,
        log_format=log_format,
        until_stdin_closes=True,
        settings=GatewaySettings(
            upstreams=upstreams,
            candle_dir=directories[0] if directories else None,
            max_age_seconds=max_age_of([config.update_interval_seconds for config in feeds]),
        ),
    )
