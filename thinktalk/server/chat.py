"""Chat: POST /v1/chat/completions. Text, sound, pictures and video in; text, sound and calls out, whole or as they are made.

    request --read_messages--> messages --hub.prepared--> arrays --conversation, respond--> TextDelta, AudioChunk, ..., Done
            whole:   choices[0].message: content | audio {id, data, transcript} | tool_calls
            stream:  delta.content | delta.audio {id, transcript | data} | delta.tool_calls, ..., [DONE]

As OpenAI has it, words that are spoken are the audio's transcript and not content. Whoever sends back `audio.id` in a later
request gets the words he was told; they are kept for an hour in this process' memory.
"""

from __future__ import annotations

import json
import secrets
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from thinktalk.engine.wording import Wording
from thinktalk.events import AudioChunk, Done, Event, Reply, TextDelta
from thinktalk.server.asking import ask
from thinktalk.server.calls import CLOSE, OPEN, Call, CallReader, call_text
from thinktalk.server.encode import Encoder, encode
from thinktalk.server.hub import Client, Hub, client_of, hub_of
from thinktalk.server.incoming import read_messages
from thinktalk.server.problems import ERRORS, Problem, problem_of
from thinktalk.server.said import KEPT_S, Said
from thinktalk.server.sending import EVENTS, Sending, answered, event
from thinktalk.server.wire.chat import ChatCompletion, ChatRequest, NamedChoice, Tool

__all__ = ["Words", "router"]

router = APIRouter()


@router.post(
    "/v1/chat/completions",
    tags=["chat"],
    response_model=None,
    responses=ERRORS
    | {200: {"model": ChatCompletion, "description": "The answer; with stream, chat.completion.chunk events",
             "content": EVENTS}},
)  # fmt: skip
async def chat_completions(
    asked: ChatRequest,
    request: Request,
    hub: Annotated[Hub, Depends(hub_of)],
    client: Annotated[Client, Depends(client_of)],
) -> Response:
    """Answer a conversation."""
    state = request.app.state
    if not hasattr(state, "said"):
        state.said = Said()
    await state.said.fetch(client, [m.audio.id for m in asked.messages if m.audio is not None])
    answer = Answer(hub, client, asked, state.said)
    if asked.stream:
        return await answered(request, Sending.begun(answer.stream(), media_type="text/event-stream"))  # fmt: skip
    return await answered(request, answer.whole())


class Words:
    """A reply's text as it comes: what is said, and calls of those functions that exist."""

    def __init__(self, names: set[str]):
        self.names, self.text, self.calls = names, "", list[Call]()
        self._reader = CallReader() if names else None

    def push(self, piece: str) -> tuple[str, list[Call]]:
        """What is new of both."""
        return self._sort(*(self._reader.push(piece) if self._reader else (piece, [])))

    def flush(self) -> tuple[str, list[Call]]:
        """The same at the end."""
        return self._sort(*self._reader.flush()) if self._reader else ("", [])

    def _sort(self, said: str, found: list[Call]) -> tuple[str, list[Call]]:
        calls = [call for call in found if call.name in self.names]
        # whoever looks a function up by its name must find it: a call of none stays text
        said += "".join("\n" + call_text(c.name, c.arguments) for c in found if c not in calls)
        self.text += said
        self.calls += calls
        return said, calls


