"""Talk: one Realtime conversation: events of the client in (take), events of the server out (emit).

    microphone  what is being said      items  what was said      response  what is being answered

All state is touched in one event loop. Only one response at a time writes into the conversation; others (conversation: none)
have a seat of their own.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
import time
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from thinktalk.server.answers import Answers
from thinktalk.server.hub import Client, Hub
from thinktalk.server.items import Item, Line, Media, new_id
from thinktalk.server.judging import Judge, likely_complete
from thinktalk.server.microphone import Began, Ended, Microphone, Utterance
from thinktalk.server.planning import system_of
from thinktalk.server.problems import Problem, problem_of
from thinktalk.server.responding import Response
from thinktalk.server.sitting import Scene
from thinktalk.server.uptake import new_item
from thinktalk.server.wire import realtime as wire
from thinktalk.server.wire.realtime import ResponseParams
from thinktalk.server.wire.realtime_session import ServerVad, SessionConfig, updated
from thinktalk.server.writing import write_down

__all__ = ["Talk"]

log = logging.getLogger("thinktalk.server")


class Talk(Answers):
    """One client's conversation."""

    def __init__(self, hub: Hub, client: Client):
        super().__init__(hub, client)
        self.id = new_id("sess")
        self._microphone: Microphone | None = None
        self._judge: Judge | None = None

    # ------------------------------------------------------------------------------------------------- beginning and end

    async def open(self, model: str) -> None:
        """Take a seat. Errors: Problem (no room, no such model)."""
        modalities = ["audio"] if self.hub.omni.can_speak else ["text"]
        self.config = SessionConfig(model=model, output_modalities=modalities)
        settings = self.hub.settings
        if settings.turn_threshold is not None:
            self._judge = Judge(
                self._likely_complete, spawn=self.task, told=self.hub.metrics.judgement
            )
        self._microphone = Microphone(
            self.config.audio.input, most_s=settings.max_audio_seconds,
            finished=self._judge, complete=settings.turn_threshold or 0.5,
        )  # fmt: skip
        await self.sitting.bring(self._scene)

    async def begin(self) -> None:
        """The first event."""
        await self.emit("session.created", session=self._session())

    @property
    def microphone(self) -> Microphone:
        """What is heard."""
        assert self._microphone is not None, "open() comes first"
        return self._microphone

    def _session(self) -> dict[str, Any]:
        shown = self.config.model_dump(exclude_none=True)
        shown["audio"]["input"].setdefault("turn_detection", None)
        shown["audio"]["output"]["voice"] = self._voice() if self.hub.omni.can_speak else "none"
        shown["audio"]["output"].setdefault("speed", 1.0)
        return shown | {"id": self.id, "object": "realtime.session"}

    def _voice(self) -> str:
        return self.hub.voice(self.config.audio.output.voice_name)

    def _scene(self, extra: Sequence[Line] = ()) -> Scene:
        """Where the conversation stands, as the session's own responses see it."""
        speech = "audio" in self.config.output_modalities
        system = system_of(self.config, ResponseParams(), speech=speech)
        return Scene(system, self._voice() if speech else None, self.items.lines(extra))

    # ------------------------------------------------------------------------------------------------------------ events

    async def take(self, event: wire.ClientEvent) -> None:
        """One event of the client. Errors: whatever is wrong with it."""
        match event:
            case wire.SessionUpdate():
                await self._update(event.session)
            case wire.Append():
                await self._append(event.audio)
            case wire.Commit():
                await self._commit(self.microphone.commit())
            case wire.Clear():
                self.microphone.clear()
                await self.emit("input_audio_buffer.cleared")
            case wire.OutputClear():
                raise Problem(400, "output_audio_buffer.clear belongs to WebRTC; over a WebSocket stop playing and send conversation.item.truncate", code="not_supported")  # fmt: skip
            case wire.ItemCreate():
                item = await new_item(event.item, self.hub)
                await self._created(item, event.previous_item_id)
            case wire.ItemRetrieve():
                item = self.items.get(event.item_id)
                await self.emit("conversation.item.retrieved", item=item.wire(audio=True))
            case wire.ItemTruncate():
                await self._truncate(event)
            case wire.ItemDelete():
                item = self.items.get(event.item_id)
                if self.response is not None and item in self.response.output:
                    raise Problem(400, f"item {item.id!r} is still being said; cancel the response first", param="item_id", code="item_in_use")  # fmt: skip
                self.items.remove(item.id)
                await self.emit("conversation.item.deleted", item_id=item.id)
            case wire.ResponseCreate():
                await self._create_response(event.response)
            case wire.ResponseCancel():
                await self._cancel(event.response_id)

    async def _update(self, changes: dict[str, Any]) -> None:
        config = updated(self.config, changes)
        if len(config.tools) > self.hub.settings.max_tools:
            raise Problem(400, f"session.tools: {len(config.tools)}, expected at most {self.hub.settings.max_tools}", param="session.tools")  # fmt: skip
        if config.instructions and len(config.instructions) > self.hub.settings.max_text_chars:
            raise Problem(413, f"session.instructions: {len(config.instructions)} characters, expected at most {self.hub.settings.max_text_chars}", param="session.instructions")  # fmt: skip
        if config.model != self.config.model:
            self.hub.check_model(config.model)
        if "audio" in config.output_modalities:
            if not self.hub.omni.can_speak:
                raise Problem(400, "session.output_modalities: this server's model writes only; use [\"text\"]", param="session.output_modalities")  # fmt: skip
            self.hub.voice(config.audio.output.voice_name)
        self.microphone.configure(config.audio.input)
        self.config = config
        await self.emit("session.updated", session=self._session())

    # ------------------------------------------------------------------------------------------------------------- sound

    async def _append(self, audio: str) -> None:
        try:
            data = b64decode(audio, validate=True)
        except (binascii.Error, ValueError):
            raise Problem(400, "audio: not base64", param="audio", code="invalid_audio") from None
        for happened in await self.hub.call(lambda: self.microphone.hear(data)):
            match happened:
                case Began(utterance=utterance):
                    await self._began(utterance)
                case Ended(utterance=utterance, end_ms=end_ms):
                    await self.emit("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=utterance.id)  # fmt: skip
                    await self._commit(utterance, ended=True)
        self.news.set()

    async def _began(self, utterance: Utterance) -> None:
        self.idle_since = None
        detection, response = self.microphone.detection, self.response
        await self.emit("input_audio_buffer.speech_started", audio_start_ms=utterance.start_ms, item_id=utterance.id)  # fmt: skip
        if response is not None and detection is not None and detection.interrupt_response:
            await response.stop("turn_detected")

    async def _commit(self, utterance: Utterance, *, ended: bool = False) -> None:
        """What was said is a message now; where turns are found by us, it is answered."""
        item = Item("message", id=utterance.id, parts=[utterance.sound])
        item.content = [{"type": "input_audio", "transcript": None}]
        before = self.items.add(item)
        await self.emit("input_audio_buffer.committed", previous_item_id=before, item_id=item.id)
        await self._show(item, before)
        transcription = self.config.audio.input.transcription
        if transcription is not None:
            self.task(write_down(self.hub, self.client, item, utterance.sound, transcription, self.emit))  # fmt: skip
        self.news.set()
        detection = self.microphone.detection
        if ended and detection is not None and detection.create_response:
            await self._answer()

    async def read_along(self) -> None:
        """Have the seat read what is being said while it is being said; not during an answer, which it would wait for."""
        while True:
            await self.news.wait()
            self.news.clear()
            try:
                await self.sitting.bring(self._scene_now)
            except Exception as error:  # the response that needs it will tell
                log.info("reading along: %s", problem_of(error).message)

    async def _likely_complete(self) -> float | None:
        """Whether what is being said is complete, as the model sees it; None where it cannot be asked: it is answering."""
        if self.response is not None:
            return None
        await self.sitting.bring(self._scene_now)
        session, tokenizer = self.sitting.session, self.hub.omni.tokenizer
        if session is None or session.replying:
            return None
        return await self.sitting.call(lambda: likely_complete(session, tokenizer))

    def _scene_now(self) -> Scene | None:
        """With what is being said; None during an answer."""
        return None if self.response is not None else self._scene(self._open_line())

    def _open_line(self) -> list[Line]:
        """What is being said, as far as it goes."""
        utterance = self.microphone.utterance
        if utterance is None or not utterance.sound.samples:
            return []
        return [Line((utterance.id, 0), "user", (utterance.sound,))]

    # ------------------------------------------------------------------------------------------------------------- items

    async def _created(self, item: Item, after: str | None) -> None:
        utterance = self.microphone.utterance
        pictures = [p for p in item.parts if isinstance(p, Media) and p.kind == "image"]
        only = item.role == "user" and len(pictures) == len(item.parts) and pictures
        before = self.items.add(item, after)
        if only and utterance is not None and after is None:  # seen while somebody speaks
            item.seen_in = utterance.sound
            for picture in pictures:
                utterance.sound.see(picture.value)
        await self._show(item, before)
        self.news.set()

    async def _show(self, item: Item, before: str | None) -> None:
        await self.emit("conversation.item.added", previous_item_id=before, item=item.wire())
        await self.emit("conversation.item.done", previous_item_id=before, item=item.wire())

    async def _truncate(self, event: wire.ItemTruncate) -> None:
        item = self.items.get(event.item_id)
        if item.type != "message" or item.role != "assistant":
            raise Problem(400, f"item {item.id!r} is no answer; only answers are truncated", param="item_id", code="invalid_item")  # fmt: skip
        if event.content_index >= max(1, len(item.content)):
            raise Problem(400, f"content_index {event.content_index}: the item has {len(item.content)} parts", param="content_index")  # fmt: skip
        response = self.response
        if response is not None and item in response.output:
            await response.stop("client_cancelled")
            await self._ended(response)
        heard_s = event.audio_end_ms / 1000
        length_s = 0.0 if item.spoken is None else item.spoken.seconds
        if heard_s > length_s + 0.001:
            raise Problem(400, f"audio_end_ms {event.audio_end_ms}: the item has {1000 * length_s:.0f} ms of sound", param="audio_end_ms", code="invalid_value")  # fmt: skip
        line = item.line()
        text = None if line is None else await self.sitting.cut(line.key, heard_s)
        item.keep(item.cut(heard_s) if text is None else text, changed=text is None)
        await self.emit("conversation.item.truncated", item_id=item.id, content_index=event.content_index, audio_end_ms=event.audio_end_ms)  # fmt: skip
        self.news.set()

    # ------------------------------------------------------------------------------------------------------- after answers

    async def _answered(self, response: Response) -> None:
        """The turn that ended meanwhile, or the clock of idleness."""
        detection = self.microphone.detection
        if self.answer_next and detection is not None:
            self.answer_next = False
            await self._answer()
        elif isinstance(detection, ServerVad) and detection.idle_timeout_ms and self.microphone.utterance is None:  # fmt: skip
            self.idle_since = time.monotonic() + response.seconds

    async def mind_idleness(self) -> None:
        """Nobody speaks for long after an answer: the model does."""
        while True:
            await asyncio.sleep(0.05)
            detection, since = self.microphone.detection, self.idle_since
            if since is None or not isinstance(detection, ServerVad) or not detection.idle_timeout_ms:  # fmt: skip
                continue
            if time.monotonic() - since < detection.idle_timeout_ms / 1000 or self.response is not None:  # fmt: skip
                continue
            self.idle_since = None
            utterance, end_ms = self.microphone.idle()
            await self.emit("input_audio_buffer.timeout_triggered", audio_start_ms=utterance.start_ms, audio_end_ms=end_ms, item_id=utterance.id)  # fmt: skip
            await self._commit(utterance)
            await self._answer()
