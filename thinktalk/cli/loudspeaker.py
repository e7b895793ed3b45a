"""Loudspeaker: pcm (S,) as it is made -> a program that plays it; and how much of it was heard by now.

    with Loudspeaker(24_000) as speaker:
        speaker.play(pcm)
        speaker.heard_s, speaker.left_s          seconds played, seconds still to come
        speaker.stop()                           silence at once

Sound is written by a thread of its own, so words go on while it plays. The player tells nothing back: what was heard is
counted by the clock from when it was given out (a sound card's own delay, some 0.1 s, is not in it).
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import subprocess
import threading
import time
from typing import Self

import numpy as np

from thinktalk.errors import ConfigError

__all__ = ["PLAYERS", "Loudspeaker", "player_command"]

PLAYERS = (
    ("aplay", "-q -t raw -f S16_LE -c 1 -r {rate} -"),
    ("paplay", "--raw --format=s16le --channels=1 --rate={rate}"),
    ("pw-play", "--raw --format=s16 --channels=1 --rate={rate} -"),
    ("play", "-q -t raw -e signed -b 16 -c 1 -r {rate} -"),
    ("ffplay", "-loglevel quiet -nodisp -autoexit -f s16le -ch_layout mono -ar {rate} -i -"),
)
"""Programs that play raw 16-bit samples from standard input, and how they are told so."""
LINGER_S = 5.0  # for what a sound card still holds at the end


def player_command(rate: int) -> list[str]:
    """The first player that is installed, with its arguments; ConfigError when there is none."""
    for name, arguments in PLAYERS:
        if path := shutil.which(name):
            return [path, *arguments.format(rate=rate).split()]
    names = ", ".join(name for name, _ in PLAYERS)
    raise ConfigError(
        f"--play: no player found, expected one of {names}; install one, or use --out"
    )


class Loudspeaker:
    """One answer's sound. A player that ends before its time is no error: the words and the file go on."""

    def __init__(self, rate: int):
        quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
        # a group of its own: Ctrl-C of the terminal is for us, who know what was heard
        self._process = subprocess.Popen(
            player_command(rate), stdin=pipe, stdout=quiet, stderr=quiet, start_new_session=True
        )
        self._rate, self._given_s, self._ends_at = rate, 0.0, 0.0
        self._stopped_s: float | None = None
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="thinktalk-loudspeaker", daemon=True)  # fmt: skip
        self._writer.start()

    def play(self, pcm: np.ndarray) -> None:
        """Float samples (S,) in -1..1 that follow what was given before."""
        seconds = len(pcm) / self._rate
        self._ends_at = max(self._ends_at, time.monotonic()) + seconds
        self._given_s += seconds
        self._pieces.put((np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes())

    @property
    def left_s(self) -> float:
        """Seconds that were given and are still to be heard."""
        return 0.0 if self._stopped_s is not None else max(0.0, self._ends_at - time.monotonic())

    @property
    def heard_s(self) -> float:
        """Seconds that were heard."""
        return self._given_s - self.left_s if self._stopped_s is None else self._stopped_s

    def finish(self) -> None:
        """Nothing more will come: the player ends when it has played what it was given."""
        self._pieces.put(None)

    @property
    def playing(self) -> bool:
        """Whether the player is still there."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Silence at once; what was not heard by now never will be."""
        if self._stopped_s is None:
            self._stopped_s = self.heard_s
            self._process.kill()
            self.finish()

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):  # the player has gone
            while (piece := self._pieces.get()) is not None:
                pipe.write(piece)
                pipe.flush()
        with contextlib.suppress(OSError):
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """What was given is played to its end; after an error it stops."""
        if kind is not None:
            self.stop()
        self.finish()
        try:
            self._process.wait(self.left_s + LINGER_S if self._stopped_s is None else LINGER_S)
        except BaseException as error:  # Ctrl-C among them
            self.stop()
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        finally:
            self._writer.join(1.0)
