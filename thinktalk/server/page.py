"""Page: GET / -> the web page; GET /web/NAME -> its modules, worklets, style and icon. All of thinktalk/web, and nothing else.

The files are read once, by name, when the server begins: what a request names is looked up in that table and never becomes a path.
No key is asked for them (they hold nothing secret); what the page then asks of /v1 needs one like any client.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response

from thinktalk.server.problems import Problem

__all__ = ["HEADERS", "router"]

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
"""By ending; not the system's table, which on some machines calls JavaScript plain text, and browsers then refuse it."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' data: blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(self), display-capture=(self), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked each time, answered by 304: a new version is seen at once
}
"""Nothing from elsewhere is loaded, nothing is sent elsewhere, and no other page may frame this one."""


@dataclass(frozen=True)
class _File:
    body: bytes
    media_type: str
    tag: str


@cache
def _table() -> dict[str, _File]:
    return dict(_read(files("thinktalk") / "web", ""))


def _read(folder: Traversable, prefix: str):
    for entry in folder.iterdir():
        kind = TYPES.get(entry.name.rpartition(".")[2])
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        elif kind is not None:
            body = entry.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            yield prefix + entry.name, _File(body, kind, tag)


def _answer(request: Request, name: str) -> Response:
    file = _table().get(name)
    if file is None:
        raise Problem(404, f"there is no {request.url.path} here; the page is at /", code="not_found")  # fmt: skip
    headers = HEADERS | {"ETag": file.tag}
    known = request.headers.get("if-none-match", "")
    if file.tag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)


router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The page itself."""
    return _answer(request, "index.html")


@router.api_route("/favicon.ico", methods=["GET", "HEAD"])
async def icon(request: Request) -> Response:
    """What browsers ask for by themselves."""
    return _answer(request, "icon.svg")


@router.api_route("/web/{name:path}", methods=["GET", "HEAD"])
async def part(name: str, request: Request) -> Response:
    """What the page loads."""
    return _answer(request, name)
