"""Sitting: a seat at the engine, brought to where a conversation stands. It reads what is new; what cannot be read on begins anew.

    Scene(system, voice, lines) --bring--> the seat has read exactly this --respond--> events
                                           a reply stands in it as lines of its own (replied)

A scene says what the model is to have read, never how that came about. If what was read is its beginning, the rest is read
where the seat stands; otherwise (an item in the middle went, other instructions, another voice) the conversation is read
again from its start. So every event of the protocol, in whatever order, has one meaning. Sound that still grows is read as
far as it goes.

When the context is full the oldest lines are forgotten, a quarter of them at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from thinktalk.engine.session import Session
from thinktalk.errors import InputError
from thinktalk.events import ContextLimit, Event
from thinktalk.server.hub import Client, Hub
from thinktalk.server.items import RATE, Line, Media, Part, Sound

__all__ = ["Scene", "Sitting"]

T = TypeVar("T")
LEAST = RATE // 50 + 1  # samples: shorter sound makes no token


@dataclass(frozen=True)
class Scene:
    """What the model is to have read."""

    system: str
    voice: str | None
    """None: it writes only."""
    lines: tuple[Line, ...]


@dataclass
class _Read:
    """A line, as far as it was read."""

    key: tuple[str, int]
    parts: int = 0
    samples: int = 0  # of the sound that is its next part
    pictures: int = 0


class Sitting:
    """For one conversation; used by one event loop."""

    def __init__(self, hub: Hub, client: Client):
        self.hub, self.client = hub, client
        self.session: Session | None = None
        self._scene = Scene("", None, ())
        self._read: list[_Read] = []
        self._forgotten: set[tuple[str, int]] = set()
        self._full = False  # not all that came was taken in
        self._reply_end = 0  # lines up to the end of the last reply
        self._turn_samples = 0  # of sound, in the turn under way
        self._watching = False  # pictures come beside the sound
        self._lock = asyncio.Lock()
        self._exit = contextlib.AsyncExitStack()

    async def call(self, function: Callable[[], T]) -> T:
        """Something with the session, in a thread, one at a time."""
        async with self._lock:
            return await self.hub.call(function)

    # --------------------------------------------------------------------------------------------------------- reading

    async def bring(self, scene: Callable[[], Scene | None]) -> None:
        """Have it read all of the scene, as that is when its turn has come; None: nothing.

        Errors: Overloaded, InputError (too much for the context).
        """
        async with self._lock:
            wanted = scene()
            while wanted is not None:
                lines = tuple(line for line in wanted.lines if line.key not in self._forgotten)
                try:
                    if self._full or not self._goes_on(wanted, lines):
                        await self._begin(wanted, lines)
                    if not self._is_read(lines):
                        await self.hub.call(lambda lines=lines: self._read_on(lines))
                    return
                except InputError:
                    await self._leave()
                    if not self._forget(lines):
                        raise

    def _goes_on(self, scene: Scene, lines: Sequence[Line]) -> bool:
        """Whether what was read is the beginning of these lines, and the rest can be read after it."""
        if self.session is None or len(self._read) > len(lines):
            return False
        if (self._scene.system, self._scene.voice) != (scene.system, scene.voice):
            return False
        for place, (read, line) in enumerate(zip(self._read, lines, strict=False)):
            last = place == len(lines) - 1
            if read.key != line.key or not (last or _all_read(read, line)):
                return False
        return all(line.role == "user" for line in lines[len(self._read) :])

    def _is_read(self, lines: Sequence[Line]) -> bool:
        """Whether nothing of what it goes on from is new."""
        return len(self._read) == len(lines) and (not lines or _all_read(self._read[-1], lines[-1]))

    async def _begin(self, scene: Scene, lines: Sequence[Line]) -> None:
        """Another seat, which reads what stands before the turn under way."""
        if self._full:
            self._full = False
            self._forget(lines)
            lines = [line for line in lines if line.key not in self._forgotten]
        await self._leave()
        head = len(lines)
        while head and lines[head - 1].role == "user":
            head -= 1
        messages = [{"role": "system", "content": scene.system}, *_messages(lines[:head])]
        options = self.hub.options(speech=scene.voice is not None)
        try:
            self.session = await self._exit.enter_async_context(
                self.hub.conversation(
                    self.client, voice=scene.voice, speech=scene.voice is not None, messages=messages, options=options
                )
            )  # fmt: skip
        except BaseException:
            await self._leave()
            raise
        self._scene = scene
        self._read = [_finished(line) for line in lines[:head]]
        self._reply_end = head
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._turn_samples, self._watching = 0, False

    def _read_on(self, lines: Sequence[Line]) -> None:
        """Everything that is new; in a thread."""
        for place in range(max(0, len(self._read) - 1), len(lines)):
            line = lines[place]
            if place == len(self._read):
                self._read.append(_Read(line.key))
                before = lines[place - 1] if place and lines[place - 1].role == "user" else None
                if before is not None and isinstance(before.parts[-1], str) and isinstance(line.parts[0], str):  # fmt: skip
                    self._say("\n")
            read = self._read[place]
            while read.parts < len(line.parts):
                part = line.parts[read.parts]
                if isinstance(part, Sound):
                    self._hear(part, read)
                    if place == len(lines) - 1 and read.parts == len(line.parts) - 1:
                        break  # it may grow
                elif isinstance(part, Media):
                    self._session.add([part.part])
                else:
                    self._say(part)
                read.parts, read.samples, read.pictures = read.parts + 1, 0, 0

    @property
    def _session(self) -> Session:
        assert self.session is not None
        return self.session

    def _say(self, text: str) -> None:
        self._session.text(text)

    def _hear(self, sound: Sound, read: _Read) -> None:
        """The rest of a sound, with the pictures seen meanwhile at their moments."""
        stop = sound.samples
        for at, picture in sound.pictures[read.pictures :]:
            self._hear_until(sound, read, at)
            self._session.see(picture, self._turn_samples / RATE)
            self._watching = True
            read.pictures += 1
        self._hear_until(sound, read, stop)

    def _hear_until(self, sound: Sound, read: _Read, stop: int) -> None:
        if stop <= read.samples:
            return
        self._session.hear(sound.read(read.samples, stop))
        self._turn_samples += stop - read.samples
        read.samples = stop
        if self._watching:
            self._session.see(None, self._turn_samples / RATE)  # the last picture still stands

    def _forget(self, lines: Sequence[Line]) -> bool:
        """The oldest quarter of what came before this turn; False when there is nothing to forget."""
        head = len(lines)
        while head and lines[head - 1].role == "user":
            head -= 1
        oldest = lines[: -(-head // 4)]
        self._forgotten.update(line.key for line in oldest)
        return bool(oldest)

    # --------------------------------------------------------------------------------------------------------- replies

    async def respond(self, **options: Any) -> AsyncIterator[Event]:
        """hub.respond of what was brought; what the session is asked meanwhile does not meet it."""
        async with contextlib.aclosing(self.hub.respond(self._session, call=self.call, **options)) as events:  # fmt: skip
            async for event in events:
                self._full |= isinstance(event, ContextLimit)
                yield event

    def replied(self, keys: Sequence[tuple[str, int]]) -> None:
        """The reply stands in the conversation as these lines."""
        self._read += [_Read(key, parts=1 << 30) for key in keys]
        self._reply_end = len(self._read)
        self._begin_turn()

    async def interrupt(self, heard_s: float | None = None) -> str:
        """Stop the reply under way; the words that stay."""
        session = self.session
        if session is None:
            return ""
        return await self.call(lambda: session.interrupt(heard_s=heard_s) if session.replying else "")  # fmt: skip

    async def cut(self, key: tuple[str, int], heard_s: float) -> str | None:
        """Of the last reply only so much was heard: the words that stay. None when it cannot be cut any more."""
        session, end = self.session, self._reply_end
        if session is None or not end or self._read[end - 1].key != key:
            return None
        since = self._read[end:]
        block = RATE * self.hub.omni.config.thinker.chunk_seconds
        if any(read.parts or read.pictures for read in since) or self._turn_samples > 0.9 * block:
            return None  # something of the next turn was read
        return await self.call(lambda: session.interrupt(heard_s=heard_s))

    # ------------------------------------------------------------------------------------------------------------- end

    def abandon(self) -> None:
        """Nobody is there any more: the seat is free after the engine's unit of work, whatever goes on in it.

        Who still uses the session finds it closed. leave() must follow, when all of them have ended.
        """
        if self.session is not None:
            with contextlib.suppress(RuntimeError):  # the engine has stopped
                self.session.close(wait=False)

    async def leave(self) -> None:
        """Give the seat up; the next scene takes another."""
        async with self._lock:
            await self._leave()

    async def _leave(self) -> None:
        self.session, self._read, self._reply_end = None, [], 0
        exits, self._exit = self._exit, contextlib.AsyncExitStack()
        await exits.aclose()


def _all_read(read: _Read, line: Line) -> bool:
    """Whether nothing of a line is left."""
    rest = line.parts[read.parts :]
    if not rest:
        return True
    (sound, *more) = rest
    return not more and isinstance(sound, Sound) and read.samples == sound.samples


def _finished(line: Line) -> _Read:
    return _Read(line.key, parts=len(line.parts))


def _messages(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Lines as messages; neighbours of one role are one message."""
    messages: list[dict[str, Any]] = []
    for line in lines:
        parts = [p for part in line.parts for p in _parts(part)]
        if messages and messages[-1]["role"] == line.role:
            content = messages[-1]["content"]
            if content and parts and content[-1]["type"] == parts[0]["type"] == "text":
                content.append({"type": "text", "text": "\n"})
            content += parts
        else:
            messages.append({"role": line.role, "content": parts})
    return [m for m in messages if m["content"]]


def _parts(part: Part) -> list[dict[str, Any]]:
    match part:
        case str():
            return [{"type": "text", "text": part}]
        case Media():
            return [part.part]
        case Sound():
            pictures = [Media("image", picture).part for _, picture in part.pictures]
            heard = [{"type": "audio", "audio": (part.read(), RATE)}]
            return pictures + (heard if part.samples > LEAST else [])
