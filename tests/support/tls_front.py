"""TLS in front of a server that speaks none, as a load balancer has it; and certificates of an authority of our own."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
import warnings
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
        # asyncio leaves a socket behind when a handshake is cut off in its first moments, and warns of it later.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


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
    """End every connection, also one that was accepted just now and one in the middle of its handshake."""
    server.close()
    loop = asyncio.get_running_loop()
    quiet_rounds = 0
    while quiet_rounds < 3:
        # A task of asyncio that is cancelled before it begins never closes the socket that was accepted for it, and
        # transports tell of their end in later rounds of the loop.
        await asyncio.sleep(0.02)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        transports: list[Any] = [one for one in loop._transports.values() if not one.is_closing()]  # type: ignore[attr-defined]
        for end in transports:
            end.abort()
        for task in tasks:
            task.cancel()
        quiet_rounds = 0 if tasks or transports else quiet_rounds + 1
