"""The bearer token of a gateway: read from a file that nobody else can read, compared in constant time.

A browser cannot send it with the websocket of the page. So the page shows it once, and gets a cookie that was made from
it: no script can read it, no page of another site can have it sent, and the token cannot be computed from it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat

from candleshm.errors import ConfigError

__all__ = ["Token"]

TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]{16,512}=*")
FILE_BYTES_MAX = 4096
COOKIE_SECONDS = 30 * 86_400


class Token:
    """A secret that requests have to show. It has no representation."""

    def __init__(self, text: bytes) -> None:
        self._expected = b"Bearer " + text
        derived = hmac.digest(text, b"candleshm page", hashlib.sha256).hex()
        # Cookies belong to a host, whatever the port: gateways of other tokens have other names.
        self._cookie_name, self._cookie_value = f"candleshm-{derived[:8]}", derived[8:]

    def __repr__(self) -> str:
        return "<Token>"

    @classmethod
    def read(cls, path: str) -> Token:
        """Return the token in a file. Raises ConfigError, OSError."""
        # A pipe without a writer would be waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"token_file cannot be `{path}`; allowed: a plain file")
            if status.st_mode & 0o077 or status.st_uid not in (os.getuid(), 0):
                raise ConfigError(f"token_file must be for this user alone: chmod 600 `{path}`")
            text = file.read(FILE_BYTES_MAX).strip()
        if not TOKEN.fullmatch(text):
            raise ConfigError(
                f"token_file `{path}` does not hold a token; allowed: one line of 16 to 512 letters, digits or "
                "-._~+/ such as `openssl rand -hex 32` prints"
            )
        return cls(text)

    @property
    def cookie(self) -> str:
        """The header Set-Cookie for a browser whose user has shown the token."""
        return (
            f"{self._cookie_name}={self._cookie_value}; Path=/page; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict"
        )

    def fits_cookies(self, cookies: bytes) -> bool:
        """Say whether a Cookie header has that cookie."""
        shown = dict(pair.strip().partition(b"=")[::2] for pair in cookies.split(b";"))
        value = shown.get(self._cookie_name.encode(), b"")
        return hmac.compare_digest(value, self._cookie_value.encode())

    def fits(self, authorization: bytes) -> bool:
        """Say whether an Authorization header shows the token; the scheme's case does not matter."""
        scheme, blank, shown = authorization.partition(b" ")
        return hmac.compare_digest(scheme.capitalize() + blank + shown.strip(), self._expected)
