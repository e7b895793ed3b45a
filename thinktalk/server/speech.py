"""Speech: POST /v1/audio/speech. A text, word for word, as sound in a voice; it leaves while it is made.

    input --tokens--> the Thinker is made to say them (engine/wording.py) -> Talker -> code2wav -> Encoder -> bytes | events

The same words, codes and sound as omni.say. flac alone is sent whole: many readers refuse one that does not say its length.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from thinktalk.engine.wording import Wording
from thinktalk.events import AudioChunk, Done, Reply
from thinktalk.omni import READ_ALOUD
from thinktalk.server.asking import ask
from thinktalk.server.encode import MEDIA_TYPES, Encoder
from thinktalk.server.hub import Client, Hub, client_of, hub_of
from thinktalk.server.problems import ERRORS, Problem, problem_of
from thinktalk.server.sending import EVENTS, Sending, answered, event
from thinktalk.server.wire.speech import SpeechRequest

__all__ = ["router"]

router = APIRouter()

SOUND = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/v1/audio/speech",
    tags=["audio"],
    response_model=None,
    responses=ERRORS
    | {200: {"description": "The sound, or with stream_format sse speech.audio.* events",
             "content": dict.fromkeys([*sorted(set(MEDIA_TYPES.values()))], SOUND)
             | EVENTS}},
)  # fmt: skip
async def speech(
    asked: SpeechRequest,
    request: Request,
    hub: Annotated[Hub, Depends(hub_of)],
    client: Annotated[Client, Depends(client_of)],
) -> Response:
    """Say a text."""
    hub.check_model(asked.model)
    refused = asked.unsupported()
    if refused is not None:
        raise Problem(400, f"{refused[0]}: {refused[1]}", param=refused[0], code="unsupported_parameter")  # fmt: skip
    tokens = hub.omni.tokenizer.encode(asked.input)
    options = hub.options(
        seed=None if asked.seed is None else asked.seed % (1 << 31), max_codes=hub.settings.max_codes
    )  # fmt: skip
    generation = replace(options.generation, max_text_tokens=len(tokens) + 1)
    events = ask(
        hub, client, [{"role": "user", "content": READ_ALOUD + asked.input}],
        options=replace(options, generation=generation), voice=hub.voice(asked.voice_name),
        wording=Wording(given=tuple(tokens), ends=True),
    )  # fmt: skip
    sound = _sound(hub, events, asked.response_format)
    if asked.stream_format == "sse":
        return await answered(request, Sending.begun(_told(sound), media_type="text/event-stream"))
    kind = MEDIA_TYPES[asked.response_format]
    return await answered(request, Sending.begun(_bytes(sound), media_type=kind))


async def _sound(hub: Hub, events: AsyncGenerator, format: str) -> AsyncIterator[bytes | Reply]:
    """Encoded sound as it comes, and the reply at the end."""
    encoder = Encoder(format, hub.engine.sample_rate, whole=format == "flac")
    async with aclosing(events):
        async for now in events:
            match now:
                case AudioChunk():
                    feed = partial(encoder.feed, now.pcm)
                    yield feed() if encoder.quick else await hub.call(feed)
                case Done():
                    yield await hub.call(encoder.close)
                    yield now.reply


async def _bytes(sound: AsyncIterator[bytes | Reply]) -> AsyncGenerator[bytes, None]:
    async with aclosing(sound):
        async for piece in sound:
            if isinstance(piece, bytes) and piece:
                yield piece


async def _told(sound: AsyncIterator[bytes | Reply]) -> AsyncGenerator[bytes, None]:
    sent = False
    try:
        async with aclosing(sound):
            async for piece in sound:
                if isinstance(piece, Reply):
                    heard, said = piece.prompt_tokens, len(piece.codes or ())
                    usage = {"input_tokens": heard, "output_tokens": said, "total_tokens": heard + said}  # fmt: skip
                    yield event({"type": "speech.audio.done", "usage": usage})
                elif piece:
                    yield event({"type": "speech.audio.delta", "audio": b64encode(piece).decode()})
                    sent = True
    except Exception as error:
        if not sent:
            raise
        yield event({"type": "error", "error": problem_of(error).error})
