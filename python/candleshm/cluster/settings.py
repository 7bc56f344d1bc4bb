"""How a process reaches the servers of a cluster, and the names that it uses there. Nothing of NATS is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from candleshm.config import Setting, is_path
from candleshm.errors import ConfigError

__all__ = ["CLUSTER_KEYS", "SECRET_KEYS", "ClusterSettings", "server_urls"]

DEFAULT_PORT = 4222
NAME, PREFIX = "main", "candleshm"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAMES = "1 to 64 of A-Z a-z 0-9 _ -"
SERVERS = "nats://host[:port] or tls://host[:port], several with commas between them"
_Userinfo = tuple[str | None, str | None]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _are_servers(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(server_urls(value))
    except ValueError:
        return False


CLUSTER_KEYS: Mapping[str, Setting] = {
    "cluster": Setting(
        "servers of NATS by which the hosts of a cluster tell each other candles, nats://h1,h2,h3 or tls://...",
        SERVERS,
        _are_servers,
        is_secret=True,
    ),
    "cluster_name": Setting("name of the cluster among those that share the servers (default: main)", NAMES, _is_name),
    "cluster_prefix": Setting(
        "what the subjects of all clusters begin with, so that an account can be limited to it (default: candleshm)",
        NAMES,
        _is_name,
    ),
    "cluster_replicas": Setting(
        "servers that keep the last minute of changes: 1, or 3 of a cluster of servers (default: 1)",
        "1 | 3",
        lambda value: value in (1, 3) and not isinstance(value, bool),
    ),
    "cluster_user": Setting("user of the servers; its password comes by the environment or a file", "a text", _is_text),
    "cluster_password": Setting("password of that user", "a text", _is_text, is_secret=True),
    "cluster_token": Setting("token that the servers admit instead of a user", "a text", _is_text, is_secret=True),
    "cluster_credentials": Setting("file of credentials, as `nsc` writes it with the ending .creds", "a path", is_path),
    "cluster_ca": Setting(
        "file with the authority that signed the servers' certificates, in PEM (default: those of this machine)",
        "a path",
        is_path,
    ),
}
"""Keys of the process, in a file of settings and in the environment; those without a secret are flags as well."""
SECRET_KEYS = frozenset({"cluster_password", "cluster_token"})
CREDENTIAL_KEYS = SECRET_KEYS | {"cluster_user", "cluster_credentials", "cluster_ca"}
"""Keys that have no flag: other users of a machine see the arguments of a process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Servers, names and credentials of one cluster. What is secret is left out of the text of it.

    >>> ClusterSettings.of({"cluster": "nats://h1,h2"}).urls
    ('nats://h1:4222', 'nats://h2:4222')
    """

    urls: Sequence[str]
    """Of the servers, with ports and without credentials."""
    name: str = NAME
    prefix: str = PREFIX
    replicas: int = 1
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials: Path | None = None
    authority: Path | None = None

    @property
    def has_tls(self) -> bool:
        """Whether a server without TLS is refused, before anything secret is sent."""
        return self.authority is not None or any(url.startswith("tls://") for url in self.urls)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self | None:
        """Return the settings that keys of `CLUSTER_KEYS` name, None without `cluster`. Raises ConfigError."""
        if "cluster" not in given:
            # The environment may hold credentials for whoever needs them.
            alone = next((name for name in CLUSTER_KEYS if name in given and name not in CREDENTIAL_KEYS), None)
            if alone is not None:
                raise ConfigError(f"{alone} is given without cluster; give --cluster nats://HOST as well")
            return None
        for name in CLUSTER_KEYS:
            if name in given:
                CLUSTER_KEYS[name].check(name, given[name])
        servers = server_urls(given["cluster"])
        user, password = next((userinfo for _, userinfo in servers if userinfo != (None, None)), (None, None))
        # As the clients of NATS have it: a name alone in front of the host is a token.
        token = user if password is None else None
        user = None if password is None else user
        if "cluster_user" in given or "cluster_password" in given or "cluster_token" in given:
            user, password, token = (given.get(f"cluster_{name}") for name in ("user", "password", "token"))
        ways = {"a user": user is not None, "a token": token is not None}
        ways["a file of credentials"] = "cluster_credentials" in given
        if sum(ways.values()) > 1:
            both = " and ".join(way for way, is_given in ways.items() if is_given)
            raise ConfigError(f"the cluster's servers are given {both}; give one of them")
        if (user is None) != (password is None):
            raise ConfigError(
                "cluster_user and its password belong together; set CANDLESHM_CLUSTER_USER and "
                "CANDLESHM_CLUSTER_PASSWORD, or both keys in the file of settings"
            )
        return cls(
            urls=tuple(url for url, _ in servers),
            name=given.get("cluster_name", NAME),
            prefix=given.get("cluster_prefix", PREFIX),
            replicas=given.get("cluster_replicas", 1),
            user=user,
            password=password,
            token=token,
            credentials=_credentials(given),
            authority=_readable(given, "cluster_ca"),
        )


def server_urls(text: str) -> list[tuple[str, _Userinfo]]:
    """Return the URL of each server with its port, and the user and password that stood in it, each perhaps None.

    A server without a scheme has that of the first. Raises ValueError.
    """
    servers: list[tuple[str, _Userinfo]] = []
    scheme = "nats"
    for word in filter(None, map(str.strip, text.split(","))):
        parts = urlsplit(word if "://" in word else f"{scheme}://{word}")
        if not servers:
            scheme = parts.scheme
        is_alone = parts.path in {"", "/"} and not parts.query and not parts.fragment
        if parts.scheme not in {"nats", "tls"} or not parts.hostname or not is_alone or not word.isprintable():
            raise ValueError(f"must be {SERVERS}")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
        servers.append((f"{parts.scheme}://{host}:{parts.port or DEFAULT_PORT}", (user, password)))
    return servers


def _readable(given: Mapping[str, Any], name: str) -> Path | None:
    """Return the file that a key names, None without it. Raises ConfigError for one that cannot be read."""
    if name not in given:
        return None
    path = Path(os.fspath(given[name]))
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} cannot be `{path}`: {error.strerror}") from None
    return path


def _credentials(given: Mapping[str, Any]) -> Path | None:
    """Return the file of credentials. Raises ConfigError for one without both parts: the client would look for ever."""
    path = _readable(given, "cluster_credentials")
    if path is not None:
        lines = path.read_bytes()
        if b"BEGIN NATS USER JWT" not in lines or b"BEGIN USER NKEY SEED" not in lines:
            raise ConfigError(f"cluster_credentials cannot be `{path}`: it has no JWT and no seed of a user")
    return path
