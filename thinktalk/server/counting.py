"""Counting: each request and WebSocket by route and status, in the metrics and as one line in the log.

A line names the route's pattern, never its query or body: POST /v1/chat/completions 200 in 1.234 s.
"""

from __future__ import annotations

import logging
import time

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thinktalk.server.hub import Hub

__all__ = ["install"]

log = logging.getLogger("thinktalk.access")

QUIET = {"/health", "/ready", "/metrics"}  # asked all the time by machines


def install(app: FastAPI, hub: Hub) -> None:
    """Count whatever passes here."""
    app.add_middleware(Counting, hub=hub)


class Counting:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, hub: Hub):
        self.app, self.hub = app, hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        began, status = time.monotonic(), "left"  # where no answer is begun, the client has gone

        async def watched(message: Message) -> None:
            nonlocal status
            match message["type"]:
                case "http.response.start" | "websocket.http.response.start":
                    status = str(message["status"])
                case "websocket.accept":
                    status = "101"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            status = "500"  # the answer is made outside of here
            raise
        finally:
            seconds = time.monotonic() - began
            route = getattr(scope.get("route"), "path", "other")
            self.hub.metrics.requests.labels(route, status).inc()
            if scope["type"] == "http":
                self.hub.metrics.request_seconds.observe(seconds)
            if route not in QUIET:
                log.info("%s %s %s in %.3f s", scope.get("method", "WS"), route, status, seconds)
