"""Doors to one model, and what somebody hears who asks at each: text, sound, and when.

by_engine(engine, options, clients)      Sessions, each in a thread of this process
together(partial(by_chat, server), 8)    streamed /v1/chat/completions over plain sockets
together(partial(by_realtime, server), 8)   a WebSocket each
await leave(server, 8)                   how long a seat stays taken after its client has hung up
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from serving import Server
from websockets.asyncio.client import connect

from thinktalk.engine import Engine
from thinktalk.engine.session import Session
from thinktalk.events import AudioChunk, Done, TextDelta
from thinktalk.pipeline import Options

__all__ = ["Heard", "by_chat", "by_engine", "by_realtime", "leave", "together"]

QUESTION = "Tell me a story about the sea, and take your time."
WIRE_BYTES_PER_S = 2 * 24_000  # 16-bit
clock = time.perf_counter


@dataclass
class Heard:
    """One answer, as its listener has it. Seconds from the question."""

    asked: float = field(default_factory=clock)
    text_s: float | None = None
    sounds: list[tuple[float, float]] = field(default_factory=list)  # when it came, how long it is
    latency: dict | None = None  # the answer's own ledger

    def text(self) -> None:
        """Some text has come."""
        self.text_s = self.text_s or clock() - self.asked

    def sound(self, seconds: float) -> None:
        """Some sound has come."""
        self.sounds.append((clock() - self.asked, seconds))

    @property
    def first_s(self) -> float:
        """The wait for sound."""
        return self.sounds[0][0]

    @property
    def factor(self) -> float:
        """Time to the last sound over its length."""
        return self.sounds[-1][0] / sum(seconds for _, seconds in self.sounds)

    @property
    def underruns(self) -> int:
        """How often all that had come was heard, and more was waited for."""
        count, dry = 0, self.first_s
        for at, seconds in self.sounds:
            count += at > dry
            dry = max(dry, at) + seconds
        return count

    @property
    def added_ms(self) -> float:
        """What the door adds to the first sound."""
        assert self.latency is not None
        return 1e3 * self.first_s - self.latency["first_sound_ms"]


def by_engine(engine: Engine, options: Options, clients: int) -> list[Heard]:
    """So many conversations at once, each in a thread."""
    gate = threading.Barrier(clients)

    def ask(_: int) -> Heard:
        gate.wait()
        heard = Heard()
        with Session(engine, options=options) as session:
            session.text(QUESTION)
            for event in session.respond_sync():
                match event:
                    case TextDelta():
                        heard.text()
                    case AudioChunk():
                        heard.sound(len(event.pcm) / event.sample_rate)
                    case Done():
                        heard.latency = asdict(event.reply.latency)
        return heard

    with ThreadPoolExecutor(clients) as threads:
        return list(threads.map(ask, range(clients)))


async def by_chat(server: Server, gate: asyncio.Barrier) -> Heard:
    """One request, on a connection of its own; its answer is read line by line."""
    await gate.wait()
    heard = Heard()
    reader, writer = await ask_chat(server)
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            if line.startswith(b"data: [DONE]"):
                break
            continue
        chunk = json.loads(line[6:])
        assert "error" not in chunk, chunk
        heard.latency = chunk.get("latency", heard.latency)
        audio = chunk["choices"][0]["delta"].get("audio", {}) if chunk["choices"] else {}
        if audio.get("transcript"):
            heard.text()
        if audio.get("data"):
            heard.sound(len(base64.b64decode(audio["data"])) / WIRE_BYTES_PER_S)
    writer.close()
    return heard


async def ask_chat(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request for a spoken answer, sent."""
    body = json.dumps({"model": "tiny", "stream": True, "modalities": ["text", "audio"], "audio": {"format": "pcm16"},
                       "messages": [{"role": "user", "content": QUESTION}]}).encode()  # fmt: skip
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    return reader, writer


async def by_realtime(server: Server, gate: asyncio.Barrier) -> Heard:
    """One WebSocket, whose conversation stands ready before the question."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}  # fmt: skip
    async with connect(f"{server.websocket_base_url}/realtime?model=tiny", max_size=None) as socket:
        while json.loads(await socket.recv())["type"] != "session.created":
            pass
        await gate.wait()
        heard = Heard()
        await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await socket.send(json.dumps({"type": "response.create"}))
        async for frame in socket:
            event = json.loads(frame)
            match event["type"]:
                case "response.output_audio_transcript.delta":
                    heard.text()
                case "response.output_audio.delta":
                    heard.sound(len(base64.b64decode(event["delta"])) / WIRE_BYTES_PER_S)
                case "response.done":
                    heard.latency = event["response"]["latency"]
                    return heard
                case "error":
                    raise RuntimeError(event)
    raise RuntimeError("the socket ended before the answer")


def together(ask: Callable[[asyncio.Barrier], Awaitable[Heard]], clients: int) -> list[Heard]:
    """So many at once."""

    async def main() -> list[Heard]:
        gate = asyncio.Barrier(clients)
        return list(await asyncio.gather(*(ask(gate) for _ in range(clients))))

    return asyncio.run(main())


async def leave(server: Server, clients: int) -> float:
    """Milliseconds until the seat of one of them is free again, after he has hung up in the middle of his answer."""
    host, port = server.url.removeprefix("http://").split(":")
    asking, watch = await asyncio.open_connection(host, int(port))

    async def sessions() -> int:
        watch.write(f"GET /ready HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        head = (await asking.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        return json.loads(await asking.readexactly(length))["sessions"]

    streams = [await ask_chat(server) for _ in range(clients)]
    for reader, _ in streams:
        while b'"data"' not in (line := await reader.readline()):
            assert line, "the answer ended before its first sound"
    streams[0][1].transport.abort()
    began = clock()
    while await sessions() == clients:
        await asyncio.sleep(0.001)
    freed = clock() - began
    for _, writer in streams:
        writer.close()
    while await sessions():
        await asyncio.sleep(0.01)
    watch.close()
    return 1e3 * freed
