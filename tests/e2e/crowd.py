"""A crowd of clients around one server, good ones and bad ones, and what became of each.

    expected = await alone(server)                      every question asked once, with nobody else there
    told = await crowd(server, expected, MANY, until)   all at once, each again and again until the deadline

A good client (chatter, talker, slow) holds every answer against the one of an undisturbed server: words and sound. What the
others do must harm nobody. Nothing of this knows how long anything takes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from serving import Server
from test_hostile import frame
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

__all__ = ["FEW", "MANY", "Answer", "Told", "alone", "crowd", "same"]

QUESTIONS = [f"What comes after {n}?" for n in ("one", "seven", "fifty", "the end")]
FEW = {"chatter": 1, "talker": 1, "leaver": 1, "hanger": 1, "noise": 1, "broken": 1}
MANY = {
    "chatter": 9,
    "talker": 6,
    "slow": 3,
    "leaver": 5,
    "hanger": 4,
    "noise": 3,
    "broken": 2,
}  # 32
PATIENCE_S = 120.0  # only reached when something hangs
DROP = 4096  # bytes that a slow client reads at a time
CLOSE = 0.02  # of a full scale: sums are taken in another order in company


@dataclass
class Answer:
    """Words and sound (int16)."""

    words: str = ""
    sound: bytes = b""


@dataclass
class Told:
    """What became of a crowd's wishes."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, what happened)
    wrong: list[str] = field(default_factory=list)

    def of(self, what: str) -> int:
        """How often this happened, to whomever."""
        return sum(n for (_, happened), n in self.counts.items() if happened == what)


class Cut(Exception):  # noqa: N818
    """The server was gone before the answer had ended."""


class Refused(Exception):  # noqa: N818
    """There was no room, and it was said so as it should be."""


def same(one: Answer, other: Answer) -> bool:
    """Whether two answers are the same one, however their steps were batched."""
    a, b = (np.frombuffer(answer.sound, "<i2").astype(np.float32) for answer in (one, other))
    return one.words == other.words and len(a) == len(b) and bool(np.abs(a - b).max(initial=0) < CLOSE * 32768)  # fmt: skip


# -------------------------------------------------------------------------------------------------------- good clients


async def chat(server: Server, number: int, *, slow: bool = False, leave_after: int | None = None) -> Answer | None:  # fmt: skip
    """A streamed spoken answer over HTTP. `slow`: read in drops; `leave_after` lines the connection is cut (None)."""
    content = QUESTIONS[number]
    body = {"model": "tiny", "stream": True, "modalities": ["text", "audio"], "audio": {"format": "pcm16"}, "seed": number,
            "messages": [{"role": "user", "content": content}]}  # fmt: skip
    reader, writer = await post(server, body, drops=slow)
    answer, ended = Answer(), False
    try:
        status, headers = await head(reader)
        if status != 200:
            refusal(status, headers.get("retry-after"))
        lines = 0
        async for line in in_drops(reader) if slow else reader:
            lines += line.startswith(b"data: ")
            if leave_after is not None and lines >= leave_after:
                return None
            if line.startswith(b"data: [DONE]"):
                ended = True
                break
            if line.startswith(b"data: {"):
                hear(answer, json.loads(line[6:]))
    finally:
        cut(writer) if leave_after is not None else writer.close()
    if not ended:
        raise Cut
    return answer


def refusal(status: int, retry_after: str | None) -> NoReturn:
    """The only other answer that a good client may get."""
    if status != 429 or int(retry_after or 0) < 1:
        raise AssertionError(f"status {status}, Retry-After {retry_after}")
    raise Refused


