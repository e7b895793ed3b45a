"""/v1/realtime: one WebSocket, one conversation, in OpenAI's Realtime protocol (GA names).

    socket --read_event--> Talk.take --> microphone, items, responses --emit--> Outbox --> socket
                                |
                              Scene  what the model is to have read --> Sitting (a seat at the engine)

Four tasks: one takes events, one sends them, one has the seat read along while somebody speaks, one minds the clock (idle
time, the end of the server). A response is a task, too. When the socket goes all of them are ended and the seat is free.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Annotated

from fastapi import APIRouter, Depends, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from thinktalk.server.hub import Client, Hub, client_of, hub_of
from thinktalk.server.outbox import Outbox, Stalled
from thinktalk.server.problems import Problem, problem_of
from thinktalk.server.talk import Talk
from thinktalk.server.wire.realtime import read_event

__all__ = ["router"]

log = logging.getLogger("thinktalk.server")
router = APIRouter()

GOING_AWAY, POLICY, TRY_AGAIN = 1001, 1008, 1013
FLUSH_S = 2.0  # how long the last events may take to leave


@router.websocket("/v1/realtime")
async def realtime(
    socket: WebSocket,
    hub: Annotated[Hub, Depends(hub_of)],
    client: Annotated[Client, Depends(client_of)],
    model: str | None = None,
) -> None:
    """A conversation. It has its seat before the socket is accepted: a full server answers 429 and Retry-After."""
    talk = Talk(hub, client)
    try:
        await talk.open(hub.check_model(model))
    except Exception as error:
        problem = problem_of(error)
        if problem.status == 500:
            log.error("a realtime session could not begin", exc_info=error)
        await talk.end()
        await socket.send_denial_response(problem.response())
        return
    offered = socket.scope.get("subprotocols") or []
    try:
        await socket.accept("realtime" if "realtime" in offered else None)
        await _serve(socket, hub, talk)
    finally:  # whoever cancels this, and however often: the seat becomes free
        await asyncio.shield(asyncio.create_task(talk.end()))


async def _serve(socket: WebSocket, hub: Hub, talk: Talk) -> None:
    """Until the client goes, or has to go."""
    outbox = Outbox(socket.send_text)
    talk.outbox = outbox
    work = (outbox.run(), _receive(socket, hub, talk), _until_end(hub, talk), talk.read_along(), talk.mind_idleness())  # fmt: skip
    tasks = [talk.task(each) for each in work]
    await talk.begin()
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    code, reason = 1000, ""
    for task in done:
        try:
            code, reason = task.result() or (code, reason)
        except Stalled as stalled:
            code, reason = POLICY, f"the client does not read: {stalled}"
        except (WebSocketDisconnect, RuntimeError, OSError) as gone:
            log.debug("a realtime client has gone: %r", gone)
            return
    await outbox.flush(FLUSH_S)
    if socket.client_state is socket.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(FLUSH_S):
                await socket.close(code, reason[:100])


async def _receive(socket: WebSocket, hub: Hub, talk: Talk) -> None:
    """Every event of the client; what is wrong with one is told, and the next is taken."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1000)
        text, event_id = message.get("text"), None
        try:
            if text is None:
                raise Problem(400, "binary frames are not part of this protocol; send JSON text", code="invalid_json")  # fmt: skip
            if len(text) > hub.settings.max_body_bytes:
                raise Problem(413, f"an event of {len(text)} characters, expected at most {hub.settings.max_body_bytes}", code="event_too_large")  # fmt: skip
            event = read_event(text)
            event_id = event.event_id
            await talk.take(event)
        except Exception as error:
            problem = problem_of(error)
            if problem.status == 500:
                log.error("a realtime event failed", exc_info=error)
            await talk.emit("error", error=problem.error | {"event_id": event_id})


async def _until_end(hub: Hub, talk: Talk) -> tuple[int, str]:
    """The session's longest time, or the server's last: the reply under way may still end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(hub.settings.session_seconds):
            await hub.draining.wait()
    if hub.draining.is_set():
        await talk.quiet()
        code, why = "draining", "the server is about to end; connect again in a moment"
    else:
        code, why = "session_expired", f"a session lasts at most {hub.settings.session_seconds:g} s; connect again"  # fmt: skip
    await talk.emit("error", error={"type": "server_error", "code": code, "message": why, "param": None, "event_id": None})  # fmt: skip
    return GOING_AWAY, why
