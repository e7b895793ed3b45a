"""The server against the engine in it: first text, first sound, real-time factor, underruns, and what the server adds to them.

    python benchmarks/serve.py [--model nano|tiny|DIRECTORY] [--sessions 1 2 4 8 16] [--doc docs/server_speed.md]

Three doors to one model, in turns: `engine` (Sessions in threads of this process), `chat` (streamed /v1/chat/completions) and
`realtime` (a WebSocket each), the latter two of `thinktalk serve` in a process of its own. Everybody asks at the same moment.

What a door adds is measured within each answer: the wait for the first sound, as its listener has it, less the wait that the
answer's own ledger has (from the wish at the engine to the sound leaving it). So it does not matter that a busy machine makes
every answer differ. The server's overhead is what its door adds less what the engine's door adds. Prints a table, then JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch starts its threads
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other core is the clients'
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "server"))

from serving import Server, serving
from websockets.asyncio.client import connect

from thinktalk import config as cfg
from thinktalk import load
from thinktalk.engine import Engine
from thinktalk.engine.session import Session
from thinktalk.events import AudioChunk, Done, TextDelta
from thinktalk.omni import Omni
from thinktalk.pipeline import Options
from thinktalk.weights.random import random_checkpoint

QUESTION = "Tell me a story about the sea, and take your time."
WIRE_BYTES_PER_S = 2 * 24_000  # 16-bit
TOKENS_PER_S = 4
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
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


# --------------------------------------------------------------------------------------------------------------- doors


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
        while b'"data": "' not in await reader.readline():
            pass
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


# ------------------------------------------------------------------------------------------------------------- figures


@dataclass
class Row:
    """One door, so many at once; medians over all answers, milliseconds."""

    door: str
    sessions: int
    answers: int
    first_text_ms: float
    first_sound_ms: float
    real_time_factor: float
    underruns: int
    added_ms: float
    """By the door, to the first sound."""
    overhead_ms: float | None = None
    """Of that, what the engine's own door does not add."""


def row_of(door: str, sessions: int, heard: Sequence[Heard], engine: Row | None) -> Row:
    spoken = [one for one in heard if one.sounds]
    middle = lambda figures: round(statistics.median(figures), 2)  # noqa: E731
    added = middle(one.added_ms for one in spoken)
    return Row(
        door, sessions, len(heard), middle(1e3 * one.text_s for one in heard if one.text_s), middle(1e3 * one.first_s for one in spoken),
        middle(one.factor for one in spoken), sum(one.underruns for one in spoken), added,
        None if engine is None else round(added - engine.added_ms, 2),
    )  # fmt: skip


def measure(server: Server, omni: Omni, options: Options, counts: Sequence[int], least: int) -> Iterator[Row]:  # fmt: skip
    """For each number of sessions a row of each door."""
    with Engine(omni.model, omni.tokenizer) as engine:
        doors: dict[str, Callable[[int], list[Heard]]] = {
            "engine": partial(by_engine, engine, options),
            "chat": partial(together, partial(by_chat, server)),
            "realtime": partial(together, partial(by_realtime, server)),
        }
        for door in doors.values():
            door(1)  # warm
        for sessions in counts:
            heard: dict[str, list[Heard]] = {name: [] for name in doors}
            while len(heard["engine"]) < max(least, sessions):
                for name, door in doors.items():
                    heard[name] += door(sessions)
            first: Row | None = None
            for name, answers in heard.items():
                row = row_of(name, sessions, answers, first)
                first = first or row
                yield row


def table(rows: Sequence[Row], freed: dict[int, list[float]]) -> str:
    lines = ["| at once | door | first text, ms | first sound, ms | real-time factor | underruns | added, ms | overhead, ms |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        over = "" if row.overhead_ms is None else f"{row.overhead_ms:.1f}"
        lines.append(f"| {row.sessions} | {row.door} | {row.first_text_ms:.0f} | {row.first_sound_ms:.0f} | {row.real_time_factor:.2f} | {row.underruns} of {row.answers} answers | {row.added_ms:.1f} | {over} |")  # fmt: skip
    lines.append("")
    for clients, ms in freed.items():
        lines.append(f"A seat is free again after its client has hung up, {clients} speaking: {statistics.median(ms):.0f} ms (at most {max(ms):.0f}, {len(ms)} tries).")  # fmt: skip
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Put the figures into a page, between their marks."""
    before, found, rest = page.read_text().partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise SystemExit(f"{page}: expected {BEGIN} and {END}; write them where the figures belong")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


@contextlib.contextmanager
def checkpoint(name: str) -> Iterator[str]:
    """A directory with the model; `nano` and `tiny` are made with random weights: speed does not depend on them."""
    if name not in ("nano", "tiny"):
        yield name
        return
    with tempfile.TemporaryDirectory() as folder:
        yield str(random_checkpoint(getattr(cfg, name)(), Path(folder) / name))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where told; the exit status says whether the overhead was below 10 ms."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="nano", help="nano or tiny (random weights), or a checkpoint's directory")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=2.0, help="longest answer")
    parser.add_argument("--answers", type=int, default=8, help="least number for a row")
    parser.add_argument("--points", type=int, default=4, help="of the flow's walk")
    parser.add_argument("--method", default="midpoint", help="its solver")
    parser.add_argument("--doc", type=Path, help="a page to write the figures into")
    args = parser.parse_args(argv)
    with checkpoint(args.model) as folder:
        omni = load(folder)
        codes = round(args.seconds * float(omni.config.code2wav.codes_per_second))
        tokens = max(2, round(args.seconds * TOKENS_PER_S))
        told = {"--max-codes": codes, "--max-text-tokens": tokens, "--flow-points": args.points, "--flow-method": args.method, "--log-level": "warning"}  # fmt: skip
        words = [str(word) for pair in told.items() for word in pair]
        from dataclasses import replace

        generation = replace(omni.config.generation, max_text_tokens=tokens, max_codes=codes, flow_points=args.points)  # fmt: skip
        options = Options(generation=generation, flow_method=args.method)
        with serving(folder, *words, log=Path(folder).parent / "serve.log") as server:
            rows = []
            for row in measure(server, omni, options, args.sessions, args.answers):
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
        words[1] = str(60 * codes)  # so that nobody's answer has ended when one leaves
        freed: dict[int, list[float]] = {}
        with serving(folder, *words, log=Path(folder).parent / "serve.log") as server:
            for clients in (1, 8):
                freed[clients] = [asyncio.run(leave(server, clients)) for _ in range(5)]
    text = table(rows, freed)
    print(text)
    print(json.dumps({"benchmark": "serve", "rows": [asdict(row) for row in rows], "freed_ms": freed}))  # fmt: skip
    if args.doc:
        write(args.doc, text)
    return int(any((row.overhead_ms or 0) > 10 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
