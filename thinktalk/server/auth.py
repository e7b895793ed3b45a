"""Auth: who may in. Host and Origin -> CORS -> key -> Client(name) -> limits, routes

Host      a name that resolves to us today and belonged to somebody else yesterday (DNS rebinding) is refused: addresses, localhost
          and the names of --hosts pass; where keys are asked for and no --hosts are set, every name does
Origin    a page of another site may call us only if --cors-origins names it; WebSockets have no other protection in a browser
key       Authorization: Bearer KEY, or for a browser's WebSocket the subprotocol openai-insecure-api-key.KEY; none is asked for
          the page's own files, /health and /ready

The client's name is made of its key's digest, or is its address where no key is needed: names may be logged.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from thinktalk.errors import ConfigError
from thinktalk.server.hub import Client, Hub
from thinktalk.server.problems import Problem
from thinktalk.server.settings import Settings

__all__ = ["Keys", "install", "is_open"]

log = logging.getLogger("thinktalk.server")

SUBPROTOCOL = "openai-insecure-api-key."
LEAST_KEY = 8
SHORT_KEY = 20  # characters; what a person made up can be guessed
OPEN = {"/", "/favicon.ico", "/health", "/ready"}


def install(app: FastAPI, hub: Hub) -> None:
    """Nothing reaches the app but from whom the settings let in. Errors: ConfigError for keys that are none."""
    settings = hub.settings
    keys = Keys.of(settings)
    app.add_middleware(Auth, hub=hub, keys=keys)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(Doors, hub=hub, asks_keys=bool(keys))


def is_open(path: str) -> bool:
    """Whether everybody may have it: the page's files, and what machines ask to see that we live."""
    return path in OPEN or path.startswith("/web/")


async def refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or a WebSocket before it is accepted, with an error."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):  # fmt: skip
        await send({"type": "websocket.close", "code": 1008, "reason": problem.message[:100]})
    else:
        await problem.response()(scope, receive, send)


# ---------------------------------------------------------------------------------------------------------------- keys


class Keys:
    """The keys that are good, as digests; the file is read again when it changes."""

    def __init__(self, given: tuple[str, ...] = (), file: str | None = None):
        self.file = Path(file) if file else None
        self._given = {_digest(_checked(key, "--api-keys")) for key in given}
        self._from_file: set[bytes] = set()
        self._stamp: tuple[int, int, int] | None = None
        if self.file is not None:
            self._read(self._look())
            if not self._from_file:
                raise ConfigError(f"{self.file}: holds no key, expected one a line")

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """Those of a server."""
        return cls(settings.api_keys, settings.api_key_file)

    def __bool__(self) -> bool:
        """Whether a key is needed."""
        return bool(self._given) or self.file is not None

    def name_of(self, key: str) -> str | None:
        """The name of the client with this key; None where it is not known. Takes the same time for every wrong key."""
        self._refresh()
        digest, found = _digest(key), False
        for good in [*self._given, *self._from_file]:
            found |= hmac.compare_digest(digest, good)  # all are compared, whichever it is
        return f"key-{digest.hex()[:12]}" if found else None

    def _refresh(self) -> None:
        if self.file is None:
            return
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._read(stamp)
                log.info("%s: %d keys", self.file, len(self._from_file))
        except ConfigError as error:  # half written, or gone: those known before stay good
            if self._stamp is not None:
                log.error("%s; the keys known before stay", error)
            self._stamp = None

    def _look(self) -> tuple[int, int, int]:
        assert self.file is not None
        try:
            status = self.file.stat()
        except OSError as error:
            raise ConfigError(f"{self.file}: cannot be read ({error.strerror})") from None
        if status.st_mode & (stat.S_IRGRP | stat.S_IROTH) and self._stamp is None and os.name == "posix":  # fmt: skip
            log.warning("%s: others on this machine can read the keys; chmod 600", self.file)
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self, stamp: tuple[int, int, int]) -> None:
        assert self.file is not None
        try:
            lines = self.file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.file}: cannot be read ({getattr(error, 'strerror', None) or 'no text'})") from None  # fmt: skip
        words = [line.strip() for line in lines]
        keys = [word for word in words if word and not word.startswith("#")]
        self._from_file = {_digest(_checked(key, str(self.file))) for key in keys}
        self._stamp = stamp


