"""Which address of a host to connect to: attempts that overlap (happy eyeballs, RFC 8305), and a memory of what worked.

A host has several addresses. Some of them may drop packets, as IPv6 addresses do on many machines, refuse connections,
or accept them and never respond. Tried one after the other, each with the whole timeout, they would cost seconds at
every new connection. So the attempts overlap and the first accepted connection is used; its user reports whether the
address responded. An address that did is tried first from then on, and those that did not are tried last.
"""

from __future__ import annotations

import errno
import math
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Address", "Addresses", "Options"]

# The next address is tried when the one before it has not accepted in this time: the delay that RFC 8305 recommends.
STAGGER_SECONDS = 0.25
# How long a lookup of the name may take while addresses are known from an earlier one.
KNOWN_SECONDS = 1.0

Options: TypeAlias = Iterable[tuple[Any, ...]]


class Address(NamedTuple):
    """One address, as `socket.getaddrinfo` names it."""

    family: int
    kind: int
    protocol: int
    place: tuple[Any, ...]


@dataclass(slots=True)
class _Host:
    """What is known of one host and port."""

    known: list[Address] = field(default_factory=list)
    good: Address | None = None
    failed_seconds: dict[Address, float] = field(default_factory=dict)
    lookup: Future[list[Address]] | None = None


class Addresses:
    """The ways to every host that one transport or feed connects to. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[tuple[str, int], _Host] = {}

    def connect(
        self, host: str, port: int, timeout_seconds: float, options: Options = ()
    ) -> tuple[socket.socket, Address]:
        """Return a connected TCP socket, which blocks, and the address it is connected to.

        `timeout_seconds` is for everything: the lookup of the name and all attempts. `options` are set on the socket.
        Raises OSError: gaierror when the name has no address, TimeoutError when the time is over, else the error of
        the first address; ValueError for an invalid host name.
        """
        deadline_seconds = time.monotonic() + timeout_seconds
        addresses = self._in_order(host, port, self.look_up(host, port, timeout_seconds))
        connected, errors = _race(addresses, deadline_seconds, tuple(options))
        for address in errors:
            self.failed(host, port, address)
        if connected is None:
            raise next(iter(errors.values()), TimeoutError("no connection in time"))
        return connected

    def worked(self, host: str, port: int, address: Address) -> None:
        """Note that the server at `address` responded: it is tried first from now on."""
        with self._lock:
            state = self._hosts.setdefault((host, port), _Host())
            state.good = address
            state.failed_seconds.pop(address, None)

    def failed(self, host: str, port: int, address: Address) -> None:
        """Note that `address` did not accept, or accepted and did not respond: all others are tried before it."""
        with self._lock:
            state = self._hosts.setdefault((host, port), _Host())
            if state.good == address:
                state.good = None
            state.failed_seconds[address] = time.monotonic()

    def look_up(self, host: str, port: int, timeout_seconds: float) -> list[Address]:
        """Return the addresses of a host; those of an earlier lookup when the name service fails or hangs.

        Raises OSError: gaierror when the name has no address, TimeoutError; ValueError for an invalid host name.
        """
        name = host.strip("[]")
        if _is_number(name):
            return _resolved(name, port)
        with self._lock:
            state = self._hosts.setdefault((host, port), _Host())
            known, lookup = state.known, state.lookup
            is_new = lookup is None
            if lookup is None:
                lookup = state.lookup = Future()
        if is_new:
            # The system's lookup has no timeout and may take half a minute; its late result serves the next connection.
            arguments = (state, lookup, name, port)
            try:
                threading.Thread(target=self._resolve, args=arguments, name="candleshm-lookup", daemon=True).start()
            except RuntimeError:
                self._resolve(*arguments)
        try:
            return lookup.result(min(timeout_seconds, KNOWN_SECONDS) if known else timeout_seconds)
        except OSError as error:
            if known:
                return known
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"the name {host} was not resolved within {timeout_seconds:g} s") from None
            raise

    def _in_order(self, host: str, port: int, found: Sequence[Address]) -> list[Address]:
        """Return the addresses in the order of the attempts: responded last, untried, failed longest ago.

        Among equals the families take turns, so that one without a route costs one delay.
        """
        with self._lock:
            state = self._hosts.setdefault((host, port), _Host())
            state.failed_seconds = {
                address: since for address, since in state.failed_seconds.items() if address in found
            }
            good, failed_seconds = state.good, dict(state.failed_seconds)
        families = dict.fromkeys(address.family for address in found)
        rows = [[address for address in found if address.family == family] for family in families]
        mixed = [address for address in chain.from_iterable(zip_longest(*rows)) if address is not None]
        return sorted(mixed, key=lambda address: (address != good, failed_seconds.get(address, -math.inf)))

    def _resolve(self, state: _Host, lookup: Future[list[Address]], name: str, port: int) -> None:
        """Store the result of the name service, whenever it arrives."""
        try:
            found = _resolved(name, port)
        except Exception as error:
            with self._lock:
                state.lookup = None
            lookup.set_exception(error)
        else:
            with self._lock:
                state.known, state.lookup = found, None
            lookup.set_result(found)


def _is_number(name: str) -> bool:
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _resolved(name: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(Address(family, kind, protocol, place) for family, kind, protocol, _, place in found)
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, f"the name {name} has no address")
    return list(addresses)


def _race(
    addresses: Sequence[Address], deadline_seconds: float, options: Sequence[tuple[Any, ...]]
) -> tuple[tuple[socket.socket, Address] | None, dict[Address, OSError]]:
    """Return the first connection made in time, if any, and the errors of the other addresses."""
    waiting = deque(addresses)
    next_seconds = -math.inf
    attempts: dict[socket.socket, Address] = {}
    errors: dict[Address, OSError] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or attempts:
                now = time.monotonic()
                if now >= deadline_seconds:
                    errors |= {address: TimeoutError("no connection in time") for address in attempts.values()}
                    return None, errors
                if waiting and (now >= next_seconds or not attempts):
                    address, next_seconds = waiting.popleft(), now + STAGGER_SECONDS
                    try:
                        connection = _started(address, options)
                    except OSError as error:
                        errors[address] = error
                    else:
                        attempts[connection] = address
                        selector.register(connection, selectors.EVENT_WRITE, connection)
                    continue
                for key, _ in selector.select(min(deadline_seconds, next_seconds if waiting else math.inf) - now):
                    selector.unregister(key.data)
                    connection, address = key.data, attempts.pop(key.data)
                    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if code == 0:
                        connection.setblocking(True)
                        return (connection, address), errors
                    connection.close()
                    errors[address] = OSError(code, os.strerror(code))
                    next_seconds = now
        finally:
            for connection in attempts:
                connection.close()
    return None, errors


def _started(address: Address, options: Iterable[tuple[Any, ...]]) -> socket.socket:
    """Return a socket that is connecting. Raises OSError when that fails at once."""
    connection = socket.socket(address.family, address.kind, address.protocol)
    try:
        for option in options:
            connection.setsockopt(*option)
        connection.setblocking(False)
        code = connection.connect_ex(address.place)
        if code not in {0, errno.EINPROGRESS}:
            raise OSError(code, os.strerror(code))
    except OSError:
        connection.close()
        raise
    return connection
