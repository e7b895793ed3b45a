"""Hub: what every route shares: the model, its engine in a thread of its own, the line before it, the guard, the counters.

    async with hub.conversation(client, voice="default", messages=await hub.prepared(messages)) as session:
        async with aclosing(hub.respond(session)) as events:
            async for event in events: ...          TextDelta, AudioChunk, ..., Done

    Host  the model, its engine, threads, names --> Intake  what clients send, decoded --> Hub  conversations

The event loop never waits for the model: whatever blocks runs in threads, by `await hub.call(function)`. Leaving a block, by
its end, an error or because the client has gone, frees its seat after the engine's current unit of work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import HTTPConnection
from torch import Tensor

from thinktalk.code2wav.speaker import Voice
from thinktalk.engine.admission import Busy
from thinktalk.engine.session import Session
from thinktalk.errors import ConfigError
from thinktalk.events import AudioChunk, Done, Event, Reply, TextDelta
from thinktalk.omni import Omni
from thinktalk.pipeline import Options
from thinktalk.server.decoding import Guard
from thinktalk.server.intake import Intake, all_decoded
from thinktalk.server.line import Line, Place
from thinktalk.server.problems import Draining, Overloaded
from thinktalk.server.settings import Settings

__all__ = ["Client", "Hub", "client_of", "hub_of"]

log = logging.getLogger("thinktalk.server")


@dataclass(frozen=True)
class Client:
    """Who asks: limits and fairness count by name. Never a key itself."""

    name: str = "anonymous"


class Hub(Intake):
    """One per process. `omni` None: settings.model is loaded by start()."""

    def __init__(self, settings: Settings, *, omni: Omni | None = None, guard: Guard | None = None):
        super().__init__(settings, omni, guard)
        self.line = Line(size=settings.queue_size, seconds=settings.queue_seconds)
        self._coming: list[bool] = []  # let in, not seated yet: whether each speaks

    async def drain(self, seconds: float) -> bool:
        """Take nothing new and wait until the last conversation has ended; False when some had not after so long."""
        self.draining.set()
        until = time.monotonic() + seconds
        while self.conversations and time.monotonic() < until:
            await asyncio.sleep(0.02)
        return not self.conversations

    @property
    def conversations(self) -> int:
        """How many there are now, those that wait or are just being let in among them."""
        return self.line.talking.total() + len(self._coming) + len(self.line)

    @property
    def ready(self) -> bool:
        """Whether new work is taken."""
        return self.alive and not self.draining.is_set()

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
        assert all_decoded(messages or ()), "prepared() comes first"
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
            # read beside the engine's thread, for whom nothing waits here; engine.open() checks for good
            self.engine.admission.check(0, speaks=speaks, coming=self._coming)
            self._coming.append(speaks)

        try:
            await place.admitted(attempt)
        except Overloaded:
            self.metrics.refused.labels("overloaded").inc()
            raise
        finally:
            self._count()

    def _count(self) -> None:
        # seats, since one may be taken again before who left it is counted out of the line
        self.metrics.sessions.set(len(self.engine.seats))
        self.metrics.waiting.set(len(self.line))

    async def respond(
        self,
        session: Session,
        *,
        noise: Tensor | None = None,
        call: Callable[[Callable[[], Any]], Awaitable[Any]] | None = None,
        last: bool = False,
        **changes: Any,
    ) -> AsyncIterator[Event]:
        """session.respond for a server: nothing blocks the loop, and what is left early is stopped. Use it with aclosing.

        `call` stands in for hub.call where somebody else uses the session meanwhile and must wait for his turn. After the
        `last` reply nothing more is asked: who leaves it closes the session, which takes one unit of the engine's work, where
        to interrupt it, so that it can go on, takes three.
        """
        call = call or self.call
        begun: list[AsyncIterator[Event]] = []
        ended = "left"

        def interrupt() -> None:
            if not session.closed and session.replying:
                session.interrupt()

        try:
            # a cancel meets the session's own loop first: it must not wait for the engine in ours
            begin = lambda: session.respond(noise=noise, interrupts=False, **changes)  # noqa: E731
            if last:  # the first one, too: nothing that came meanwhile is to be read, so it does not block
                begun.append(begin())
            else:
                await call(lambda: begun.append(begin()))
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
                        if self.settings.log_content or not last:
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
            if last:
                session.close(wait=False)  # conversation() waits for it
            else:
                await call(interrupt)
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


async def hub_of(connection: HTTPConnection) -> Hub:
    """For Depends: the hub of the app that serves this request or WebSocket. A coroutine, since FastAPI sends others to a thread."""
    return connection.app.state.hub


async def client_of(connection: HTTPConnection) -> Client:
    """For Depends: who asks, as the middleware that checks keys has found."""
    return connection.scope.get("state", {}).get("client") or Client()
