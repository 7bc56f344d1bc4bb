"""A socket that two threads write to: what each writes comes out whole, and in its order."""

from __future__ import annotations

import asyncio
import threading

import pytest

from candleshm.cluster.shared_socket import SharedSocket

LINES, SIZE_BYTES = 400, 10_000


def line(who: str, number: int) -> bytes:
    """Return a line of one thread: a longer one now and then, which no buffer takes whole."""
    size = SIZE_BYTES * (80 if number % 40 == 7 else 1)
    return f"{who} {number} ".encode().ljust(size, who.encode()) + b"\n"


async def both_write(pause_seconds: float) -> dict[bytes, list[bytes]]:
    """Let a thread and the loop write at once to a peer that reads slowly; return the lines of each as they came."""
    received: dict[bytes, list[bytes]] = {b"l": [], b"t": []}
    is_over = asyncio.Event()

    async def read(reader: asyncio.StreamReader, peer: asyncio.StreamWriter) -> None:
        while text := await reader.readline():
            received[text[:1]].append(text)
            await asyncio.sleep(pause_seconds if len(received[b"t"]) % 50 == 1 else 0)
        peer.close()
        is_over.set()

    server = await asyncio.start_server(read, "127.0.0.1", 0, limit=1 << 24)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    shared, loop = SharedSocket(writer), asyncio.get_running_loop()
    past = 0

    def write_past() -> None:
        nonlocal past
        for number in range(LINES):
            if shared.send(line("t", number)):
                past += 1
            else:
                asyncio.run_coroutine_threadsafe(by_loop(line("t", number)), loop).result()

    async def by_loop(data: bytes) -> None:
        shared.write(data)

    thread = threading.Thread(target=write_past)
    thread.start()
    for number in range(LINES):
        shared.writelines([line("l", number)[:5], line("l", number)[5:]])
        await writer.drain()
        await asyncio.sleep(0)
    await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)
    shared.close()
    assert not shared.send(b"after the end")
    writer.close()
    await asyncio.wait_for(is_over.wait(), 30)
    server.close()
    assert past > 0, "nothing was sent past the loop"
    return received


@pytest.mark.parametrize("pause_seconds", [0.0, 0.02])
def test_lines_of_both_threads_are_whole_and_in_order(pause_seconds: float) -> None:
    received = asyncio.run(both_write(pause_seconds))
    for who in ("l", "t"):
        assert received[who.encode()] == [line(who, number) for number in range(LINES)]
