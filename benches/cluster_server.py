"""What one NATS server carries without candleshm: messages as large as a change, from one publisher to some readers."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.support.nats_servers import NatsServer

__all__ = ["carried"]

SECONDS = 3.0
SUBJECT = "bench.changes"
CHUNK_BYTES = 1 << 20


def connected(port: int) -> socket.socket:
    """Return a connection that has greeted, as little of a client as can be."""
    client = socket.create_connection(("127.0.0.1", port))
    client.recv(4096)
    client.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
    while not client.recv(4096).endswith(b"PONG\r\n"):
        pass
    return client


def publish(port: int, size_bytes: int, seconds: float) -> None:
    """Publish as fast as the server reads; print how many messages went."""
    client = connected(port)
    batch = 64
    data = f"PUB {SUBJECT} {size_bytes}\r\n".encode() + bytes(size_bytes) + b"\r\n"
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        client.sendall(data * batch)
        sent += batch
    client.sendall(b"PING\r\n")
    client.recv(4096)
    print(sent, flush=True)


def subscribe(port: int) -> None:
    """Read until standard input ends; print how many bytes came."""
    client = connected(port)
    client.sendall(f"SUB {SUBJECT} 1\r\nPING\r\n".encode())
    while not client.recv(4096).endswith(b"PONG\r\n"):
        pass
    print("reads", flush=True)
    got = 0
    client.settimeout(1.0)
    while True:
        try:
            chunk = client.recv(CHUNK_BYTES)
        except TimeoutError:
            break
        if not chunk:
            break
        got += len(chunk)
    print(got, flush=True)


def carried(server: NatsServer, size_bytes: int, subscribers: int) -> dict[str, float]:
    """Publish for some seconds; return messages a second, in and out, and the server's CPU for each that goes out."""

    def started(*words: object) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, *map(str, words)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    readers = [started("subscribe", server.port) for _ in range(subscribers)]
    for reader in readers:
        assert reader.stdout is not None
        reader.stdout.readline()
    cpu, began = server.cpu_seconds(), time.monotonic()
    sent = int(started("publish", server.port, size_bytes, SECONDS).communicate()[0])
    seconds = time.monotonic() - began
    used = server.cpu_seconds() - cpu
    head = len(f"MSG {SUBJECT} 1 {size_bytes}\r\n\r\n")
    got = [int(reader.communicate()[0]) // (size_bytes + head) for reader in readers]
    return {
        "published_per_second": sent / seconds,
        "delivered_per_second": sum(got) / seconds,
        "lost_share": 1 - sum(got) / (sent * subscribers),
        "megabytes_per_second": sum(got) * size_bytes / seconds / 1e6,
        "server_cpu_us_per_delivery": used / max(1, sum(got)) * 1e6,
    }


def main(words: Sequence[str]) -> None:
    """Be one of the processes that `carried` starts."""
    role, port, *more = words
    if role == "publish":
        publish(int(port), int(more[0]), float(more[1]))
    else:
        subscribe(int(port))


if __name__ == "__main__":
    main(sys.argv[1:])
