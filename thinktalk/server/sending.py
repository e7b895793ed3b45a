"""Sending: an answer that is made while it is sent -> the client, as long as there is one.

    return await answered(request, whole(...))                                           made whole, then sent
    return await answered(request, Sending.begun(pieces, media_type="text/event-stream"))  sent while it is made

Either way its maker ends within one step of the model when the client goes.

A client that reads slowly slows the sending, not the engine; one that reads nothing at all for a while is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import Any, Self, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["EVENTS", "Sending", "answered", "event"]

T = TypeVar("T")

EVENTS = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "required": ["data"],
            "properties": {"data": {"type": "string"}},
        }
    }
}
"""For a route's `responses`: what a stream of events consists of."""
PATIENCE_S = 60.0  # a client takes the next piece within this time, or has gone


def event(data: Mapping[str, Any] | str) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))  # fmt: skip
    return b"data: " + text.encode() + b"\n\n"


async def answered(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response that `work` makes; it is cancelled when the client goes, and what is returned then nobody reads."""
    try:
        return await _unless_gone(request.receive, work)
    except ClientDisconnect:
        return Response(status_code=499)  # as nginx calls it, for the log


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, watch):
            one.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Sending(Response):
    """A body in pieces; `pieces` is closed when the last one has gone, and when the client has."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ):
        self.pieces, self.first = pieces, b""
        self.status_code, self.media_type, self.background = 200, media_type, None
        # proxies must not collect what is to be heard at once
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"} | dict(headers or {}))  # fmt: skip

    @classmethod
    async def begun(cls, pieces: AsyncGenerator[bytes, None], **more: Any) -> Self:
        """With its first piece made: what goes wrong until then is an answer with a status of its own."""
        sending = cls(pieces, **more)
        try:
            sending.first = await anext(pieces)
        except BaseException:
            await pieces.aclose()
            raise
        return sending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with contextlib.suppress(ClientDisconnect, OSError, TimeoutError):
                await _unless_gone(receive, self._send(send))
        finally:
            await self.pieces.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._piece(send, self.first)
        async for piece in self.pieces:
            await self._piece(send, piece)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _piece(self, send: Send, piece: bytes) -> None:
        body = {"type": "http.response.body", "body": piece, "more_body": True}
        async with asyncio.timeout(
            PATIENCE_S
        ):  # wait_for of Python 3.11 may swallow a cancel: the reply would go on
            await send(body)