@dataclass
class Answer:
    """One request and its answer. Errors of what is asked for: Problem, from the start."""

    hub: Hub
    client: Client
    asked: ChatRequest
    said: Said
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    audio_id: str = field(default_factory=lambda: f"audio_{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        asked, hub = self.asked, self.hub
        self.model = hub.check_model(asked.model)
        refused = asked.unsupported()
        if refused is not None:
            name, have = refused
            raise Problem(400, f"{name}: this server gives {have}", param=name, code="unsupported_parameter")  # fmt: skip
        if len(asked.tools or ()) > hub.settings.max_tools:
            raise Problem(400, f"tools: {len(asked.tools or ())}, expected at most {hub.settings.max_tools}", param="tools")  # fmt: skip
        self.speaks = asked.speaks
        self.tools: list[Tool] = [] if asked.tool_choice == "none" else asked.tools or []
        self.names = {tool.function.name for tool in self.tools}
        self.wording = self._wording()
        self.voice = hub.voice(asked.audio.voice_name if asked.audio else None) if self.speaks else None  # fmt: skip
        self.format = asked.audio.format if asked.audio else "wav"
        self.expires_at = self.created + KEPT_S
        temperature, top_p = asked.temperature, asked.top_p
        samples: bool | None = None
        if temperature is not None or top_p is not None:
            samples = temperature != 0 and top_p != 0
        self.options = hub.options(
            speech=self.speaks,
            seed=None if asked.seed is None else asked.seed % (1 << 31),
            max_text_tokens=asked.max_completion_tokens or asked.max_tokens,
            text_sample=samples,
            text_temperature=temperature or None,
            text_top_p=top_p or None,
        )

    def _wording(self) -> Wording:
        """Calls are not spoken; where one is required, the answer begins with it."""
        choice, begins = self.asked.tool_choice, ""
        if isinstance(choice, NamedChoice):
            name = choice.function.name
            if name not in self.names:
                raise Problem(400, f"tool_choice: {name!r} is not among the tools", param="tool_choice")  # fmt: skip
            begins = f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments":'
        elif choice == "required":
            if not self.names:
                raise Problem(400, "tool_choice: required, and there are no tools", param="tool_choice")  # fmt: skip
            begins = f'{OPEN}\n{{"name":'
        one = self.names and self.asked.parallel_tool_calls is False
        return Wording(
            given=tuple(self.hub.omni.tokenizer.encode(begins)) if begins else (),
            stop=self.asked.stops + ((CLOSE,) if one else ()),
            unspoken=(OPEN,) if self.names else (),
        )

    # ---------------------------------------------------------------------------------------------------------- its making

    async def events(self) -> AsyncIterator[Event]:
        """What the model says. Errors: Problem, ThinktalkError."""
        hub, asked = self.hub, self.asked
        read = partial(
            read_messages, asked.messages, tools=self.tools, speech=self.speaks, use_audio=asked.use_audio_in_video,
            said=lambda id: self.said.find(self.client, id),
        )  # fmt: skip
        plain = all(isinstance(message.content, str | None) for message in asked.messages)
        messages = (
            read() if plain else await hub.call(read)
        )  # media are base64, which takes its time
        answering = ask(
            hub, self.client, messages, options=self.options, voice=self.voice, wording=self.wording
        )
        async with aclosing(answering) as events:
            async for event in events:
                yield event

    async def whole(self) -> Response:
        """The answer when all of it is there."""
        reply: Reply | None = None
        async with aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, Done):
                    reply = event.reply
        if reply is None:
            raise Problem(503, "the answer was stopped; ask again", code="interrupted")
        words = Words(self.names)
        words.push(reply.text)
        words.flush()
        text, calls = words.text, words.calls
        if calls:
            text = text.strip()  # the template writes a call on a line of its own
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"tool_calls": [_call(call) for call in calls], "content": text or None}
        if self.speaks and (text or not calls):
            audio, rate = reply.audio, reply.sample_rate
            data = await self.hub.call(lambda: b64encode(encode(audio, self.format, rate)).decode())
            self.said.keep(self.client, self.audio_id, text, self.expires_at)
            message["content"] = None
            message["audio"] = {"id": self.audio_id, "data": data, "expires_at": self.expires_at, "transcript": text}  # fmt: skip
        choice = {"index": 0, "message": message, "finish_reason": _finish(reply, calls), "logprobs": None}  # fmt: skip
        return JSONResponse(self._head("chat.completion") | {"choices": [choice], "usage": _usage(reply)} | _latency(reply))  # fmt: skip

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events. What fails after the first one is told in the last one."""
        sent = False
        try:
            async with aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    yield event(chunk)
                    sent = True
            yield event("[DONE]")
        except Exception as error:
            if not sent:
                raise
            yield event({"error": problem_of(error).error})

    async def _chunks(self) -> AsyncIterator[dict[str, Any]]:
        words = Words(self.names)
        encoder = Encoder(self.format, self.hub.engine.sample_rate) if self.speaks else None
        reply: Reply | None = None
        audio = {"audio": {"id": self.audio_id}} if self.speaks else {"content": ""}
        begins: list[dict[str, Any]] = [{"role": "assistant", "refusal": None} | audio]
        async with aclosing(self.events()) as events:
            async for now in events:
                deltas: list[dict[str, Any]] = []
                match now:
                    case TextDelta():
                        deltas = self._told(words, *words.push(now.text))
                    case AudioChunk() if encoder is not None:
                        feed = partial(encoder.feed, now.pcm)
                        deltas = self._heard(feed() if encoder.quick else await self.hub.call(feed))
                    case Done():
                        reply = now.reply
                        deltas = self._told(words, *words.flush())
                        if encoder is not None:
                            quick, close = encoder.quick, encoder.close
                            deltas += self._heard(close() if quick else await self.hub.call(close))
                for delta in begins + deltas:
                    yield self._chunk(delta)
                begins = []
        if reply is None:
            raise Problem(503, "the answer was stopped; ask again", code="interrupted")
        if self.speaks:
            self.said.keep(self.client, self.audio_id, words.text, self.expires_at)
            yield self._chunk({"audio": {"id": self.audio_id, "expires_at": self.expires_at}})
        yield self._chunk({}, _finish(reply, words.calls)) | _latency(reply)
        if self.asked.stream_options is not None and self.asked.stream_options.include_usage:
            yield self._head("chat.completion.chunk") | {"choices": [], "usage": _usage(reply)}

    def _told(self, words: Words, said: str, calls: list[Call]) -> list[dict[str, Any]]:
        """Deltas of text and of calls."""
        audio = {"id": self.audio_id, "transcript": said}
        deltas = [{"audio": audio} if self.speaks else {"content": said}] if said else []
        first = len(words.calls) - len(calls)
        return deltas + [{"tool_calls": [{"index": n} | _call(call)]} for n, call in enumerate(calls, first)]  # fmt: skip

    def _heard(self, data: bytes) -> list[dict[str, Any]]:
        """Deltas of sound."""
        return [{"audio": {"id": self.audio_id, "data": b64encode(data).decode()}}] if data else []

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._head("chat.completion.chunk") | {"choices": [choice]}


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _finish(reply: Reply, calls: list[Call]) -> str:
    return "tool_calls" if calls else reply.finish


def _usage(reply: Reply) -> dict[str, Any]:
    """Codes are tokens, too: 50 for each second of sound."""
    text, sound = len(reply.token_ids), len(reply.codes or ())
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": text + sound,
        "total_tokens": reply.prompt_tokens + text + sound,
        "completion_tokens_details": {"text_tokens": text, "audio_tokens": sound, "reasoning_tokens": 0},
    }  # fmt: skip


def _latency(reply: Reply) -> dict[str, Any]:
    """Our own: what the listener waited for (docs/latency.md)."""
    return {} if reply.latency is None else {"latency": asdict(reply.latency)}
