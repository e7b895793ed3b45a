"""Events to a terminal: words are printed, sound is written and played, as they come.

reply = follow(omni.stream(messages), out="answer.wav", play=True)
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Self

from thinktalk.cli.loudspeaker import Loudspeaker
from thinktalk.errors import InputError
from thinktalk.events import AudioChunk, ContextLimit, Done, Event, Reply, TextDelta
from thinktalk.media.audio import WaveWriter

__all__ = ["Outlet", "follow", "whole"]


class Outlet:
    """Where one answer goes: the terminal (not with `quiet`), the WAV `out` and, with `play`, the loudspeaker."""

    def __init__(
        self, *, out: str | None, play: bool = False, quiet: bool = False, sample_rate: int = 24_000
    ):
        self.reply: Reply | None = None
        """The whole answer, when it is over."""
        self.speaker: Loudspeaker | None = None
        self._out, self._play, self._quiet, self._rate = out, play, quiet, sample_rate
        self._exit = contextlib.ExitStack()
        self._plain = not sys.stdout.isatty()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            wave = None if self._out is None else WaveWriter(self._out, self._rate)
            self._wave = None if wave is None else stack.enter_context(wave)
            self.speaker = stack.enter_context(Loudspeaker(self._rate)) if self._play else None
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.__exit__(*exc)

    def take(self, event: Event) -> None:
        """The next event."""
        match event:
            case TextDelta() if not self._quiet:
                print(event.text if self._plain else printable(event.text), end="", flush=True)
            case AudioChunk():
                if self._wave is not None:
                    self._wave.write(event.pcm)
                if self.speaker is not None:
                    self.speaker.play(event.pcm)
            case Done():
                self.reply = event.reply
            case ContextLimit() if self.reply is None:
                print(
                    f"thinktalk: the conversation has {event.tokens} tokens of {event.limit}; not all was taken in",
                    file=sys.stderr,
                )

    def end(self) -> Reply:
        """The whole answer, once all events are taken. Errors: InputError when there was no room for one."""
        if not self._quiet:
            print(flush=True)
        if self.reply is None:
            raise InputError("prompt: it fills the model's context, no answer fits; shorten it")
        return self.reply


def follow(
    events: Iterable[Event], *, out: str | None, play: bool = False, quiet: bool = False, sample_rate: int = 24_000
) -> Reply:  # fmt: skip
    """Give the events to an Outlet, to their end."""
    with Outlet(out=out, play=play, quiet=quiet, sample_rate=sample_rate) as outlet:
        for event in events:
            outlet.take(event)
        return outlet.end()


def printable(text: str) -> str:
    """Without what a terminal would obey: a model may write escape sequences, its own or those of a file it read.

    >>> printable("a\\x1b[2Jb")
    'a�[2Jb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def whole(reply: Reply) -> Iterator[Event]:
    """A finished reply as events."""
    yield TextDelta(text=reply.text, at_s=0.0)
    if reply.audio is not None:
        yield AudioChunk(pcm=reply.audio, start_s=0.0, at_s=0.0, sample_rate=reply.sample_rate)
    yield Done(reply=reply)
