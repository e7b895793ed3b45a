"""Hub: what every route shares: the model, its engine in a thread of its own, the line before it, the guard, the counters.

    async with hub.conversation(client, voice="default", messages=await hub.prepared(messages)) as session:
        async with aclosing(hub.respond(session)) as events:
            async for event in events: ...          TextDelta, AudioChunk, ..., Done

The event loop never waits for the model: whatever blocks runs in threads, by `await hub.call(function)`. Leaving a block, by
its end, an error or because the client has gone, frees its seat after the engine's current unit of work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar

import numpy as np
from PIL import Image
from starlette.requests import HTTPConnection
from torch import Tensor

from thinktalk.code2wav.speaker import Voice
from thinktalk.config import GenerationConfig
from thinktalk.engine.admission import Busy
from thinktalk.engine.engine import Engine
from thinktalk.engine.session import Session
from thinktalk.errors import ConfigError, InputError
from thinktalk.events import AudioChunk, Done, Event, Reply, TextDelta
from thinktalk.media.fetch import is_url, read_source
from thinktalk.media.video import Video
from thinktalk.omni import Omni
from thinktalk.pipeline import Options
from thinktalk.server.decoding import KINDS, Guard, Limits
from thinktalk.server.fetching import Fetcher
from thinktalk.server.guard import make_guard
from thinktalk.server.line import Line, Place
from thinktalk.server.metrics import Metrics
from thinktalk.server.problems import Draining, Overloaded, Problem
from thinktalk.server.settings import Settings
from thinktalk.weights.voices import find_voice

__all__ = ["OPENAI_VOICES", "Client", "Hub", "client_of", "hub_of"]

log = logging.getLogger("thinktalk.server")

T = TypeVar("T")

OPENAI_VOICES = frozenset(
    [
        "alloy",
        "ash",
        "ballad",
        "cedar",
        "coral",
        "echo",
        "fable",
        "marin",
        "nova",
        "onyx",
        "sage",
        "shimmer",
        "verse",
    ]
)
"""Names that OpenAI's clients send by default; where the model has no such voice they mean the default one."""


@dataclass(frozen=True)
class Client:
    """Who asks: limits and fairness count by name. Never a key itself."""

    name: str = "anonymous"


