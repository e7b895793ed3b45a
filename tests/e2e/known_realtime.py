"""A Realtime server whose ears and answers are known to the sample, so that a page can be held to them.

It serves the real page beside a script: whoever speaks (louder than silence) is answered with eleven words, and each word
sounds as one tone of 0.3 s after 0.1 s of silence. What the page sends is kept in `heard`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect

from thinktalk.server import page, problems

__all__ = ["RATE", "SENTENCE", "WORDS", "Known", "known_server", "spoken"]

RATE = 24_000
SENTENCE = "Seven blue boats sailed over nine green hills before the dawn."
WORDS = SENTENCE.split()
WORD_S, GAP_S = 0.3, 0.1
LOUD = 0.02
SILENCE_S = 0.5
LATENCY = dict(
    input_ms=12.0, text_to_code_ms=34.0, code_to_sound_ms=56.0, steps_ms=80.0, first_sound_ms=102.0, total_ms=900.0,
    real_time_factor=0.25, work_factor=0.2, work_ms={}, underruns=0, underrun_ms=0.0, margin_ms=40.0,
)  # fmt: skip


def spoken() -> np.ndarray:
    """The answer's sound: float32 (S,)."""
    silence = np.zeros(round(GAP_S * RATE), np.float32)
    times = np.arange(round(WORD_S * RATE)) / RATE
    tones = [0.3 * np.sin(2 * np.pi * (300 + 40 * n) * times) for n in range(len(WORDS))]
    return np.concatenate([np.concatenate([silence, tone]) for tone in tones]).astype(np.float32)


