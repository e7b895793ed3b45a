"""The hub: a conversation through it says what the model says alone; who waits, who is refused, who is freed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from thinktalk.events import Done
from thinktalk.server.hub import Client, Hub

HELLO = [{"role": "user", "content": "Hello."}]


async def answer(hub: Hub, messages=HELLO, client: str = "a", **changes):
    options = hub.options(greedy=True, seed=0)
    async with (
        hub.conversation(Client(client), messages=messages, options=options, **changes) as session,
        aclosing(hub.respond(session)) as events,
    ):
        *_, last = [event async for event in events]
    assert isinstance(last, Done)
    return last.reply


def test_answers_as_the_model_does(hub: Hub):
    async def main():
        async with hub:
            return await answer(hub)

    reply = asyncio.run(main())
    alone = hub.omni.chat(HELLO, greedy=True, seed=0, max_codes=20, max_text_tokens=8, flow_points=3, flow_method="euler")  # fmt: skip
    assert reply.token_ids == alone.token_ids and reply.codes == alone.codes
    assert hub.conversations == 0
