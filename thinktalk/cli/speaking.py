"""Events to a terminal: words are printed, sound is written and played, as they come.

reply = follow(omni.stream(messages), out="answer.wav", play=True)
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator

import numpy as np

from thinktalk.errors import ConfigError, InputError
from thinktalk.events import AudioChunk, ContextLimit, Done, Event, Reply, TextDelta
from thinktalk.media.audio import WaveWriter

__all__ = ["follow", "player", "whole"]

PLAYERS = (
    ("aplay", "-q -t raw -f S16_LE -c 1 -r {rate} -"),
    ("paplay", "--raw --format=s16le --channels=1 --rate={rate}"),
    ("pw-play", "--raw --format=s16 --channels=1 --rate={rate} -"),
    ("play", "-q -t raw -e signed -b 16 -c 1 -r {rate} -"),
    ("ffplay", "-loglevel quiet -nodisp -autoexit -f s16le -ch_layout mono -ar {rate} -i -"),
)
"""Programs that play raw 16-bit samples from standard input, and how they are told so."""


def follow(
    events: Iterable[Event], *, out: str | None, play: bool = False, quiet: bool = False, sample_rate: int = 24_000
) -> Reply:  # fmt: skip
    """Give the events to the terminal (not with `quiet`), to the WAV `out` and, with `play`, to the loudspeaker."""
    reply: Reply | None = None
    with contextlib.ExitStack() as stack:
        wave = stack.enter_context(WaveWriter(out, sample_rate)) if out is not None else None
        speaker = stack.enter_context(player(sample_rate)) if play else None
        for event in events:
            match event:
                case TextDelta() if not quiet:
                    print(event.text, end="", flush=True)
                case AudioChunk():
                    if wave is not None:
                        wave.write(event.pcm)
                    if speaker is not None:
                        _play(speaker, event.pcm)
                case Done():
                    reply = event.reply
                case ContextLimit() if reply is None:
                    print(
                        f"thinktalk: the conversation has {event.tokens} tokens of {event.limit}; not all was taken in",
                        file=sys.stderr,
                    )
    if not quiet:
        print()
    if reply is None:
        raise InputError("prompt: it fills the model's context, no answer fits; shorten it")
    return reply


def whole(reply: Reply) -> Iterator[Event]:
    """A finished reply as events."""
    yield TextDelta(text=reply.text, at_s=0.0)
    if reply.audio is not None:
        yield AudioChunk(pcm=reply.audio, start_s=0.0, at_s=0.0, sample_rate=reply.sample_rate)
    yield Done(reply=reply)


@contextlib.contextmanager
def player(rate: int) -> Iterator[subprocess.Popen]:
    """A program that plays what is written to its standard input; ConfigError when there is none."""
    for name, arguments in PLAYERS:
        if path := shutil.which(name):
            command = [path, *arguments.format(rate=rate).split()]
            break
    else:
        names = ", ".join(name for name, _ in PLAYERS)
        raise ConfigError(
            f"--play: no player found, expected one of {names}; install one, or use --out"
        )
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet) as process:
        yield process
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]  # it plays to the end, then leaves


def _play(speaker: subprocess.Popen, pcm: np.ndarray) -> None:
    with contextlib.suppress(BrokenPipeError):  # no loudspeaker: the words and the file go on
        speaker.stdin.write((np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes())  # type: ignore[union-attr]
        speaker.stdin.flush()  # type: ignore[union-attr]