class Known:
    """The server and what came to it. Event lists belong to the newest connection unless said otherwise."""

    def __init__(self, *, key: str | None = None):
        self.key = key
        self.heard: list[dict[str, Any]] = []
        """All events of all connections, without the sound of append."""
        self.joined = 0
        self.newest: tuple[asyncio.AbstractEventLoop, WebSocket] | None = None
        self.voices = ["river", "stone"]
        self.sound_s = 0.0
        self.pace = 3.0
        """Sound is sent so much faster than it is played."""
        self.app = self._app()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What came of one type."""
        return [event for event in self.heard if event["type"] == kind]

    def break_line(self) -> None:
        """Close the newest connection, as a network would."""
        assert self.newest is not None
        loop, socket = self.newest
        asyncio.run_coroutine_threadsafe(socket.close(1012), loop).result(5)

    def _app(self) -> FastAPI:
        app = FastAPI()
        problems.install(app)
        app.include_router(page.router)

        def check(request: Request) -> None:
            if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
                raise problems.Problem(401, "no key")

        @app.get("/v1/models")
        async def models(request: Request) -> dict:
            check(request)
            return {"object": "list", "data": [{"id": "known", "object": "model"}]}

        @app.get("/v1/voices")
        async def voices(request: Request) -> dict:
            check(request)
            return {"data": [{"id": name, "name": name, "enrolled": name == "mine"} for name in self.voices]}  # fmt: skip

        @app.post("/v1/voices")
        async def enrol(request: Request) -> dict:
            body = await request.body()
            assert b'name="name"' in body and b"RIFF" in body
            self.voices.append("mine")
            return {"id": "mine", "name": "mine"}

        @app.delete("/v1/voices/{name}")
        async def forget(name: str) -> dict:
            self.voices.remove(name)
            return {"id": name, "deleted": True}

        @app.websocket("/v1/realtime")
        async def realtime(socket: WebSocket) -> None:
            offered = socket.scope["subprotocols"]
            assert "realtime" in offered
            if self.key and f"openai-insecure-api-key.{self.key}" not in offered:
                return await socket.close(1008)
            await socket.accept(subprotocol="realtime")
            self.newest = asyncio.get_running_loop(), socket
            self.joined += 1
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await _Line(self, socket).run()
            return None

        return app


class _Line:
    """One connection."""

    def __init__(self, server: Known, socket: WebSocket):
        self.server, self.socket = server, socket
        self.ids = itertools.count(server.joined * 1000)
        self.session: dict[str, Any] = {}
        self.heard_s, self.loud_s, self.item = 0.0, None, None
        self.reply: asyncio.Task | None = None

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send_json({"type": kind, "event_id": f"event_{next(self.ids)}", **fields})

    async def run(self) -> None:
        await self.send("session.created", session={"type": "realtime", "id": "sess_1"})
        while True:
            event = json.loads(await self.socket.receive_text())
            if event["type"] == "input_audio_buffer.append":
                await self.hear(np.frombuffer(base64.b64decode(event.pop("audio")), "<i2") / 32768)
            self.server.heard.append(event | {"at": time.monotonic()})
            match event["type"]:
                case "session.update":
                    self.session = event["session"]
                    await self.send("session.updated", session=self.session)
                case "input_audio_buffer.commit":
                    self.item = f"item_{next(self.ids)}"
                    await self.committed()
                case "response.create":
                    self.answer()
                case "response.cancel":
                    await self.cancel("client_cancelled")
                case "conversation.item.truncate":
                    given = {key: event[key] for key in ("item_id", "content_index", "audio_end_ms")}  # fmt: skip
                    await self.send("conversation.item.truncated", **given)

    async def hear(self, pcm: np.ndarray) -> None:
        self.heard_s += len(pcm) / RATE
        self.server.sound_s += len(pcm) / RATE
        if not (self.session.get("audio") or {}).get("input", {}).get("turn_detection"):
            return
        if np.sqrt(np.mean(pcm**2)) > LOUD:
            if self.loud_s is None:
                self.item = f"item_{next(self.ids)}"
                await self.send("input_audio_buffer.speech_started", audio_start_ms=round(1000 * self.heard_s), item_id=self.item)  # fmt: skip
                await self.cancel("turn_detected")
            self.loud_s = self.heard_s
        elif self.loud_s is not None and self.heard_s - self.loud_s > SILENCE_S:
            await self.send("input_audio_buffer.speech_stopped", audio_end_ms=round(1000 * self.loud_s), item_id=self.item)  # fmt: skip
            self.loud_s = None
            await self.committed()
            self.answer()

    async def committed(self) -> None:
        await self.send("input_audio_buffer.committed", item_id=self.item, previous_item_id=None)
        for piece in ("What sails ", "over hills?"):
            await self.send("conversation.item.input_audio_transcription.delta", item_id=self.item, content_index=0, delta=piece)  # fmt: skip
        await self.send("conversation.item.input_audio_transcription.completed", item_id=self.item, content_index=0, transcript="What sails over hills?")  # fmt: skip

    def answer(self) -> None:
        self.reply = asyncio.create_task(self.say())
        self.reply.add_done_callback(
            lambda task: task.cancelled() or task.exception()
        )  # the page may have gone

    async def cancel(self, reason: str) -> None:
        if self.reply is None or self.reply.done():
            return
        self.reply.cancel()
        await asyncio.wait([self.reply])
        await self.done("cancelled", status_details={"type": "cancelled", "reason": reason})

    async def done(self, status: str, **fields: Any) -> None:
        response = {
            "id": self.response,
            "object": "realtime.response",
            "status": status,
            "output": [],
        }
        await self.send("response.done", response=response | {"latency": LATENCY} | fields)

    async def say(self) -> None:
        self.response = f"resp_{next(self.ids)}"
        item = {
            "id": f"msg_{next(self.ids)}",
            "type": "message",
            "role": "assistant",
            "content": [],
        }
        at = dict(response_id=self.response, item_id=item["id"], output_index=0, content_index=0)
        await self.send("response.created", response={"id": self.response, "status": "in_progress"})
        await self.send("response.output_item.added", response_id=self.response, output_index=0, item=item)  # fmt: skip
        if self.session.get("output_modalities") == ["text"]:
            for word in WORDS:
                await self.send("response.output_text.delta", delta=f"{word} ", **at)
            await self.send("response.output_text.done", text=SENTENCE, **at)
            return await self.done("completed")
        for n, word in enumerate(WORDS):
            await self.send("response.output_audio_transcript.delta", delta=f"{' ' if n else ''}{word}", **at)  # fmt: skip
        pcm = np.round(32767 * spoken()).astype("<i2")
        piece = RATE // 5
        for start in range(0, len(pcm), piece):
            sound = base64.b64encode(pcm[start : start + piece].tobytes()).decode()
            await self.send("response.output_audio.delta", delta=sound, **at)
            await asyncio.sleep(0.2 / self.server.pace)
        await self.send("response.output_audio.done", **at)
        await self.send("response.output_audio_transcript.done", transcript=SENTENCE, **at)
        return await self.done("completed")


@contextlib.contextmanager
def known_server(**settings: Any) -> Iterator[tuple[str, Known]]:
    """(its address, itself); in a thread of its own, on a free port."""
    known = Known(**settings)
    config = uvicorn.Config(known.app, host="127.0.0.1", port=0, log_level="error", ws="websockets-sansio")  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", known
    finally:
        server.should_exit = True
        thread.join(20)
