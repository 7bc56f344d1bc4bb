"""TLS in front of a server that speaks none, as a load balancer has it; and certificates of an authority of our own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import trustme

__all__ = ["context_of", "tls_front"]


def context_of(authority: trustme.CA, host: str = "127.0.0.1", *, not_after: datetime | None = None) -> ssl.SSLContext:
    """Return the server's side of TLS, with a certificate for `host`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, not_after=not_after).configure_cert(context)
    return context


@contextmanager
def tls_front(context: ssl.SSLContext, port: int) -> Iterator[int]:
    """Pass on to a port of loopback what arrives by TLS; give the port to connect to."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # refused handshakes
    server = loop.run_until_complete(
        asyncio.start_server(lambda *ends: _forward(port, *ends), "127.0.0.1", 0, ssl=context)
    )
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _forward(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writers = [writer]
    try:
        with suppress(OSError, asyncio.CancelledError):
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(inner_writer)
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
    finally:
        for end in writers:
            end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    # The task of a connection that was accepted just now has its socket only once it has begun.
    await asyncio.sleep(0)
    tasks: list[asyncio.Task[Any]] = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # A connection in the middle of its handshake is nobody's task.
    for transport in list(asyncio.get_running_loop()._transports.values()):  # type: ignore[attr-defined]
        transport.abort()
    # Transports tell of their end in the next rounds of the loop.
    await asyncio.sleep(0.05)
