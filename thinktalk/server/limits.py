"""Limits: how much one request may bring, and how much one client may ask, before anything is read or decoded.

    Content-Length, bytes as they come -> 413    seconds until the last byte -> 408    commas and brackets of JSON -> 413
    requests a minute, requests at a time of one client -> 429 with Retry-After

A client is a key; where no keys are set, an address, and then loopback has no such limits: there is nobody to be fair to.
Counted per process: with --workers N a client may have up to N times as much.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import time
from collections import Counter, OrderedDict

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thinktalk.server.auth import is_open, refuse
from thinktalk.server.hub import Hub
from thinktalk.server.problems import Problem

__all__ = ["Buckets", "install"]

MAX_MARKS = 2_000_000
"""Commas and opening brackets in JSON: each may become an object of a hundred bytes. Sound and pictures in base64 have none."""
MAX_CLIENTS = 10_000
"""Clients whose rate is remembered; who was longest away is forgotten first, and has a full bucket then anyway."""
LINGER_S = 1.0
"""How long we listen to a refused body, so that its sender reads the answer and not a broken pipe."""


def install(app: FastAPI, hub: Hub) -> None:
    """Limit whatever passes here."""
    app.add_middleware(Limited, hub=hub)


class Buckets:
    """Requests a minute of each client: a bucket holds a minute's worth, and fills evenly."""

    def __init__(self, per_minute: float, *, most: int = MAX_CLIENTS, clock=time.monotonic):
        self.size, self.clock, self.most = max(1.0, per_minute), clock, most
        self.per_second = per_minute / 60
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, when

    def take(self, name: str) -> float:
        """Take one: 0 when it was there, else the seconds until it will be."""
        now = self.clock()
        level, then = self._levels.pop(name, (self.size, now))
        level = min(self.size, level + (now - then) * self.per_second)
        wait_s = 0.0 if level >= 1 else (1 - level) / self.per_second
        self._levels[name] = (level if wait_s else level - 1, now)
        if len(self._levels) > self.most:
            self._levels.popitem(last=False)
        return wait_s


class Limited:
    """ASGI middleware; auth.py has said who it is."""

    def __init__(self, app: ASGIApp, hub: Hub):
        settings = hub.settings
        self.app, self.hub = app, hub
        self.concurrency, self.max_bytes = settings.concurrency, settings.max_body_bytes
        self.body_seconds = settings.max_body_seconds
        self.rate = Buckets(settings.rate) if settings.rate else None
        self.under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or is_open(scope["path"]):
            return await self.app(scope, receive, send)
        name = scope["state"]["client"].name if "client" in scope.get("state", {}) else "unknown"
        problem = None if _is_loopback(name) else self._too_often(name)
        if problem is None and scope["type"] == "http":
            problem = self._declared_too_large(scope)
        if problem is not None:
            return await self._refuse(problem, scope, receive, send)
        self.under_way[name] += 1
        try:
            if scope["type"] == "http":
                await _Body(self, scope, receive, send).run()
            else:
                await self.app(scope, _light(receive), send)
        finally:
            self.under_way[name] -= 1
            if not self.under_way[name]:
                del self.under_way[name]

    def _too_often(self, name: str) -> Problem | None:
        if self.concurrency and self.under_way[name] >= self.concurrency:
            what = f"{self.under_way[name]} requests are under way already, at most {self.concurrency} may be at a time"
            return Problem(429, what, code="concurrency", headers={"Retry-After": "1"})
        wait_s = self.rate.take(name) if self.rate is not None else 0.0
        if wait_s:
            what = f"more than {self.hub.settings.rate:g} requests a minute; ask again in {wait_s:.1f} s"
            return Problem(429, what, code="rate_limit_exceeded", headers={"Retry-After": str(math.ceil(wait_s))})  # fmt: skip
        return None

    def _declared_too_large(self, scope: Scope) -> Problem | None:
        text = Headers(scope=scope).get("content-length", "0")
        if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= self.max_bytes:
            return None
        return self.too_large()

    def too_large(self) -> Problem:
        """The answer to a body over the limit."""
        return Problem(413, f"the request is larger than {self.max_bytes} bytes; send less", code="too_large", headers={"Connection": "close"})  # fmt: skip

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        self.hub.metrics.refused.labels(problem.code).inc()
        await refuse(problem, scope, receive, send)
        if problem.status == 413:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while (await receive()).get("more_body"):
                        pass


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "testclient"


class _Body:
    """A request whose body is watched as it comes. What is wrong with it ends the app's reading, and its answer is ours."""

    def __init__(self, limited: Limited, scope: Scope, receive: Receive, send: Send):
        self.limited, self.scope, self.receive, self.send = limited, scope, receive, send
        self.is_json = "json" in Headers(scope=scope).get("content-type", "json")
        self.size = self.marks = 0
        self.whole = self.answered = False
        self.until = time.monotonic() + limited.body_seconds
        self.problem: Problem | None = None

    async def run(self) -> None:
        """Call the app."""
        try:
            await self.limited.app(self.scope, self._receive, self._send)
        except Exception:
            if self.problem is None:
                raise
        if self.problem is not None and not self.answered:
            await self.limited._refuse(self.problem, self.scope, self.receive, self.send)

    async def _receive(self) -> Message:
        if self.problem is not None:
            return {"type": "http.disconnect"}
        if self.whole:  # the app waits for the client to go: that may take its time
            return await self.receive()
        try:
            async with asyncio.timeout(max(0.0, self.until - time.monotonic())):
                message = await self.receive()
        except TimeoutError:
            self.problem = Problem(408, f"the request had not come whole after {self.limited.body_seconds:g} s", code="slow_body", headers={"Connection": "close"})  # fmt: skip
            return {"type": "http.disconnect"}
        if message["type"] == "http.request":
            self._count(message.get("body", b""))
            self.whole = not message.get("more_body", False)
        return message if self.problem is None else {"type": "http.disconnect"}

    def _count(self, body: bytes) -> None:
        self.size += len(body)
        if self.size > self.limited.max_bytes:
            self.problem = self.limited.too_large()
        if self.is_json:
            self.marks += sum(map(body.count, (b",", b"[", b"{")))
            if self.marks > MAX_MARKS:
                self.problem = Problem(413, f"the request holds more than {MAX_MARKS} values; send fewer", code="too_many_values", headers={"Connection": "close"})  # fmt: skip

    async def _send(self, message: Message) -> None:
        if self.problem is not None and not self.answered:
            return  # what the app makes of a body that was cut off
        self.answered = True
        await self.send(message)


def _light(receive: Receive) -> Receive:
    """A WebSocket whose frames are as light to parse as they are long."""

    async def watched() -> Message:
        message = await receive()
        text = message.get("text") or ""
        if len(text) > MAX_MARKS and sum(map(text.count, ",[{")) > MAX_MARKS:
            return {"type": "websocket.receive", "text": '{"type": "error.too_many_values"}'}
        return message

    return watched
