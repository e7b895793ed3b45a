"""Writing down: what a user said -> its words, by the model itself on another seat, while the answer is made.

    conversation.item.input_audio_transcription.delta ... .completed | .failed

It is what this model hears, so it helps to understand the answer; a server without room for it says so and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from thinktalk.events import Done, TextDelta
from thinktalk.omni import TRANSCRIBE
from thinktalk.server.hub import Client, Hub
from thinktalk.server.items import RATE, Item, Sound
from thinktalk.server.problems import problem_of
from thinktalk.server.wire.realtime_session import Transcription

__all__ = ["write_down"]

log = logging.getLogger("thinktalk.server")


async def write_down(
    hub: Hub,
    client: Client,
    item: Item,
    sound: Sound,
    how: Transcription,
    emit: Callable[..., Awaitable[None]],
) -> None:
    """Write the words of an item; what goes wrong is told as the protocol does."""
    kind = "conversation.item.input_audio_transcription"
    place = {"item_id": item.id, "content_index": 0}
    asked = TRANSCRIBE if how.prompt is None else f"{TRANSCRIBE} {how.prompt}"
    content = [
        {"type": "audio", "audio": (sound.read(), RATE)},
        {"type": "text", "text": asked},
    ]
    messages = [{"role": "user", "content": content}]
    options = hub.options(speech=False, text_sample=False)
    try:
        async with (
            hub.conversation(client, speech=False, messages=messages, options=options) as session,
            aclosing(hub.respond(session, last=True)) as events,
        ):
            async for event in events:
                match event:
                    case TextDelta():
                        await emit(f"{kind}.delta", **place, delta=event.text)
                    case Done():
                        text = event.reply.text.strip()
                        for part in item.content:
                            part["transcript"] = text
                        heard, written = event.reply.prompt_tokens, len(event.reply.token_ids)
                        usage = {"type": "tokens", "input_tokens": heard, "output_tokens": written, "total_tokens": heard + written}  # fmt: skip
                        await emit(f"{kind}.completed", **place, transcript=text, usage=usage)
    except Exception as error:
        problem = problem_of(error)
        if problem.status == 500:
            log.error("a transcription failed", exc_info=error)
        await emit(f"{kind}.failed", **place, error=problem.error)
