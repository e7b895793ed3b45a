"""The unmodified openai client against `thinktalk serve` in a process of its own: a spoken question, an interruption, goodbye."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
from openai import AsyncOpenAI
from realtime_rig import padded, pcm16, question
from serving import Server


async def conversation(server: Server) -> list:
    """Every event of a call in which somebody asks twice."""
    client = AsyncOpenAI(
        api_key="none", base_url=server.base_url, websocket_base_url=server.websocket_base_url
    )
    events = []
    async with asyncio.timeout(120), client.realtime.connect(model="tiny") as call:

        async def until(kind: str):
            async for event in call:
                events.append(event)
                assert event.type != "error", event
                if event.type == kind:
                    return event

        await until("session.created")
        detection = {"type": "server_vad", "silence_duration_ms": 300}
        await call.session.update(session={"type": "realtime", "instructions": "Be brief.", "audio": {"input": {"turn_detection": detection}}})  # fmt: skip
        await until("session.updated")
        pcm = pcm16(padded(question(), before_s=0.3, after_s=0.6, rate=24_000))
        for start in range(0, len(pcm), 9600):
            piece = base64.b64encode(pcm[start : start + 9600]).decode()
            await call.input_audio_buffer.append(audio=piece)
        done = await until("response.done")
        (item,) = done.response.output
        await call.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=100)
        await until("conversation.item.truncated")
        await call.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Why?"}]}
        )  # fmt: skip
        await call.response.create(response={"output_modalities": ["text"]})
        await until("response.done")
    await client.close()
    return events


def test_openais_client_speaks_is_answered_and_interrupts(server: Server):
    events = asyncio.run(conversation(server))
    kinds = [event.type for event in events]
    for kind in ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "response.output_audio_transcript.delta", "response.output_text.done"):  # fmt: skip
        assert kind in kinds, kind
    sound = b"".join(base64.b64decode(e.delta) for e in events if e.type == "response.output_audio.delta")  # fmt: skip
    assert len(np.frombuffer(sound, "<i2")) == 20 * 480
    done = [event.response for event in events if event.type == "response.done"]
    assert [response.status in ("completed", "incomplete") for response in done] == [True, True]
    assert done[0].usage.output_token_details.audio_tokens == 20
