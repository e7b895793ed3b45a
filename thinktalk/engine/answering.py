"""Answering: events from the engine's thread to whoever listens, in a loop or in a thread of his own.

    engine thread --emit--> Answer --take--> for event in session.respond_sync()
                                         --> async for event in session.respond()

It keeps what an interruption has to know: what was made, and how much of that was taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from thinktalk.engine.alignment import Spoken
from thinktalk.engine.replying import Failed
from thinktalk.events import AudioChunk, ContextLimit, Done, Event, TextDelta
from thinktalk.media.timeline import Timeline

__all__ = ["Answer", "Worker", "wait_for"]

NAP_S = 0.001


class Worker(Protocol):
    """What does the work: an Engine."""

    @property
    def running(self) -> bool:
        """Whether a thread of its own ticks."""

    def tick(self) -> bool:
        """One unit of work in the caller's thread; False when there is none."""


def wait_for(condition: Callable[[], bool], worker: Worker) -> None:
    """Wait until something is true; where no thread works, work."""
    while not condition():
        if worker.running or not worker.tick():
            time.sleep(NAP_S)


@dataclass(eq=False)
class Answer:
    """One reply, from the request until the next turn is read."""

    timeline: Timeline
    """Where it begins."""
    room: int
    """Tokens it may have."""
    context: int
    """Tokens the conversation may have."""
    speech: bool
    """Whether it is spoken."""
    spoken: Spoken = field(default_factory=Spoken)
    done: Done | None = None
    error: Exception | None = None
    closed: bool = False
    """Interrupted: nothing more is given out."""
    settled: bool = False
    """It stands in the history."""
    taken_s: float = 0.0
    """Sound that the listener took."""
    taken_text: int = 0
    """Characters that the listener took."""
    _events: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    _wake: Callable[[], Any] | None = None
    _given: bool = False  # the listener has had the last event

    @property
    def over(self) -> bool:
        """Whether nothing more is made."""
        return self.closed or self.done is not None or self.error is not None

    def emit(self, event: Any) -> None:
        """Called by the engine; never waits."""
        if self.closed:
            return
        match event:
            case AudioChunk():
                self.spoken.add(event.pcm, event.sample_rate)
            case Done():
                self.done = event
            case Failed():
                self.error = event.error
        self._put(event)

    def close(self) -> None:
        """Interrupted: whoever listens comes to an end."""
        self.closed = True
        self._put(None)

    def _put(self, event: Any) -> None:
        self._events.put(event)
        wake = self._wake
        if wake is not None:
            with contextlib.suppress(RuntimeError):  # the listener's loop is closed
                wake()

    def take(self, worker: Worker) -> Iterator[Event]:
        """The events; works where no thread does."""
        while not self._given:
            if not self._events.empty():
                yield from self._give(self._events.get())
            elif worker.running:
                with contextlib.suppress(queue.Empty):  # looks up now and then: the worker may stop
                    yield from self._give(self._events.get(timeout=0.1))
            elif not worker.tick():
                time.sleep(NAP_S)

    async def take_async(self, worker: Worker) -> AsyncIterator[Event]:
        """The events, for a loop; works where no thread does, one unit at a time."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(ready.set)
        while not self._given:
            ready.clear()
            if not self._events.empty():
                for event in self._give(self._events.get()):
                    yield event
            elif worker.running:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):  # wait_for of Python 3.11 may swallow a cancel
                        await ready.wait()
            else:
                await asyncio.sleep(0 if worker.tick() else NAP_S)

    def _give(self, event: Any) -> Iterator[Event]:
        """One event to the listener; None and Failed end it."""
        if event is None or self.closed:
            self._given = True
            return
        match event:
            case Failed():
                self._given = True
                raise event.error
            case AudioChunk():
                self.taken_s = event.start_s + len(event.pcm) / event.sample_rate
            case TextDelta():
                self.taken_text += len(event.text)
            case Done():
                self._given = True
                reply = event.reply
                if reply.finish == "length" and len(reply.token_ids) >= self.room:
                    tokens = self.timeline.tokens + len(reply.token_ids)
                    yield ContextLimit(tokens=tokens, limit=self.context)
        yield event
