"""The egress of requests: which `proxies` a configuration may have, so that none of them is ignored."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["fault_of_proxies"]

SCHEMES = ("http", "https")
SOCKS = ("socks4", "socks4a", "socks5", "socks5h")
KEYS = "http, https, all, or one of these with a host in lower case, such as https://api.binance.com"


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
