"""Responding: one response of a Realtime session, from response.created to response.done.

    Sitting.respond --TextDelta--> calls taken out --> response.output_audio_transcript.delta | response.output_text.delta
                    --AudioChunk--> response.output_audio.delta (half a second each)
                    --Done--------> ... response.output_item.done, response.done with usage

Calls are written and never spoken. Stopping a response (stop) ends the model's work at once; what was sent until then stands
in the conversation until the client says how much of it was heard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from thinktalk.engine.alignment import Spoken
from thinktalk.engine.wording import Wording
from thinktalk.events import AudioChunk, ContextLimit, Done, Reply, TextDelta
from thinktalk.server.calls import Call, CallReader
from thinktalk.server.items import Item, Items, new_id
from thinktalk.server.problems import Problem, problem_of
from thinktalk.server.sitting import Scene, Sitting
from thinktalk.server.speaker import Speaker
from thinktalk.server.wire.realtime_session import Format

__all__ = ["Plan", "Response"]

log = logging.getLogger("thinktalk.server")

STOPPED = ("turn_detected", "client_cancelled")


@dataclass(frozen=True)
class Plan:
    """What a response is to be like."""

    scene: Scene
    speech: bool
    voice: str
    """As the client is told."""
    format: Format
    options: dict[str, Any]
    """Of Session.respond."""
    wording: Wording
    tools: bool
    """Whether calls are looked for."""
    max_output_tokens: int | str
    metadata: dict[str, str] | None = None


@dataclass(eq=False)
class Response:
    """One response. `items` None: it stands outside of the conversation."""

    plan: Plan
    sitting: Sitting
    items: Items | None
    emit: Callable[..., Awaitable[None]]
    id: str = field(default_factory=lambda: new_id("resp"))
    status: str = "in_progress"
    output: list[Item] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    seconds: float = 0.0
    """Sound sent."""
    reason: str | None = None
    """Why it was stopped."""
    error: Problem | None = None

    def __post_init__(self) -> None:
        self._after = "root" if self.items is None else self.items.last_id or "root"
        self._message: Item | None = None
        self._sent = ""  # text of the message
        self._spoken = Spoken()
        self._speaking = asyncio.Event()  # the engine works on it
        self._speaker: Speaker | None = None

    # ------------------------------------------------------------------------------------------------------- its course

    async def run(self) -> None:
        """All but response.done, which is due when this returns; whatever goes wrong is told there."""
        await self.emit("response.created", response=self.wire())
        finish = None
        try:
            if self.reason is None:
                finish = await self._work()
            self.status = "cancelled" if self.reason else "completed"
            if finish == "length" and not self.reason:
                self.status, self.reason = "incomplete", "max_output_tokens"
        except Exception as error:
            self.error = problem_of(error)
            if self.error.status == 500:
                log.error("a realtime response failed", exc_info=error)
            self.status = "failed"
        try:
            await self._close_message()
        finally:
            await self._settle()

    async def _work(self) -> str | None:
        """Have it said and pass it on; how the text ended, None when it was stopped."""
        await self.sitting.bring(lambda: self.plan.scene)
        if self.reason is not None:
            return None
        plan, reader = self.plan, CallReader() if self.plan.tools else None
        self._speaking.set()
        finish = None
        events = self.sitting.respond(speech=plan.speech, wording=plan.wording, **plan.options)
        async with aclosing(events):
            async for event in events:
                if self.reason is not None:  # stopped before the session had begun
                    break
                match event:
                    case TextDelta():
                        text, calls = (event.text, []) if reader is None else reader.push(event.text)  # fmt: skip
                        await self._pass_on(text, calls)
                    case AudioChunk():
                        await self._sound(event)
                    case ContextLimit() if finish is None:
                        finish = "length"
                    case Done():
                        finish = event.reply.finish
                        if reader is not None:
                            await self._pass_on(*reader.flush())
                        await self._sound_ends()
                        self._note(event.reply)
        return finish

    async def stop(self, reason: str) -> None:
        """End it at once: "turn_detected" or "client_cancelled"."""
        if self.status == "in_progress" and self.reason is None:
            self.reason = reason
            if self._speaking.is_set():
                await self.sitting.interrupt()

    async def _settle(self) -> None:
        """What was said stands in the conversation, and the sitting knows as what."""
        self._speaking.clear()
        if self.status == "failed":
            await self.sitting.leave()  # the session went back to before the turn
            return
        if self.items is None:
            return
        if self.reason in STOPPED and self._message is not None:
            self._message.parts = [await self._heard()]
        lines = [line for item in self.output if (line := item.line()) is not None]
        if self.reason in STOPPED and not lines:
            await (
                self.sitting.leave()
            )  # nothing was said: the user's turn goes on as if it had never ended
        else:
            self.sitting.replied([line.key for line in lines])

    async def _heard(self) -> str:
        """The words that the session kept."""
        session = self.sitting.session
        if session is None:
            return self._sent
        history = await self.sitting.call(lambda: session.history)
        last = history[-1] if history else {"role": ""}
        said = last["content"] if last["role"] == "assistant" else ""
        return said if isinstance(said, str) and self._sent.startswith(said) else self._sent

    # ------------------------------------------------------------------------------------------------------------ words

    async def _pass_on(self, text: str, calls: list[Call]) -> None:
        if text:
            await self._open_message()
            self._sent += text
            kind = "response.output_audio_transcript" if self.plan.speech else "response.output_text"  # fmt: skip
            await self.emit(f"{kind}.delta", **self._place(), delta=text)
        for call in calls:
            await self._call(call)

    async def _open_message(self) -> None:
        if self._message is not None:
            return
        item = self._message = Item("message", role="assistant", status="in_progress", reply=self.id)  # fmt: skip
        await self._add(item)
        kind = {"type": "audio", "transcript": ""} if self.plan.speech else {"type": "text", "text": ""}  # fmt: skip
        await self.emit("response.content_part.added", **self._place(), part=kind)

    async def _add(self, item: Item) -> None:
        """A new item of the output."""
        self.output.append(item)
        place = {"response_id": self.id, "output_index": len(self.output) - 1}
        before = None
        if self.items is not None:
            stands = self._after == "root" or self._after in (other.id for other in self.items)
            before = self.items.add(item, self._after if stands else None)
            self._after = item.id
        await self.emit("response.output_item.added", **place, item=item.wire())
        if self.items is not None:
            await self.emit("conversation.item.added", previous_item_id=before, item=item.wire())

    async def _done(self, item: Item, status: str = "completed") -> None:
        item.status = status
        if self.items is not None:
            place = list(self.items)
            at = next((n for n, other in enumerate(place) if other is item), 0)
            before = place[at - 1].id if at else None
            await self.emit("conversation.item.done", previous_item_id=before, item=item.wire())
        index = self.output.index(item)
        await self.emit("response.output_item.done", response_id=self.id, output_index=index, item=item.wire())  # fmt: skip

    def _place(self) -> dict[str, Any]:
        """Where the message's events belong."""
        assert self._message is not None
        index = self.output.index(self._message)
        return {"response_id": self.id, "item_id": self._message.id, "output_index": index, "content_index": 0}  # fmt: skip

    async def _close_message(self) -> None:
        """The message has ended, or was ended."""
        item = self._message
        if item is None:
            return
        speech, place, text = self.plan.speech, self._place(), self._sent
        item.parts, item.spoken = [text], self._spoken if self.seconds else None
        if speech:
            await self.emit("response.output_audio.done", **place)
            await self.emit("response.output_audio_transcript.done", **place, transcript=text)
            part, item.content = {"type": "audio", "transcript": text}, [{"type": "output_audio", "transcript": text}]  # fmt: skip
        else:
            await self.emit("response.output_text.done", **place, text=text)
            part, item.content = {"type": "text", "text": text}, [{"type": "output_text", "text": text}]  # fmt: skip
        await self.emit("response.content_part.done", **place, part=part)
        await self._done(item, "completed" if self.status == "completed" else "incomplete")

    async def _call(self, call: Call) -> None:
        """A function is to be called: an item of its own."""
        item = Item("function_call", role="assistant", status="in_progress", reply=self.id)
        item.call_id, item.name = new_id("call"), call.name
        await self._add(item)
        item.text = call.arguments
        place = {"response_id": self.id, "item_id": item.id, "output_index": len(self.output) - 1, "call_id": item.call_id}  # fmt: skip
        await self.emit("response.function_call_arguments.delta", **place, delta=call.arguments)
        await self.emit("response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments)  # fmt: skip
        await self._done(item)

    # ------------------------------------------------------------------------------------------------------------ sound

    async def _sound(self, chunk: AudioChunk) -> None:
        if self.reason is not None:
            return
        await self._open_message()
        if self._speaker is None:
            self._speaker = Speaker(self.plan.format, chunk.sample_rate)
        self._spoken.add(chunk.pcm, chunk.sample_rate)
        self.seconds = self._spoken.seconds
        await self._send(self._speaker.feed(chunk.pcm))

    async def _sound_ends(self) -> None:
        if self._speaker is not None:
            await self._send(self._speaker.feed(np.zeros(0, np.float32), last=True))

    async def _send(self, pieces: Iterator[str]) -> None:
        for piece in pieces:
            if self.reason is None:
                await self.emit("response.output_audio.delta", **self._place(), delta=piece)

    # ----------------------------------------------------------------------------------------------------------- the end

    def _note(self, reply: Reply) -> None:
        text, sound = len(reply.token_ids), len(reply.codes or ())
        self.usage = {
            "total_tokens": reply.prompt_tokens + text + sound,
            "input_tokens": reply.prompt_tokens,
            "output_tokens": text + sound,
            "output_token_details": {"text_tokens": text, "audio_tokens": sound},
        }
        self.latency = None if reply.latency is None else asdict(reply.latency)

    def wire(self) -> dict[str, Any]:
        """As events show it."""
        plan = self.plan
        details: dict[str, Any] | None = None
        if self.status != "in_progress":
            details = {"type": self.status, "reason": self.reason}
            if self.error is not None:
                details["error"] = {"type": self.error.type, "code": self.error.code, "message": self.error.message}  # fmt: skip
        shown: dict[str, Any] = {
            "id": self.id, "object": "realtime.response", "status": self.status, "status_details": details,
            "output": [item.wire() for item in self.output], "output_modalities": ["audio" if plan.speech else "text"],
            "max_output_tokens": plan.max_output_tokens, "metadata": plan.metadata, "usage": self.usage,
            "conversation_id": None if self.items is None else "conv_1",
            "audio": {"output": {"format": plan.format.model_dump(exclude_none=True), "voice": plan.voice}},
        }  # fmt: skip
        return shown | ({"latency": self.latency} if self.latency is not None else {})
