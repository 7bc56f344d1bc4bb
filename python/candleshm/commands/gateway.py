"""The command `gateway`: the exchange's own API on this machine, answered from the blocks."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from candleshm.commands.log import HeldLog, LogFormat
from candleshm.commands.signals import on_stdin_closed, on_stop_signal
from candleshm.commands.streams import say
from candleshm.gateway.settings import GatewaySettings
from candleshm.reader.frames import library

__all__ = ["GatewayOptions", "gateway"]

EXTRA = "web"


@dataclass(frozen=True, kw_only=True)
class GatewayOptions:
    """What the command is told: where to listen, whom to admit, and the settings of the gateway's parts."""

    host: str = "127.0.0.1"
    port: int = 8700
    token_file: str | None = None
    origins: tuple[str, ...] = ()
    log_level: str = "info"
    log_format: LogFormat = "text"
    until_stdin_closes: bool = False
    settings: GatewaySettings = field(default_factory=GatewaySettings)


def gateway(options: GatewayOptions) -> None:
    """Serve until a signal asks to stop, or stdin ends. Raises ConfigError, MissingExtra, OSError."""
    for name in ("starlette", "uvicorn", "websockets"):
        library(name, EXTRA)
    from candleshm.gateway.app import make_app
    from candleshm.gateway.page.routes import page_routes
    from candleshm.gateway.page.watch import Watch
    from candleshm.gateway.server import GatewayServer, listen, url_of

    log = HeldLog(options.log_level, options.log_format)
    lifetime = AsyncExitStack()
    with listen(options.host, options.port) as listener:

        def started() -> None:
            say(f"gateway: {url_of(listener)}\n")
            log.release()

        watch = lifetime.enter_context(Watch(options.settings.blocks or None))
        server = GatewayServer(make_app(page_routes(watch), lifetime), started)
        on_stop_signal(server.stop)
        if options.until_stdin_closes:
            on_stdin_closed(server.stop)
        server.run([listener])
