"""Microphone: a client's input_audio_buffer -> sound at 16 kHz, in turns.

    bytes --format--> pcm --resampler--> 16 kHz --Turns--> Began, Ended      server_vad, semantic_vad
                                               --all of it--> one sound      turn_detection null

Between turns only the last moments are kept (prefix_padding_ms): they belong to the turn that begins next. Times are those of
all sound that ever came, in ms, as the protocol counts them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from thinktalk.layers.resample import resampler
from thinktalk.server import g711
from thinktalk.server.items import RATE, Sound, new_id
from thinktalk.server.problems import Problem
from thinktalk.server.turns import Patience, Started, Stopped, Turns, patience
from thinktalk.server.vad import load_vad
from thinktalk.server.wire.realtime_session import Format, Input, SemanticVad, ServerVad

__all__ = ["Began", "Ended", "Microphone", "Utterance"]

LEAST_S = 0.1  # what the protocol wants to be committed at least


@dataclass
class Utterance:
    """Sound that is, or will be, one message."""

    id: str
    sound: Sound
    start_ms: int


@dataclass(frozen=True)
class Began:
    """Somebody began to speak."""

    utterance: Utterance


@dataclass(frozen=True)
class Ended:
    """He has ended."""

    utterance: Utterance
    end_ms: int


class Microphone:
    """One client's. `most_s`: the longest utterance; a longer one is ended, or refused where the client ends them himself.

    `finished` and `complete` as for Turns: whoever judges words, where semantic_vad is chosen.
    """

    def __init__(
        self,
        config: Input,
        *,
        most_s: float,
        finished: Callable[[int], float | None] | None = None,
        complete: float = 0.5,
    ):
        self.most_s = most_s
        self._finished, self._complete = finished, complete
        self.utterance: Utterance | None = None
        self._position = 0  # samples at 16 kHz that came
        self._before: deque[np.ndarray] = deque()  # the last moments of silence
        self._before_samples = 0
        self._format: Format | None = None
        self._detection: ServerVad | SemanticVad | None = None
        self._turns: Turns | None = None
        self._rest = b""  # half a sample
        self.configure(config)

    def configure(self, config: Input) -> None:
        """Other settings; what was heard so far stays. Errors: ConfigError when there is no voice detector."""
        if config.format != self._format:
            self._resampler = resampler(config.format.samples_per_second, RATE)
            self._state = self._resampler.init_state(1)
            self._format, self._rest = config.format, b""
        if config.turn_detection != self._detection or self._turns is None:
            turns = None if config.turn_detection is None else self._finder(config.turn_detection)
            self._turns, self._detection = turns, config.turn_detection
            self._base = self._position  # where the detector's time begins
            self._quiet()

    def _finder(self, detection: ServerVad | SemanticVad) -> Turns:
        """Whoever finds turns as these settings say."""
        if isinstance(detection, ServerVad):
            silence = Patience(detection.silence_duration_ms)
            return Turns(load_vad(), threshold=detection.threshold, patience=silence)
        finished, base = self._finished, self._position
        if finished is None:
            return Turns(load_vad(), patience=patience(detection.eagerness, judged=False))
        return Turns(
            load_vad(),
            patience=patience(detection.eagerness, judged=True),
            finished=lambda since: finished(base + since),
            complete=self._complete,
        )

    @property
    def detection(self) -> ServerVad | SemanticVad | None:
        """How turns are found; None: the client says."""
        return self._detection

    @property
    def now_ms(self) -> int:
        """Length of all sound that came."""
        return self._position * 1000 // RATE

    # --------------------------------------------------------------------------------------------------------- hearing

    def hear(self, data: bytes) -> list[Began | Ended]:
        """What a client appended; blocks for about a hundredth of its length. Errors: Problem."""
        pcm = self._decoded(data)
        if self._turns is None:
            utterance = self.utterance or self._open(0)
            if utterance.sound.samples + len(pcm) > self.most_s * RATE:
                raise Problem(
                    400, f"the buffer holds {utterance.sound.seconds:.1f} s, at most {self.most_s:g} s; commit or clear it",
                    param="audio", code="input_audio_buffer_full",
                )  # fmt: skip
            utterance.sound.add(pcm)
            self._position += len(pcm)
            return []
        happened: list[Began | Ended] = []
        for frame, change in self._turns.feed(pcm):
            self._position += len(frame)
            self._frame(frame, change, happened)
        return happened

    def _frame(
        self, frame: np.ndarray, change: Started | Stopped | None, happened: list[Began | Ended]
    ) -> None:
        if self.utterance is None:
            self._keep(frame)
            if isinstance(change, Started):
                behind = self._position - (self._base + change.at)
                happened.append(Began(self._open(behind)))
            return
        self.utterance.sound.add(frame)
        too_long = self.utterance.sound.samples > self.most_s * RATE
        if isinstance(change, Stopped) or too_long:
            assert self._turns is not None
            self._turns.reset()
            happened.append(Ended(self.utterance, self.now_ms))
            self.utterance = None

    def _open(self, behind: int) -> Utterance:
        """An utterance begins: `behind` samples ago, and the padding before that."""
        sound, kept = Sound(), [*self._before]
        padding = self._padding
        wanted = behind + padding
        if kept and wanted:
            sound.add(np.concatenate(kept)[-wanted:])
        start_ms = (self._position - sound.samples) * 1000 // RATE
        self.utterance = Utterance(new_id("item"), sound, start_ms)
        self._quiet()
        return self.utterance

    @property
    def _padding(self) -> int:
        """Samples that go before the first one of speech."""
        ms = self._detection.prefix_padding_ms if isinstance(self._detection, ServerVad) else 300
        return 0 if self._detection is None else ms * RATE // 1000

    def _keep(self, frame: np.ndarray) -> None:
        """The last moments: the padding, and the frames in which speech was suspected."""
        self._before.append(frame)
        self._before_samples += len(frame)
        while self._before_samples - len(self._before[0]) >= self._padding + 4 * len(frame):
            self._before_samples -= len(self._before.popleft())

    def _quiet(self) -> None:
        self._before.clear()
        self._before_samples = 0

    # ------------------------------------------------------------------------------------------------------ the client

    def commit(self) -> Utterance:
        """The client says that the turn is over. Errors: Problem when there is too little."""
        utterance = self.utterance
        if utterance is not None and self._turns is None:  # what the filter still holds
            with torch.inference_mode():
                tail = self._resampler.step(torch.zeros(1, 0), self._state, last=True)[0].numpy()
            utterance.sound.add(tail)
            self._position += len(tail)
            self._state, self._rest = self._resampler.init_state(1), b""
        length = 0.0 if utterance is None else utterance.sound.seconds
        if utterance is None or length < LEAST_S:
            raise Problem(
                400, f"the buffer holds {1000 * length:.0f} ms of sound, expected at least {1000 * LEAST_S:.0f} ms",
                code="input_audio_buffer_commit_empty",
            )  # fmt: skip
        self.clear()
        return utterance

    def idle(self) -> tuple[Utterance, int]:
        """Nobody spoke for long: the silence just now as an utterance, and where it ends (ms)."""
        utterance = self._open(0)
        self.clear()
        return utterance, self.now_ms

    def clear(self) -> None:
        """Forget what is not committed."""
        self.utterance = None
        self._quiet()
        if self._turns is not None:
            self._turns.reset()

    def _decoded(self, data: bytes) -> np.ndarray:
        """float32 (S,) at 16 kHz."""
        assert self._format is not None
        if self._format.type == "audio/pcm":
            data = self._rest + data
            whole = len(data) // 2 * 2
            self._rest = data[whole:]
            pcm = np.frombuffer(data[:whole], "<i2").astype(np.float32) / 32768
        else:
            pcm = g711.decode(data, "mu" if self._format.type == "audio/pcmu" else "a")
        with torch.inference_mode():
            return self._resampler.step(torch.from_numpy(pcm)[None], self._state)[0].numpy()