class Hub:
    """One per process. `omni` None: settings.model is loaded by start()."""

    def __init__(self, settings: Settings, *, omni: Omni | None = None, guard: Guard | None = None):
        self.settings, self._omni, self._guard = settings, omni, guard
        self.metrics = Metrics()
        self._fetcher = Fetcher(settings)
        self.line = Line(size=settings.queue_size, seconds=settings.queue_seconds)
        self.draining = asyncio.Event()
        """Set when the server is about to end: take nothing new, end when the reply under way has ended."""
        self.created = int(time.time())
        self.error: Exception | None = None
        """Why start() failed."""
        self._engine: Engine | None = None
        self._coming: list[bool] = []  # let in, not seated yet: whether each speaks
        self._door = asyncio.Lock()
        self._calls = ThreadPoolExecutor(settings.max_sessions + 16, thread_name_prefix="thinktalk-call")  # fmt: skip

    # ------------------------------------------------------------------------------------------------- life of a process

    async def start(self) -> Self:
        """Load the model where it is not there yet, and begin to work. Errors: WeightsError, ConfigError."""
        try:
            return await self._start()
        except Exception as error:
            self.error = error
            raise

    async def _start(self) -> Self:
        settings = self.settings
        if self._omni is None:
            self._omni = await self.call(lambda: _load(settings))
        omni = self._omni
        self._engine = Engine(
            omni.model, omni.tokenizer, max_sessions=settings.max_sessions, max_load=settings.max_load
        )  # fmt: skip
        self._engine.start()
        if self._guard is None:
            self._guard = make_guard(Limits.of(settings, omni.config), settings)
        await self._guard.start()
        return self

    async def drain(self, seconds: float) -> bool:
        """Take nothing new and wait until the last conversation has ended; False when some had not after so long."""
        self.draining.set()
        until = time.monotonic() + seconds
        while self.conversations and time.monotonic() < until:
            await asyncio.sleep(0.02)
        return not self.conversations

    async def close(self) -> None:
        """End the engine's thread and the guard."""
        self.draining.set()
        if self._engine is not None and self._engine.running:
            await self.call(self._engine.stop)
        if self._guard is not None:
            await self._guard.close()
        self._fetcher.close()
        self._calls.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def omni(self) -> Omni:
        """The model."""
        assert self._omni is not None, "start() comes first"
        return self._omni

    @property
    def engine(self) -> Engine:
        """Its engine."""
        assert self._engine is not None, "start() comes first"
        return self._engine

    @property
    def guard(self) -> Guard:
        """Who decodes."""
        assert self._guard is not None, "start() comes first"
        return self._guard

    @property
    def conversations(self) -> int:
        """How many there are now, those that wait or are just being let in among them."""
        return self.line.talking.total() + len(self._coming) + len(self.line)

    @property
    def ready(self) -> bool:
        """Whether new work is taken."""
        return self.alive and not self.draining.is_set()

    @property
    def alive(self) -> bool:
        """Whether the engine works."""
        return self._engine is not None and self._engine.running and self._engine.broken is None

    # ------------------------------------------------------------------------------------------------------------- names

    @property
    def names(self) -> list[str]:
        """Names under which the model may be asked for; the first is its own."""
        own = self.settings.model.rstrip("/").rpartition("/")[2] or "thinktalk"
        return list(dict.fromkeys([own, *self.settings.served_names, "thinktalk"]))

    def check_model(self, name: str | None) -> str:
        """The name to answer with; Problem 404 for a model that is not served here."""
        if name is None:
            return self.names[0]
        if name not in self.names:
            have = ", ".join(self.names)
            raise Problem(404, f"model {name!r} is not served here; have {have}", param="model", code="model_not_found")  # fmt: skip
        return name

    def voice(self, name: str | None) -> str:
        """A voice's own name; Problem 400 for one that does not exist. OpenAI's names mean the default voice."""
        try:
            return find_voice(self.omni.model.voices, name or "default").name
        except InputError as error:
            if name in OPENAI_VOICES:
                return find_voice(self.omni.model.voices, "default").name
            have = ", ".join(self.omni.voices)
            raise Problem(400, f"voice {name!r} is unknown; have {have}", param="voice", code="voice_not_found") from error  # fmt: skip

    def options(
        self, *, speech: bool = True, greedy: bool = False, seed: int | None = None, **changes: Any
    ) -> Options:
        """How an answer is made: the server's settings, then `changes` (fields of GenerationConfig; None: not said).

        Without a seed one is drawn. Limits of the settings hold: max_text_tokens and max_codes are lowered to them.
        """
        settings = self.settings
        known = {f.name for f in fields(GenerationConfig)}
        assert set(changes) <= known, f"not options of generation: {sorted(set(changes) - known)}"
        given = {name: value for name, value in changes.items() if value is not None}
        generation = self.omni.config.generation
        if settings.flow_points is not None:
            generation = replace(generation, flow_points=settings.flow_points)
        generation = replace(generation, **given)
        generation = replace(
            generation,
            max_text_tokens=min(generation.max_text_tokens, settings.max_text_tokens),
            max_codes=min(generation.max_codes, settings.max_codes),
        )
        seed = secrets.randbits(31) if seed is None else seed
        return Options(
            generation=generation, greedy=greedy, seed=seed, speech=speech, flow_method=settings.flow_method
        )  # fmt: skip

    # ----------------------------------------------------------------------------------------------------------- threads

    async def call(self, function: Callable[[], T]) -> T:
        """What a function that blocks returns, from a thread. When the caller is cancelled the function still ends first."""
        future = asyncio.get_running_loop().run_in_executor(self._calls, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # seen; the caller does not want it any more
            raise

    # ------------------------------------------------------------------------------------------------------------- media

    async def prepared(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Messages whose media (bytes, data: URLs, http(s) where allowed) are decoded by the guard, ready for a session.

        Arrays, pictures and Videos stay. A path is never opened. Errors: InputError, Problem.
        """
        self._check_size(messages)
        work: dict[tuple[int, int], asyncio.Task] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for i, j, part in _media(messages):
                    where = f"messages[{i}].content[{j}]"
                    job = self.decoded(part["type"], part[part["type"]], name=where)
                    work[i, j] = group.create_task(job)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        ready = [dict(message) for message in messages]
        for (i, j), task in work.items():
            parts = ready[i]["content"] = list(ready[i]["content"])
            parts[j] = parts[j] | {parts[j]["type"]: task.result()}
        return ready

    async def decoded(self, kind: str, source: Any, *, name: str = "") -> Any:
        """One medium: (float32 (S,), 16000), a PIL picture, or a Video. Errors: InputError, Problem."""
        assert kind in KINDS, kind
        name = name or kind
        if _is_decoded(source):
            return source
        data = await self._bytes(kind, source, name)
        try:
            result = await self.guard.decode(kind, data, name=name)
        except InputError:
            self.metrics.decoded.labels(kind, "refused").inc()
            raise
        self.metrics.decoded.labels(kind, "ok").inc()
        return result

    async def _bytes(self, kind: str, source: Any, name: str) -> bytes:
        if isinstance(source, bytes | bytearray | memoryview):
            data = bytes(source)
        elif isinstance(source, str) and source[:5].lower() == "data:":
            data = await self.call(lambda: read_source(source, what=kind))
        elif is_url(source):
            data = await self._fetched(kind, source, name)
        else:  # a path among them: whatever a client names on this machine stays closed
            raise InputError(f"{name}: expected a data: URL or base64 bytes; send the {kind} itself")  # fmt: skip
        Limits.of(self.settings, self.omni.config).check_bytes(kind, len(data), name)
        return data

    async def _fetched(self, kind: str, url: str, name: str) -> bytes:
        if not self.settings.allow_urls:
            raise InputError(f"{name}: this server does not fetch web addresses; send the {kind} as a data: URL")  # fmt: skip
        return await self._fetcher.fetch(kind, url, name=name)

    def _check_size(self, messages: Sequence[Mapping[str, Any]]) -> None:
        settings = self.settings
        if len(messages) > settings.max_messages:
            raise InputError(f"messages: {len(messages)}, expected at most {settings.max_messages}")
        media = sum(1 for _ in _media(messages))
        if media > settings.max_parts:
            raise InputError(f"messages: hold {media} media, expected at most {settings.max_parts}")
        characters = sum(len(text) for message in messages for text in _texts(message))
        if characters > settings.max_text_chars:
            raise InputError(f"messages: hold {characters} characters, expected at most {settings.max_text_chars}")  # fmt: skip

    # ----------------------------------------------------------------------------------------------------- conversations

    @contextlib.asynccontextmanager
    async def conversation(
        self,
        client: Client,
        *,
        voice: Voice | str | None = "default",
        speech: bool = True,
        messages: Sequence[Mapping[str, Any]] | None = None,
        system: str | None = None,
        options: Options | None = None,
        fps: float | None = None,
        frame_tokens: int | None = None,
    ) -> AsyncIterator[Session]:
        """A session of the engine, when there is room for it. `messages` come from prepared(); options from options().

        Waits in line at most settings.queue_seconds. Errors: Overloaded (429, with Retry-After), Draining, InputError.
        """
        if self.draining.is_set():
            self.metrics.refused.labels("draining").inc()
            raise Draining
        if speech and not self.omni.can_speak:
            raise ConfigError("speech: this server's model was loaded without talker and code2wav; ask for text")  # fmt: skip
        assert all(_is_decoded(part[part["type"]]) for *_, part in _media(messages or ())), "prepared() comes first"  # fmt: skip
        options = replace(options or self.options(), speech=speech)
        made: list[Session] = []

        def make() -> None:
            session = Session(
                self.engine, voice=voice if speech else None, options=options, system=system,
                messages=messages, fps=fps, frame_tokens=frame_tokens,
            )  # fmt: skip
            made.append(session)

        began = time.monotonic()
        try:
            async with self.line.place(client.name) as place:
                while not made:
                    await self._admitted(place, speech)
                    try:
                        await self.call(make)
                    except (
                        Busy
                    ):  # somebody else took the room, a fork of another session for instance
                        continue
                    finally:
                        self._coming.remove(speech)
            self.metrics.wait_seconds.observe(time.monotonic() - began)
            with self.line.seated(client.name):
                self._count()
                yield made[0]
        finally:
            for session in made:
                await self.call(session.close)
            self.line.stir()
            self._count()

    async def _admitted(self, place: Place, speaks: bool) -> None:
        """Wait for room, and keep it until the session has its seat."""

        async def attempt() -> None:
            admission = self.engine.admission
            async with self._door:
                coming = tuple(self._coming)
                check = lambda: admission.check(0, speaks=speaks, coming=coming)  # noqa: E731
                await self.call(lambda: self.engine.do(check))
                self._coming.append(speaks)

        try:
            await place.admitted(attempt)
        except Overloaded:
            self.metrics.refused.labels("overloaded").inc()
            raise
        finally:
            self._count()

    def _count(self) -> None:
        self.metrics.sessions.set(self.line.talking.total())
        self.metrics.waiting.set(len(self.line))

    async def respond(
        self,
        session: Session,
        *,
        noise: Tensor | None = None,
        call: Callable[[Callable[[], Any]], Awaitable[Any]] | None = None,
        **changes: Any,
    ) -> AsyncIterator[Event]:
        """session.respond for a server: nothing blocks the loop, and what is left early is stopped. Use it with aclosing.

        `call` stands in for hub.call where somebody else uses the session meanwhile and must wait for his turn.
        """
        call = call or self.call
        begun: list[AsyncIterator[Event]] = []
        ended = "left"

        def leave() -> None:
            if not session.closed and session.replying:
                session.interrupt()

        try:
            await call(lambda: begun.append(session.respond(noise=noise, **changes)))
            heard = written = False
            async for event in begun[0]:
                match event:
                    case TextDelta() if not written:
                        written = True
                        self.metrics.first_text.observe(event.at_s)
                    case AudioChunk() if not heard:
                        heard = True
                        self.metrics.first_audio.observe(event.at_s)
                    case Done():
                        ended = event.reply.finish
                        self._note(event.reply)
                        # by a thread: it also reads what came meanwhile
                        history = await call(lambda: session.history)
                        if self.settings.log_content:
                            log.info("said: %s", json.dumps(history[-2:], ensure_ascii=False))
                yield event
            ended = "interrupted" if ended == "left" else ended
        except Exception:
            ended = "failed"
            raise
        finally:
            self.metrics.replies.labels(ended).inc()
            await call(leave)
            for events in begun:
                await events.aclose()

    def _note(self, reply: Reply) -> None:
        metrics = self.metrics
        metrics.prompt_tokens.inc(reply.prompt_tokens)
        metrics.text_tokens.inc(len(reply.token_ids))
        metrics.audio_seconds.inc(reply.seconds)
        if reply.latency is not None:
            metrics.latency(reply.latency)
        metrics.speakers.set(self.engine.admission.speakers or 0)


def hub_of(connection: HTTPConnection) -> Hub:
    """For Depends: the hub of the app that serves this request or WebSocket."""
    return connection.app.state.hub


def client_of(connection: HTTPConnection) -> Client:
    """For Depends: who asks, as the middleware that checks keys has found."""
    return connection.scope.get("state", {}).get("client") or Client()


def _load(settings: Settings) -> Omni:
    import thinktalk

    return thinktalk.load(
        settings.model, device=settings.device, dtype=settings.dtype, placement=settings.parts_placement
    )  # fmt: skip


def _media(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """Each medium with the number of its message and its part."""
    for i, message in enumerate(messages):
        content = message["content"]
        if not isinstance(content, str):
            for j, part in enumerate(content):
                if part["type"] in KINDS:
                    yield i, j, part


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message["content"]
    if isinstance(content, str):
        yield content
    else:
        yield from (part["text"] for part in content if part["type"] == "text")


def _is_decoded(source: Any) -> bool:
    return isinstance(source, tuple | np.ndarray | Image.Image | Video)
