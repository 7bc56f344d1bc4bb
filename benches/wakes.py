"""N: from publishing in one process to running in another that slept: the reader has the value in its hands.

The writer stamps the clock into shared memory, then publishes; the reader stops the time once it has the message. So
ours includes parsing and merging an answer of two rows, in caches that went cold since the last one. The peers are
spared that, but for one: "the same merge, then eventfd" merges the answer into a block that nobody waits for.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import iceoryx2
import redis
from material import MINUTE_MS, START_MS, VERSIONS, block, body_of, ingest, symbol_name
from rounds import WHOLE, Table, Target, Timing, WrongAnswer
from stores import redis_server

import candleshm

LENGTH = 64
TIMEOUT_SECONDS = 5.0
WAIT, WAIT_CLOSED = "Series.wait", "Feed.wait_closed"
MERGE_EVENTFD = "the same merge, then eventfd"
EVENTFD, REDIS, ICEORYX2, POLL = "eventfd", "Redis pub/sub", "iceoryx2 event", "1 ms poll"
NAMES = (WAIT, WAIT_CLOSED, MERGE_EVENTFD, EVENTFD, REDIS, ICEORYX2, POLL)


class Board:
    """Two words in shared memory: when the message was published, and its number."""

    def __init__(self) -> None:
        self._memory = SharedMemory(create=True, size=16)
        self._words: Any = self._memory.buf

    def stamp(self, number: int) -> None:
        struct.pack_into("qq", self._words, 0, time.monotonic_ns(), number)

    def read(self) -> tuple[int, int]:
        published_ns, number = struct.unpack_from("qq", self._words)
        return published_ns, number

    def close(self) -> None:
        del self._words
        self._memory.close()
        self._memory.unlink()


def _event_service(name: str) -> Any:
    iceoryx2.set_log_level(iceoryx2.LogLevel.Fatal)
    node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
    return node, node.service_builder(iceoryx2.ServiceName.new(name)).event().open_or_create()


def _sleepers(block_name: str, socket: Path, event: int, board: Board) -> dict[str, Callable[[int], int]]:
    """Return, for each way, what sleeps until message `number` is there and returns the number it saw."""
    feed = candleshm.attach(block_name)
    series = feed[symbol_name(0)]
    connected: Any = redis.Redis(unix_socket_path=str(socket))
    subscriber = connected.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe("candles")
    subscriber.get_message(timeout=1)
    node, service = _event_service(block_name)
    listener = service.listener_builder().create()
    timeout = iceoryx2.Duration.from_secs_f64(TIMEOUT_SECONDS)
    subscriptions = (node, subscriber)

    def wait(number: int) -> int:
        return (series.wait(START_MS + (number - 1) * MINUTE_MS, timeout=TIMEOUT_SECONDS) - START_MS) // MINUTE_MS

    def wait_closed(number: int) -> int:
        closed = feed.wait_closed(START_MS + (number - 1) * MINUTE_MS, timeout=TIMEOUT_SECONDS)
        return (closed.open_time_ms - START_MS) // MINUTE_MS + 1

    def read_event(_: int) -> int:
        os.read(event, 8)
        return board.read()[1]

    def listen(_: int) -> int:
        while (message := subscriptions[1].get_message(timeout=TIMEOUT_SECONDS)) is None:
            # The confirmation of the subscription is no message.
            pass
        return int(message["data"])

    def notified(_: int) -> int:
        listener.timed_wait(timeout)
        return board.read()[1]

    def poll(number: int) -> int:
        while board.read()[1] != number:
            time.sleep(0.001)
        return board.read()[1]

    return dict(zip(NAMES, (wait, wait_closed, read_event, read_event, listen, notified, poll), strict=True))


def _read(block_name: str, socket: Path, event: int, board: Board, pipe: Any) -> None:
    sleepers = _sleepers(block_name, socket, event, board)
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        name, number = asked
        pipe.send("asleep in a moment")
        seen = sleepers[name](number)
        now_ns = time.monotonic_ns()
        pipe.send((now_ns - board.read()[0], seen))


def run(*, quick: bool) -> Iterator[Table]:
    rounds, wakes = (3, 20) if quick else (20, 40)
    block_name = f"candleshm-bench-wake-{os.getpid()}"
    board = Board()
    event = os.eventfd(0)
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(Path(folder)) as socket,
        block(block_name, 1, LENGTH) as writer,
        block(f"{block_name}-quiet", 1, LENGTH) as quiet,
    ):
        reader = context.Process(target=_read, args=(block_name, socket, event, board, theirs), daemon=True)
        reader.start()
        # Its end of the pipe alone stays open, so that its death shows as the end of the pipe.
        theirs.close()
        mine.recv()
        timings = _wake(writer, quiet, block_name, socket, event, board, mine, rounds, wakes)
        mine.send(None)
        reader.join(10)
    board.close()
    os.close(event)
    targets = [
        Target(f"{name} <= {limit}x {peer}", name, limit, peer)
        for name in (WAIT, WAIT_CLOSED)
        for peer, limit in ((MERGE_EVENTFD, 1.25), (EVENTFD, 1.25), (REDIS, 0.5))
    ]
    yield Table("N", "publish to a sleeping reader in another process", timings, WAIT, targets)


def _wake(
    writer: Any, quiet: Any, block_name: str, socket: Path, event: int, board: Board, pipe: Any, rounds: int, wakes: int
) -> list[Timing]:
    chance = random.Random(3)
    client: Any = redis.Redis(unix_socket_path=str(socket))
    node, service = _event_service(block_name)
    notifier = service.notifier_builder().create()
    bodies: dict[int, bytes] = {}
    publish: dict[str, Callable[[int], object]] = {
        WAIT: lambda number: ingest(writer, 0, number, bodies[number]),
        WAIT_CLOSED: lambda number: ingest(writer, 0, number, bodies[number]),
        MERGE_EVENTFD: lambda number: (ingest(quiet, 0, number, bodies[number]), os.eventfd_write(event, 1)),
        EVENTFD: lambda _: os.eventfd_write(event, 1),
        REDIS: lambda number: client.publish("candles", number),
        ICEORYX2: lambda _: notifier.notify(),
        POLL: lambda _: None,
    }
    timings = {name: Timing(name, [[] for _ in range(rounds)]) for name in NAMES}
    number = LENGTH - 1
    for turn in range(rounds):
        for name in chance.sample(NAMES, len(NAMES)) * wakes:
            if name in (WAIT, WAIT_CLOSED, MERGE_EVENTFD):
                number += 1
                bodies = {number: body_of(0, range(number - 1, number + 1), number % VERSIONS)}
                sent = number
            else:
                sent = chance.randrange(1 << 40)
            pipe.send((name, sent))
            pipe.recv()
            # Long enough for the reader to fall asleep, and out of step with a poll.
            time.sleep(chance.uniform(0.001, 0.003))
            board.stamp(sent)
            publish[name](sent)
            taken_ns, seen = pipe.recv()
            if seen != sent:
                raise WrongAnswer(f"{name} woke with message {seen}, not {sent}")
            timings[name].rounds[turn].append(taken_ns)
            timings[name].verdicts[WHOLE] += 1
    del node
    return list(timings.values())