def _checked(key: str, where: str) -> str:
    """ConfigError for what cannot be a key: it would have to pass through a header."""
    if len(key) < LEAST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{where}: a key of {len(key)} characters, expected {LEAST_KEY} or more letters and digits without spaces; make one with: openssl rand -hex 32")  # fmt: skip
    if len(key) < SHORT_KEY:
        log.warning("%s: a key of %d characters can be guessed; openssl rand -hex 32 makes one that cannot", where, len(key))  # fmt: skip
    return key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class Auth:
    """ASGI middleware: the key, and who has it."""

    def __init__(self, app: ASGIApp, hub: Hub, keys: Keys):
        self.app, self.hub, self.keys = app, hub, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        if not self.keys or is_open(scope["path"]):
            name = address(scope)
        else:
            key = _presented(scope)
            name = None if key is None else self.keys.name_of(key)
            if name is None:
                self.hub.metrics.refused.labels("key").inc()
                return await refuse(_no_key(key), scope, receive, send)
        scope.setdefault("state", {})["client"] = Client(name)
        return await self.app(scope, receive, send)


def address(scope: Scope) -> str:
    """Whoever is at the other end of the connection, of IPv6 the network: one customer has all of it."""
    host = (scope.get("client") or ("unknown", 0))[0]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        if not ip.is_loopback:
            return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)


def _presented(scope: Scope) -> str | None:
    """The key that came with a request; a WebSocket's is taken out of what the app sees of its subprotocols."""
    found: str | None = None
    if scope["type"] == "websocket":
        offered = scope.get("subprotocols") or []
        found = next((p.removeprefix(SUBPROTOCOL) for p in offered if p.startswith(SUBPROTOCOL)), None)  # fmt: skip
        scope["subprotocols"] = [p for p in offered if not p.startswith(SUBPROTOCOL)]
    scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return found


def _no_key(key: str | None) -> Problem:
    what = "no key came with the request" if key is None else "the key is not known here"
    return Problem(
        401, f"{what}; send Authorization: Bearer KEY with one of this server's keys", code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------- host, origin


class Doors:
    """ASGI middleware: by which name we are called, and from which page."""

    def __init__(self, app: ASGIApp, hub: Hub, asks_keys: bool):
        settings = hub.settings
        self.app, self.hub = app, hub
        self.hosts = {host.lower().rstrip(".") for host in (*settings.hosts, settings.host, "localhost")}  # fmt: skip
        self.any_host = "*" in settings.hosts or (asks_keys and not settings.hosts)
        self.origins = {origin.lower().rstrip("/") for origin in settings.cors_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            problem = self._problem(Headers(scope=scope))
            if problem is not None:
                self.hub.metrics.refused.labels(problem.code).inc()
                return await refuse(problem, scope, receive, send)
        return await self.app(scope, receive, send)

    def _problem(self, headers: Headers) -> Problem | None:
        hosts = headers.getlist("host")
        if len(hosts) > 1 or not (self.any_host or self._known(hosts[0] if hosts else "")):
            return Problem(
                403,
                "this server is not known by that name; start it with --hosts NAME",
                code="host",
            )
        origins = headers.getlist("origin")
        if any(not self._welcome(origin, hosts[0] if hosts else "") for origin in origins):
            return Problem(403, "pages of that origin may not call this server; start it with --cors-origins ORIGIN", code="origin")  # fmt: skip
        return None

    def _known(self, host: str) -> bool:
        """A name of ours, or an address: those are not looked up, so nobody can have bent them."""
        name = _name(host)
        if name is None:
            return False
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            return name in self.hosts

    def _welcome(self, origin: str, host: str) -> bool:
        """The page that this server itself has sent, or one that the settings name."""
        origin = origin.lower().rstrip("/")
        if origin in self.origins or "*" in self.origins:
            return True
        scheme, _, rest = origin.partition("://")
        if scheme not in ("http", "https") or not rest:
            return False
        default = {"http": ":80", "https": ":443"}[scheme]
        return rest.removesuffix(default) == host.lower().removesuffix(default)


def _name(host: str) -> str | None:
    """The name in a Host header, without its port."""
    try:
        parts = urlsplit(f"//{host}")
        ok = not (parts.path or parts.query or parts.fragment or "@" in host or parts.port == 0)
        return parts.hostname.rstrip(".") if ok and parts.hostname else None
    except ValueError:
        return None