async def in_drops(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Lines, of which a little is read now and then."""
    rest = b""
    while drop := await reader.read(DROP):
        *lines, rest = (rest + drop).split(b"\n")
        for line in lines:
            yield line + b"\n"
        await asyncio.sleep(0.02)


def hear(answer: Answer, chunk: dict[str, Any]) -> None:
    """One chunk of a chat."""
    assert "error" not in chunk, chunk
    for choice in chunk["choices"]:
        audio = choice["delta"].get("audio", {})
        answer.words += audio.get("transcript", "")
        answer.sound += base64.b64decode(audio.get("data", ""))


async def talk(server: Server, number: int, *, hang_up: bool = False) -> Answer | None:
    """A spoken answer over a WebSocket; `hang_up`: the connection is cut in the middle of it (None)."""
    try:
        async with connect(f"{server.websocket_base_url}/realtime?model=tiny", max_size=None, open_timeout=PATIENCE_S) as call:  # fmt: skip
            said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTIONS[number]}]}  # fmt: skip
            settings = {"type": "realtime", "seed": number, "audio": {"input": {"turn_detection": None}}}  # fmt: skip
            for event in ({"type": "session.update", "session": settings}, {"type": "conversation.item.create", "item": said}, {"type": "response.create"}):  # fmt: skip
                await call.send(json.dumps(event))
            return await listen(call, hang_up)
    except InvalidStatus as refused:
        refusal(refused.response.status_code, refused.response.headers.get("Retry-After"))


async def listen(call: ClientConnection, hang_up: bool) -> Answer | None:
    answer = Answer()
    async for text in call:
        event = json.loads(text)
        match event["type"]:
            case "error":
                if event["error"]["code"] == "overloaded":
                    raise Refused
                raise AssertionError(event)
            case "response.output_audio_transcript.delta":
                answer.words += event["delta"]
                if hang_up:
                    call.transport.abort()
                    return None
            case "response.output_audio.delta":
                answer.sound += base64.b64decode(event["delta"])
            case "response.done":
                done = event["response"]
                if (done["status_details"].get("error") or {}).get("code") == "overloaded":
                    raise Refused
                assert done["status"] in ("completed", "incomplete"), done
                return answer
    raise Cut


# ---------------------------------------------------------------------------------------------------------- bad clients


async def noise(server: Server, draw: random.Random) -> None:
    """Frames that mean harm, then gone without a word."""
    with contextlib.suppress(ConnectionClosed, OSError, InvalidStatus, EOFError):
        async with connect(f"{server.websocket_base_url}/realtime?model=tiny", max_size=None, open_timeout=PATIENCE_S) as call:  # fmt: skip
            for _ in range(30):
                await call.send(frame(draw))
                await asyncio.sleep(0.01)
            call.transport.abort()


async def broken(server: Server, draw: random.Random) -> None:
    """A picture that is none."""
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + draw.randbytes(200)).decode()  # fmt: skip
    body = {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}  # fmt: skip
    reader, writer = await post(server, body)
    try:
        status, _ = await head(reader)
        assert status in (400, 429), status
    finally:
        writer.close()


# ------------------------------------------------------------------------------------------------------------- sockets


async def post(server: Server, body: dict[str, Any], *, drops: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:  # fmt: skip
    """A request, sent; with `drops` little of the answer fits between us and the server."""
    host, port = server.url.removeprefix("http://").split(":")
    ours = socket.socket()
    if drops:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ours.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(ours, (host, int(port)))
    except OSError:
        ours.close()
        raise
    reader, writer = await asyncio.open_connection(sock=ours, limit=DROP if drops else 1 << 24)
    data = json.dumps(body).encode()
    writer.write(f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)  # fmt: skip
    return reader, writer


async def head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value for name, value in pairs}


def cut(writer: asyncio.StreamWriter) -> None:
    """Gone at once: the other end gets a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # fmt: skip
    writer.transport.abort()


# --------------------------------------------------------------------------------------------------------------- crowd


async def alone(server: Server, count: int = len(QUESTIONS)) -> dict[str, list[Answer]]:
    """What an undisturbed server answers to so many questions, by door and number of the question."""
    doors = {"chat": chat, "talk": talk}
    return {name: [await door(server, n) for n in range(count)] for name, door in doors.items()}


async def crowd(
    server: Server, expected: dict[str, list[Answer]], kinds: dict[str, int], goes_on: Callable[[int], bool], *, seed: int = 0
) -> Told:  # fmt: skip
    """All of them at once, each as long as `goes_on` (of the number of its visits) says."""
    told = Told()

    async def visit(kind: str, draw: random.Random) -> None:
        number = draw.randrange(len(expected["chat"]))
        match kind:
            case "chatter" | "slow":
                check(await chat(server, number, slow=kind == "slow"), expected["chat"][number])
            case "talker":
                check(await talk(server, number), expected["talk"][number])
            case "leaver":
                await chat(server, number, leave_after=draw.randrange(1, 8))
            case "hanger":
                await talk(server, number, hang_up=True)
            case "noise":
                await noise(server, draw)
            case "broken":
                await broken(server, draw)

    async def live(kind: str, draw: random.Random) -> None:
        visits = 0
        while goes_on(visits):
            visits += 1
            happened = "done"
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await visit(kind, draw)
            except Refused:
                happened = "refused"
            except (AssertionError, TimeoutError) as error:
                happened = "wrong"
                told.wrong.append(f"{kind}: {error!r}")
            except (Cut, OSError, EOFError, ConnectionClosed):
                happened = "cut"
            told.counts[kind, happened] += 1
            if goes_on(visits):
                await asyncio.sleep(draw.random() * (2.0 if happened == "refused" else 0.5))

    async with asyncio.TaskGroup() as group:
        for kind, count in kinds.items():
            for n in range(count):
                group.create_task(live(kind, random.Random(f"{kind} {n} {seed}")))
    return told


def check(got: Answer | None, wanted: Answer) -> None:
    assert got is not None and same(got, wanted), f"not its own answer: {got and got.words!r}, expected {wanted.words!r}"  # fmt: skip
