"""Answers: the responses of one Realtime conversation, from the wish to response.done.

    conversation: auto   one at a time, into the conversation, on its seat
    conversation: none   up to four beside it, each on a seat of its own, of which nothing stays

What a client wants answered while an answer is under way is answered when that has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from starlette.websockets import WebSocketDisconnect

from thinktalk.server.hub import Client, Hub
from thinktalk.server.items import Items, Line, new_id
from thinktalk.server.outbox import Outbox, Stalled
from thinktalk.server.planning import plan_for
from thinktalk.server.problems import Draining, Problem
from thinktalk.server.responding import Response
from thinktalk.server.sitting import Sitting
from thinktalk.server.uptake import new_item
from thinktalk.server.wire import realtime as wire
from thinktalk.server.wire.realtime import ResponseParams
from thinktalk.server.wire.realtime_session import SessionConfig

__all__ = ["Answers"]

log = logging.getLogger("thinktalk.server")

MOST_BESIDE = 4  # responses outside of the conversation


class Answers:
    """What a Talk answers; used by one event loop."""

    def __init__(self, hub: Hub, client: Client):
        self.hub, self.client = hub, client
        self.outbox: Outbox | None = None
        self.config = SessionConfig()
        self.items = Items()
        self.sitting = Sitting(hub, client)
        self.response: Response | None = None
        self.others: dict[str, Response] = {}  # outside of the conversation
        self.answer_next = False  # a turn ended while an answer was under way
        self.idle_since: float | None = None
        self.news = asyncio.Event()  # something to read along
        self.tasks: set[asyncio.Task] = set()

    async def emit(self, type: str, **fields: Any) -> None:
        """An event for the client; waits while he is slow."""
        if self.outbox is not None:
            await self.outbox.put({"type": type, "event_id": new_id("event"), **fields})

    async def quiet(self) -> None:
        """Until no response is under way."""
        while self.response is not None or self.others:
            await asyncio.sleep(0.02)

    async def _create_response(self, params: ResponseParams) -> None:
        if params.conversation == "none":
            await self._create_other(params)
            return
        if self.response is not None:
            raise Problem(400, f"response {self.response.id} is under way; wait for its end or cancel it", code="conversation_already_has_active_response")  # fmt: skip
        await self._answer(params)

    async def _answer(self, params: ResponseParams | None = None) -> None:
        """Answer what was said so far; where an answer is under way, when that has ended."""
        if self.response is not None:
            self.answer_next = True
            return
        if self.hub.draining.is_set():
            raise Draining
        self.idle_since = None
        params = params or ResponseParams()
        lines = self.items.lines() if params.input is None else await self._given(params)
        plan = plan_for(self.hub, self.config, params, lines)
        response = self.response = Response(plan, self.sitting, self.items, self.emit)
        self.task(self._run(response))

    async def _run(self, response: Response) -> None:
        try:
            await response.run()
        finally:
            self.response = None
            self.news.set()
        await self.emit("response.done", response=response.wire())
        await self._limits()
        await self._answered(response)

    async def _answered(self, response: Response) -> None:
        """A response of the conversation has ended: what comes next."""
        raise NotImplementedError

    async def _create_other(self, params: ResponseParams) -> None:
        """Outside of the conversation: a seat of its own, of which nothing stays."""
        if len(self.others) >= MOST_BESIDE:
            raise Problem(429, f"{MOST_BESIDE} responses outside of the conversation are under way; wait for one", code="too_many_responses")  # fmt: skip
        lines = self.items.lines() if params.input is None else await self._given(params)
        sitting = Sitting(self.hub, self.client)
        response = Response(plan_for(self.hub, self.config, params, lines), sitting, None, self.emit)  # fmt: skip
        self.others[response.id] = response

        async def run() -> None:
            try:
                await response.run()
            finally:
                self.others.pop(response.id, None)
                await sitting.leave()
            await self.emit("response.done", response=response.wire())

        self.task(run())

    async def _given(self, params: ResponseParams) -> tuple[Line, ...]:
        """The input of one response: items of its own, and references to others."""
        lines: list[Line | None] = []
        for given in params.input or ():
            if isinstance(given, wire.Reference):
                lines.append(self.items.get(given.id).line())
            else:
                lines.append((await new_item(given, self.hub)).line())
        return tuple(line for line in lines if line is not None)

    async def _cancel(self, id: str | None) -> None:
        response = self.response if id is None else self.others.get(id)
        if response is None and self.response is not None and self.response.id == id:
            response = self.response
        if response is None:
            raise Problem(400, "no response is under way", code="response_cancel_not_active")
        await response.stop("client_cancelled")

    async def _ended(self, response: Response) -> None:
        while self.response is response:
            await asyncio.sleep(0.002)

    async def _limits(self) -> None:
        """What is left of the context."""
        session = self.sitting.session
        if session is None:
            return
        room, used = await self.sitting.call(lambda: (session.room, session.tokens))
        limit = {"name": "tokens", "limit": room + used, "remaining": room, "reset_seconds": 0.0}
        await self.emit("rate_limits.updated", rate_limits=[limit])

    async def end(self) -> None:
        """The client has gone: whatever is under way ends, and his seats are free."""
        for sitting in [self.sitting, *(response.sitting for response in self.others.values())]:
            sitting.abandon()
        tasks = list(self.tasks)
        for task in tasks:
            task.remove_done_callback(self._task_ended)  # what it meets on its way out is no news
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.sitting.leave()

    def task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task:
        """Something that goes on beside the rest, until its end or that of the conversation."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task) -> None:
        """Several may end by the same client's going, and only the first is asked why."""
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if not isinstance(error, None | WebSocketDisconnect | RuntimeError | OSError | Stalled):
            log.error("a realtime task failed", exc_info=error)
