"""Talking to /v1/realtime in tests: a Caller over starlette's TestClient, and sound for it."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from thinktalk.layers.resample import resampler
from thinktalk.media.audio import load_audio

__all__ = [
    "Caller",
    "calling",
    "heard",
    "padded",
    "pcm16",
    "question",
    "text_item",
    "tone",
    "words_of",
]

SERVER_EVENT: TypeAdapter = TypeAdapter(RealtimeServerEvent)
HOST = "ws://127.0.0.1"  # the TestClient calls a socket's server "testserver" otherwise


class Caller:
    """One connection. Every event that comes is held against OpenAI's own types."""

    def __init__(self, socket: Any):
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    def send(self, type: str, **fields: Any) -> None:
        self.socket.send_text(json.dumps({"type": type, **fields}))

    def next(self) -> dict[str, Any]:
        event = json.loads(self.socket.receive_text())
        typed = SERVER_EVENT.validate_python(event)
        assert type(typed).model_fields["type"].annotation.__args__ == (event["type"],), event["type"]  # fmt: skip
        self.events.append(event)
        return event

    def until(self, *types: str) -> dict[str, Any]:
        """The next event of one of these types."""
        while True:
            event = self.next()
            if event["type"] in types:
                return event
            assert event["type"] != "error", event

    def session(self, **changes: Any) -> dict[str, Any]:
        """session.update; seed 0, and turns by hand unless told otherwise."""
        audio = changes.pop("audio", {"input": {"turn_detection": None}})
        self.send("session.update", session={"type": "realtime", "audio": audio, "seed": 0} | changes)  # fmt: skip
        return self.until("session.updated")["session"]

    def say(self, text: str, **more: Any) -> None:
        self.send("conversation.item.create", item=text_item(text), **more)
        self.until("conversation.item.done")

    def hear(self, data: bytes, size: int = 9600) -> None:
        """Appended piece by piece."""
        for start in range(0, len(data), size):
            piece = base64.b64encode(data[start : start + size]).decode()
            self.send("input_audio_buffer.append", audio=piece)

    def answer(self, **response: Any) -> dict[str, Any]:
        """response.create, and its response.done."""
        self.send("response.create", **({"response": response} if response else {}))
        return self.until("response.done")["response"]

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    def sound(self, response: str | None = None) -> np.ndarray:
        """All sound that came, int16."""
        pieces = [e["delta"] for e in self.events if e["type"] == "response.output_audio.delta" and response in (None, e["response_id"])]  # fmt: skip
        return np.frombuffer(b"".join(map(base64.b64decode, pieces)), "<i2")


def text_item(text: str, role: str = "user", **more: Any) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more}


@contextlib.contextmanager
def calling(client: TestClient, path: str = "/v1/realtime?model=tiny", **options: Any) -> Iterator[Caller]:  # fmt: skip
    """A connection that has got its session.created."""
    with client.websocket_connect(f"{HOST}{path}", **options) as socket:
        caller = Caller(socket)
        caller.until("session.created")
        yield caller


def words_of(response: dict[str, Any]) -> str:
    """Text or transcript of a response's message."""
    content = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]  # fmt: skip
    return "".join(part.get("transcript") or part.get("text") or "" for part in content)


def padded(pcm: np.ndarray, *, before_s: float, after_s: float, rate: int = 16_000) -> np.ndarray:
    """Silence around it, as a quiet room has it."""
    rng = np.random.default_rng(0)
    quiet = lambda seconds: (1e-4 * rng.standard_normal(int(seconds * rate))).astype(np.float32)  # noqa: E731
    return np.concatenate([quiet(before_s), pcm, quiet(after_s)])


def pcm16(pcm: np.ndarray) -> bytes:
    return np.round(np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes()


def tone(seconds: float, rate: int = 24_000) -> np.ndarray:
    return (0.3 * np.sin(np.arange(int(seconds * rate)) * 0.1)).astype(np.float32)


def question(rate: int = 24_000) -> np.ndarray:
    """Real speech."""
    return load_audio("examples/question.wav", sample_rate=rate)


def heard(pcm: np.ndarray) -> np.ndarray:
    """What the server makes of 24 kHz samples: 16 kHz, in 16 bits."""
    import torch

    sent = np.frombuffer(pcm16(pcm), "<i2").astype(np.float32) / 32768
    low = resampler(24_000, 16_000)(torch.from_numpy(sent)[None])[0].numpy()
    return np.round(np.clip(low, -1, 1) * 32767).astype(np.int16).astype(np.float32) / 32767
