"""An operator, an account and a user of NATS, as `nsc` makes them: the server's side, and a file of credentials."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys

__all__ = ["Identities"]


class Identities:
    """Who is who: an operator that the server trusts, its account, and users of that account."""

    def __init__(self) -> None:
        self._operator, self._account = _new(nkeys.PREFIX_BYTE_OPERATOR), _new(nkeys.PREFIX_BYTE_ACCOUNT)

    @property
    def configuration(self) -> str:
        """Return the lines of the server's configuration."""
        operator, account = _public(self._operator), _public(self._account)
        limits = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1}
        claims = {"type": "account", "version": 2, "limits": {**limits, "wildcards": True}}
        operators = _token(self._operator, operator, "test", {"type": "operator", "version": 2})
        accounts = _token(self._operator, account, "test", claims)
        preload = f"resolver_preload: {{ {account}: {accounts} }}"
        return f"operator: {operators}\nresolver: MEMORY\n{preload}"

    def credentials(self, path: Path) -> Path:
        """Write the file of a new user and return it."""
        user = _new(nkeys.PREFIX_BYTE_USER)
        rights = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2}
        token = _token(self._account, _public(user), "candles", rights)
        seed = bytes(user.seed).decode()
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
        return path


def _new(kind: int) -> nkeys.KeyPair:
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), kind)))


def _public(keys: nkeys.KeyPair) -> str:
    return bytes(keys.public_key).decode()


def _token(issuer: nkeys.KeyPair, subject: str, name: str, rights: dict[str, Any]) -> str:
    """Return a JWT about `subject`, signed by `issuer`."""
    claims = {"iat": int(time.time()), "iss": _public(issuer), "name": name, "sub": subject, "nats": rights}
    digest = hashlib.new("sha512_256", json.dumps(claims).encode()).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    parts = [_text({"typ": "JWT", "alg": "ed25519-nkey"}), _text(claims)]
    signature = issuer.sign(".".join(parts).encode())
    return ".".join([*parts, base64.urlsafe_b64encode(signature).decode().rstrip("=")])


def _text(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
