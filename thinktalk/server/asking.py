"""Asking: a conversation that has one answer -> its events. What HTTP routes are made of; a socket keeps its session.

async with aclosing(ask(hub, client, messages, options=...)) as events: ...      TextDelta, AudioChunk, ..., Done
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from thinktalk.engine.wording import Wording
from thinktalk.events import ContextLimit, Event
from thinktalk.pipeline import Options
from thinktalk.server.hub import Client, Hub
from thinktalk.server.problems import Problem

__all__ = ["ask"]


async def ask(
    hub: Hub,
    client: Client,
    messages: Sequence[Mapping[str, Any]],
    *,
    options: Options,
    voice: str | None = None,
    wording: Wording | None = None,
) -> AsyncGenerator[Event, None]:
    """What the model answers, spoken with `voice` when the options say so; ends with Done. Errors: Problem, ThinktalkError."""
    limit: ContextLimit | None = None
    done = False
    ready = await hub.prepared(messages)
    async with (
        hub.conversation(client, voice=voice, speech=options.speech, messages=ready, options=options) as session,
        aclosing(hub.respond(session, last=True, wording=wording or Wording())) as events,
    ):  # fmt: skip
        async for event in events:
            if isinstance(event, ContextLimit):
                limit = event  # before Done: the answer was cut, as its finish says; alone: there is none
            else:
                done = True
                yield event
    if not done and limit is not None:
        raise Problem(
            400, f"messages: {limit.tokens} tokens, expected at most {limit.limit}; shorten them",
            param="messages", code="context_length_exceeded",
        )  # fmt: skip
    if not done:
        raise Problem(503, "the answer was stopped; ask again", code="interrupted")
