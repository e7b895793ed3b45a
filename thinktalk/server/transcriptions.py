"""Transcriptions: POST /v1/audio/transcriptions. A recording -> what is said in it, whole or word by word.

    file --hub.decoded--> (samples, 16000) --"Transcribe the audio into text."--> text | transcript.text.* events

The model tells no times: srt, vtt and timestamps are refused, and verbose_json has no segments. `language` and `prompt` are hints
that it does without.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.responses import Response

from thinktalk.events import Done, Event, TextDelta
from thinktalk.omni import TRANSCRIBE
from thinktalk.server.asking import ask
from thinktalk.server.hub import Client, Hub, client_of, hub_of
from thinktalk.server.problems import ERRORS, Problem, problem_of
from thinktalk.server.sending import EVENTS, Sending, answered, event

__all__ = ["router"]

router = APIRouter()

FORMATS = ("json", "text", "verbose_json")


@router.post(
    "/v1/audio/transcriptions",
    tags=["audio"],
    response_model=None,
    responses=ERRORS
    | {200: {"description": "The words; with stream, transcript.text.* events",
             "content": {"application/json": {"schema": {"type": "object", "required": ["text"]}},
                         "text/plain": {"schema": {"type": "string"}},
                         **EVENTS}}},
)  # fmt: skip
async def transcriptions(
    request: Request,
    hub: Annotated[Hub, Depends(hub_of)],
    client: Annotated[Client, Depends(client_of)],
    file: UploadFile,
    model: Annotated[str | None, Form()] = None,
    response_format: Annotated[str, Form()] = "json",
    stream: Annotated[bool, Form()] = False,
    temperature: Annotated[float, Form(ge=0, le=2)] = 0.0,
    language: Annotated[str | None, Form(description="A hint that the model does without")] = None,
    prompt: Annotated[str | None, Form(description="A hint that the model does without")] = None,
    timestamp_granularities: Annotated[
        list[str] | None, Form(alias="timestamp_granularities[]")
    ] = None,
) -> Response:
    """Write down what is said."""
    hub.check_model(model)
    if response_format not in FORMATS:
        raise Problem(400, f"response_format: {response_format!r}, expected one of {', '.join(FORMATS)}; the model tells no times", param="response_format")  # fmt: skip
    if timestamp_granularities:
        raise Problem(400, "timestamp_granularities: the model tells no times", param="timestamp_granularities", code="unsupported_parameter")  # fmt: skip
    asked = Recording(hub, client, file, temperature)
    if stream:
        return await answered(request, Sending.begun(asked.told(), media_type="text/event-stream"))
    return await answered(request, asked.written(response_format, language))


@dataclass
class Recording:
    """One request."""

    hub: Hub
    client: Client
    file: UploadFile
    temperature: float
    seconds: float = 0.0

    async def events(self) -> AsyncGenerator[Event, None]:
        """What the model hears. Errors: Problem, InputError."""
        data = await self.file.read()
        pcm, rate = await self.hub.decoded("audio", data, name="file")
        self.seconds = len(pcm) / rate
        content = [{"type": "audio", "audio": (pcm, rate)}, {"type": "text", "text": TRANSCRIBE}]
        options = self.hub.options(
            speech=False, seed=0, text_sample=self.temperature > 0, text_temperature=self.temperature or None,
            max_text_tokens=self.hub.settings.max_text_tokens,
        )  # fmt: skip
        messages = [{"role": "user", "content": content}]
        async with aclosing(ask(self.hub, self.client, messages, options=options)) as events:
            async for now in events:
                yield now

    async def written(self, format: str, language: str | None) -> Response:
        """The whole text."""
        text, usage = "", {}
        async with aclosing(self.events()) as events:
            async for now in events:
                if isinstance(now, Done):
                    text, usage = now.reply.text.strip(), _usage(now)
        if format == "text":
            return PlainTextResponse(text + "\n")
        if format == "json":
            return JSONResponse({"text": text, "usage": usage})
        more = {"task": "transcribe", "language": language or "unknown", "duration": self.seconds}
        return JSONResponse(more | {"text": text, "usage": {"type": "duration", "seconds": self.seconds}})  # fmt: skip

    async def told(self) -> AsyncGenerator[bytes, None]:
        """The text as it comes."""
        sent = False
        try:
            async with aclosing(self.events()) as events:
                async for now in events:
                    match now:
                        case TextDelta():
                            yield event({"type": "transcript.text.delta", "delta": now.text})
                            sent = True
                        case Done():
                            text = now.reply.text.strip()
                            yield event({"type": "transcript.text.done", "text": text, "usage": _usage(now)})  # fmt: skip
        except Exception as error:
            if not sent:
                raise
            yield event({"type": "error", "error": problem_of(error).error})


def _usage(done: Done) -> dict[str, Any]:
    heard, written = done.reply.prompt_tokens, len(done.reply.token_ids)
    return {"type": "tokens", "input_tokens": heard, "output_tokens": written, "total_tokens": heard + written}  # fmt: skip
