"""The files of the page, with the headers that keep a browser to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["POLICY", "PageFiles"]

POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A browser keeps the files, and asks each time whether they are still those of the gateway that runs now.
    "Cache-Control": "no-cache",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    tag: str


class PageFiles:
    """All files of the page, read once: whatever a path says, nothing else of this machine is served."""

    def __init__(self) -> None:
        self._files = dict(_read(resources.files("candleshm.gateway") / "static", ""))

    def respond(self, request: Request, name: str) -> Response:
        """Return the file, 304 when the client has it, 404 when there is none."""
        file = self._files.get(name)
        if file is None:
            return Response("there is no such file\n", 404, HEADERS, "text/plain; charset=utf-8")
        headers = {**HEADERS, "ETag": file.tag}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(None, 304, headers)
        return Response(file.body, 200, headers, file.media_type)


def _read(folder: Traversable, prefix: str) -> list[tuple[str, _File]]:
    found = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += _read(entry, f"{name}/")
            continue
        media_type = TYPES.get(entry.name[entry.name.rfind(".") :] if "." in entry.name else "")
        if media_type is not None:
            body = entry.read_bytes()
            found.append((name, _File(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')))
    return found
