"""Outbox: events on their way to one client; a slow one holds up his own replies and nobody else's.

    put(event) --at most `most_bytes` wait--> run(): send, one after the other

Whoever puts waits while it is full. A client that takes nothing for `patience_s` is given up: Stalled is raised in run().
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = ["Outbox", "Stalled"]


class Stalled(Exception):  # noqa: N818  (the client's doing)
    """The client takes nothing."""


class Outbox:
    """For one socket, in one event loop."""

    def __init__(
        self,
        send: Callable[[str], Awaitable[Any]],
        *,
        most_bytes: int = 1 << 20,
        patience_s: float = 20.0,
    ):
        self._send, self.most_bytes, self.patience_s = send, most_bytes, patience_s
        self._waiting: deque[str] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._ended = False

    async def put(self, event: Mapping[str, Any]) -> None:
        """Queue an event; waits while too much is queued. Nothing happens once the client has gone."""
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        while self._bytes >= self.most_bytes and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        if not self._ended:
            self._waiting.append(text)
            self._bytes += len(text)
            self._changed.set()

    async def run(self) -> None:
        """Send until cancelled. Errors: Stalled, and whatever send raises."""
        try:
            while True:
                while not self._waiting:
                    self._changed.clear()
                    await self._changed.wait()
                text = self._waiting[0]
                try:
                    async with asyncio.timeout(self.patience_s):
                        await self._send(text)
                except TimeoutError:
                    raise Stalled(f"nothing was taken for {self.patience_s:g} s") from None
                self._waiting.popleft()
                self._bytes -= len(text)
                self._changed.set()
        finally:
            self._ended = True
            self._changed.set()

    async def flush(self, seconds: float) -> None:
        """Wait until all is sent, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                while self._waiting and not self._ended:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return
