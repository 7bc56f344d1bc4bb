"""What a server of NATS sends comes out as messages, in whatever pieces it arrives."""

from __future__ import annotations

import random

import pytest

from candleshm.cluster.server_frames import CAPACITY_BYTES, Frame, ServerFrames

WANTED, OTHER = 7, 8


def sent(number: int, subscription: int, size: int) -> tuple[bytes, Frame]:
    """Return one message as a server sends it, and what it is."""
    payload = bytes([number % 251]) * size
    reply = b"answers.%d" % number if number % 3 == 0 else b""
    headers = b"NATS/1.0\r\nNumber: %d\r\n\r\n" % number if number % 5 == 0 else b""
    words = [b"HMSG" if headers else b"MSG", b"a.%d" % number, b"%d" % subscription, *([reply] if reply else [])]
    words += [b"%d" % len(headers)] if headers else []
    line = b" ".join([*words, b"%d" % (len(headers) + size)])
    return line + b"\r\n" + headers + payload + b"\r\n", Frame(subscription, b"a.%d" % number, reply, headers, payload)


def pieces(data: bytes, most: int) -> list[bytes]:
    """Cut bytes into pieces of random sizes, `most` at the most."""
    chance, found = random.Random(most), list[bytes]()
    while data:
        size = chance.randint(1, most)
        found.append(data[:size])
        data = data[size:]
    return found


@pytest.mark.parametrize("most", [1, 7, 1000, 100_000, 10_000_000])
def test_messages_are_whole_and_the_rest_is_passed_on_as_it_came(most: int) -> None:
    largest = 3 * CAPACITY_BYTES if most > 7 else 3000
    received, rest, expected, left = list[Frame](), list[bytes](), list[Frame](), list[bytes]()
    frames = ServerFrames(is_wanted=WANTED.__eq__, take_ahead=lambda *_: 0, receive=received.append, rest=rest.append)
    data = b""
    for number, size in enumerate([0, 1, 100, largest, 3, 0, 2000, 70_000 if most > 7 else 70, 5, 10]):
        line = (b"PING\r\n", b"+OK\r\n", b'INFO {"server_id": "x"}\r\n')[number % 3]
        wanted, frame = sent(number, WANTED, size)
        other, _ = sent(number, OTHER, size)
        data += line + wanted + other
        expected.append(frame)
        left += [line, other]
    for piece in pieces(data, most):
        room = frames.room()
        if len(piece) <= len(room):
            room[: len(piece)] = piece
            frames.take(len(piece))
        else:
            frames.feed(piece)
    assert received == expected
    assert rest == left


def test_what_is_taken_ahead_is_not_received_and_what_follows_is() -> None:
    asked, received = list[tuple[int, bytes]](), list[Frame]()
    messages = [sent(number, WANTED, 10) for number in (1, 2, 4, 7)]
    first_two = len(messages[0][0] + messages[1][0])

    def take_ahead(subscription: int, data: bytes) -> int:
        asked.append((subscription, data))
        return first_two if len(asked) == 1 else 0

    frames = ServerFrames(
        is_wanted=lambda _: True, take_ahead=take_ahead, receive=received.append, rest=lambda _: pytest.fail("rest")
    )
    data = b"".join(message for message, _ in messages)
    frames.feed(data)
    assert asked == [(WANTED, data), (WANTED, data[first_two:]), (WANTED, messages[3][0])]
    assert received == [frame for _, frame in messages[2:]]


def test_what_is_no_line_of_a_server_is_left_to_the_client() -> None:
    rest = list[bytes]()
    frames = ServerFrames(
        is_wanted=lambda _: True, take_ahead=lambda *_: 0, receive=lambda _: pytest.fail("a message"), rest=rest.append
    )
    for line in (b"MSG a.b x 5\r\n", b"MSG a.b 7\r\n", b"MSG a.b 7 five\r\n", b"\r\n", b"msg \xff\r\n"):
        frames.feed(line)
    assert rest == [b"MSG a.b x 5\r\n", b"MSG a.b 7\r\n", b"MSG a.b 7 five\r\n", b"\r\n", b"msg \xff\r\n"]
    frames.feed(b"x" * (2 << 20))
    assert len(b"".join(rest[5:])) >= 1 << 20, "an endless line is passed on"
