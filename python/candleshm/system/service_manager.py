"""What systemd is told about a service: that it is up, how it does, and that it is alive (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

__all__ = ["ServiceManager"]

ADDRESS, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class ServiceManager:
    """A service manager that may listen. What cannot be delivered is dropped: the service goes on without it."""

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        """`address` is a path, or begins with @ in the abstract namespace; without one nobody listens."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_seconds = watchdog_seconds
        """A process that gave no sign of life for so long is killed; None without a watchdog."""

    @classmethod
    def take_from(cls, environment: MutableMapping[str, str]) -> ServiceManager:
        """Return the one that the environment names, and remove it there, so that child processes do not answer it."""
        address = environment.pop(ADDRESS, "")
        microseconds, pid = environment.pop(WATCHDOG, ""), environment.pop(WATCHDOG_PID, "")
        is_watched = microseconds.isdecimal() and int(microseconds) > 0 and pid in {"", str(os.getpid())}
        return cls(address, int(microseconds) / 1e6 if is_watched else None)

    @property
    def listens(self) -> bool:
        """Whether there is one at all."""
        return bool(self._address)

    def tell(self, **fields: object) -> None:
        """Send fields such as READY=1 or STATUS="12 of 40 symbols loaded", in one message."""
        if not self._address:
            return
        text = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A manager that does not read must not stop the service.
            sender.setblocking(False)
            sender.sendto(text.encode(), self._address)
