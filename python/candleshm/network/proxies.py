"""Proxies: which ones a configuration may have, so that none is ignored, and which one is taken for a URL."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["CREDENTIALS_STATUS", "NO_TLS_TO_PROXY", "Proxy", "ProxyError", "fault_of_proxies", "proxy_of"]

SCHEMES = ("http", "https")
SOCKS = ("socks4", "socks4a", "socks5", "socks5h")
PORTS = {"http": 80, "https": 443}
SOCKS_PORT = 1080
STREAM_SCHEMES = {"ws": "http", "wss": "https"}
# A stream is a plain socket, and one inside the TLS of a proxy would not be.
NO_TLS_TO_PROXY = "streams reach a proxy by http:// or socks5h:// only"
# By this status a proxy says that it knows no such user, or no such password.
CREDENTIALS_STATUS = 407
KEYS = "http, https, all, or one of these with a host in lower case, such as https://api.binance.com"


class ProxyError(OSError):
    """A proxy does not forward a connection. `status` is that of its HTTP response, None when there is none."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy. As text it is host and port, without user name and password."""

    scheme: str
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, url: str) -> Proxy:
        """Read the URL of a proxy as requests does. Raises ProxyError, which does not show the URL."""
        from requests.utils import get_auth_from_url

        # Without a scheme, requests assumes http.
        whole = url if "://" in url else f"http://{url}"
        if fault := _fault_of_address(whole):
            raise ProxyError(f"the URL of a proxy cannot be used (it is not shown): {fault}")
        parts = urlsplit(whole)
        user, password = get_auth_from_url(whole)
        return cls(
            parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme, SOCKS_PORT), user, password
        )

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def proxy_of(url: str, proxies: Mapping[str, str], *, trust_env: bool) -> Proxy | None:
    """Return the proxy that requests takes for `url`, None for a direct connection.

    `wss` counts as `https` and `ws` as `http`: streams take the proxy of the requests to the same host. The environment
    fills in what `proxies` does not have. Raises ProxyError when the URL of the proxy cannot be used.
    """
    if not proxies and not trust_env:
        return None
    from requests.utils import get_environ_proxies, select_proxy

    scheme, _, rest = url.partition("://")
    url = f"{STREAM_SCHEMES.get(scheme.lower(), scheme)}://{rest}"
    chosen = select_proxy(url, {**(get_environ_proxies(url) if trust_env else {}), **proxies})
    return Proxy.of(chosen) if chosen else None


def fault_of_proxies(proxies: object) -> str | None:
    """Return what is wrong with `proxies`, None when they can be used.

    The library requests ignores a key that it does not know, and then sends directly. The text never shows the URL of
    a proxy, which may contain a password.
    """
    if not isinstance(proxies, Mapping) or not all(isinstance(text, str) for pair in proxies.items() for text in pair):
        return "proxies cannot be `(not shown)`; allowed: a mapping such as {'https': 'http://host:port'}"
    for key, address in proxies.items():
        if not _is_key(key):
            shown = "(not shown)" if "@" in key else key
            return f"proxies cannot have the key `{shown}`, which requests does not know; allowed: {KEYS}"
        if fault := _fault_of_address(address):
            return f"proxies cannot have `(not shown)` for `{key}`: {fault}"
    return None


def _is_key(key: str) -> bool:
    scheme, separator, host = key.partition("://")
    if scheme not in (*SCHEMES, "all"):
        return False
    if not separator:
        return True
    try:
        # requests compares with the bare host: without port, path and brackets.
        return host != "" and urlsplit(f"http://[{host}]" if ":" in host else f"http://{host}").hostname == host
    except ValueError:
        return False


def _fault_of_address(address: str) -> str | None:
    # Without a scheme, requests assumes http.
    whole = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(whole)
        is_address = bool(parts.hostname) and parts.port != 0 and whole.isprintable() and " " not in whole
    except ValueError:
        is_address = False
    if not is_address:
        return "not a URL such as http://host:port"
    if parts.scheme in SOCKS:
        has_library = importlib.util.find_spec("socks") is not None
        return None if has_library else "a SOCKS proxy needs PySocks; `pip install requests[socks]` brings it"
    return None if parts.scheme in SCHEMES else f"its scheme is not one of {', '.join((*SCHEMES, *SOCKS))}"
