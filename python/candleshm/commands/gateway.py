"""The command `gateway`: the exchange's own API on this machine, answered from the blocks."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec

import msgspec

from candleshm.commands.listing import listing_json
from candleshm.commands.log import HeldLog, LogFormat
from candleshm.commands.outcome import outcome
from candleshm.commands.signals import on_stdin_closed, on_stop_signal
from candleshm.commands.streams import say
from candleshm.errors import MissingExtra
from candleshm.gateway.access import Access
from candleshm.gateway.settings import GatewaySettings
from candleshm.gateway.token import Token
from candleshm.system.service_manager import ServiceManager

__all__ = ["GatewayOptions", "check_libraries", "gateway"]

LIBRARIES, EXTRA = ("starlette", "uvicorn", "websockets"), "web"


@dataclass(frozen=True, kw_only=True)
class GatewayOptions:
    """What the command is told: where to listen, whom to admit, and the settings of the gateway's parts."""

    host: str = "127.0.0.1"
    port: int = 8700
    token_file: str | None = None
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    log_level: str = "info"
    log_format: LogFormat = "text"
    until_stdin_closes: bool = False
    settings: GatewaySettings = field(default_factory=GatewaySettings)


def check_libraries() -> None:
    """Raise MissingExtra unless a gateway can be served."""
    for name in LIBRARIES:
        if find_spec(name) is None:
            raise MissingExtra(name, EXTRA)


def gateway(options: GatewayOptions) -> None:
    """Serve until a signal asks to stop, or stdin ends. Raises ConfigError, MissingExtra, OSError."""
    check_libraries()
    from candleshm.gateway.gateway import Gateway

    log = HeldLog(options.log_level, options.log_format, "uvicorn.error", "asyncio")
    access = Access(
        token=None if options.token_file is None else Token.read(options.token_file),
        origins=frozenset(origin.encode() for origin in options.origins),
        hosts=frozenset(host.encode() for host in options.hosts),
    )
    manager = ServiceManager.take_from(os.environ)
    with Gateway(options.host, options.port, access, options.settings, listing_json) as served:
        on_stop_signal(served.stop)
        if options.until_stdin_closes:
            on_stdin_closed(served.stop)

        def started() -> None:
            say(f"gateway: {served.url}\n")
            log.release()
            manager.tell(READY=1, STATUS=f"serving at {served.url}")

        served.run(started)
        manager.tell(STOPPING=1)
    _leave_threads()


def _leave_threads() -> None:
    """End the process although a thread waits for the exchange; the interpreter would wait for it, for many seconds."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        logging.shutdown()
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(0)


def _told() -> GatewayOptions:
    """Return what `GatewayChild` wrote to stdin, where nobody sees the passwords in it."""
    return msgspec.json.decode(sys.stdin.buffer.readline(), type=GatewayOptions)


if __name__ == "__main__":
    sys.exit(outcome(lambda: gateway(_told())))
