"""Judges: codes that somebody said -> Heard: the words a listener hears in them, and when.

    reader:RUN      the tokenizer's own CTC head, straight from codes (training/reader.py): milliseconds, no wave is made
    whisper:DIR     faster-whisper on the wave (the extra "judges"): seconds; of another make than what is judged

A judge gives rewards, never results: what was trained to please one has to be measured by another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import torch

from thinktalk.code2wav.speaker import Voice
from thinktalk.errors import ConfigError
from thinktalk.metrics.pauses import Word
from thinktalk.pipeline import Options, speak
from thinktalk.training.reader import CodeReader
from thinktalk.weights.hf import OmniModel

__all__ = ["Heard", "Judge", "Listening", "Listens", "Reads", "judge_of", "whisper"]


@dataclass(frozen=True)
class Heard:
    """What was heard of one utterance."""

    words: list[Word]

    @property
    def text(self) -> str:
        """The words."""
        return " ".join(word.text for word in self.words)


Judge = Callable[[Sequence[Sequence[int]]], list[Heard]]
"""Codes of some utterances -> what is heard of each."""
Listening = Callable[[np.ndarray, int], Heard]
"""Samples (float32) and their rate -> what is heard."""


class Reads:
    """The judge that reads codes."""

    def __init__(self, reader: CodeReader, *, codes_per_second: float):
        self.reader = reader
        self.slots_per_second = codes_per_second * reader.config.pool

    def __call__(self, codes: Sequence[Sequence[int]]) -> list[Heard]:
        """Greedy CTC; a letter is where its first slot is, and lasts as long as letters are apart in this utterance."""
        rows = [torch.as_tensor(row, dtype=torch.int64) for row in codes]
        return [Heard(self._words(logits)) for logits in self.reader.logits(rows)]

    def _words(self, logits_TV: torch.Tensor) -> list[Word]:
        slot, letters = 0, []
        for number, run in groupby(logits_TV.argmax(-1).tolist()):
            if number:
                letters.append((self.reader.symbols.text([number]), slot))
            slot += len(list(run))
        words = [list(run) for space, run in groupby(letters, lambda x: x[0] == " ") if not space]
        apart = [b - a for word in words for (_, a), (_, b) in pairwise(word)]
        half = float(np.median(apart)) / 2 if apart else 0.5
        rate = self.slots_per_second
        return [
            Word("".join(x for x, _ in w), (w[0][1] - half) / rate, (w[-1][1] + half) / rate)
            for w in words
        ]


class Listens:
    """The judge that hears waves: any recogniser, given as a callable."""

    def __init__(self, model: OmniModel, voice: Voice, listen: Listening, *, seed: int = 0):
        """`model` has code2wav, `voice` is the one all are spoken with."""
        if model.dit is None or model.vocoder is None:
            raise ConfigError(f"a judge that listens needs waves; the model has {', '.join(model.parts) or 'nothing'}, expected code2wav")  # fmt: skip
        self.model, self.voice, self.listen = model, voice, listen
        self.options = Options(generation=model.config.generation, seed=seed)

    def __call__(self, codes: Sequence[Sequence[int]]) -> list[Heard]:
        """Each is spoken and heard; no codes are nothing heard."""
        assert self.model.config.code2wav is not None
        rate = self.model.config.code2wav.sample_rate
        heard = []
        for row in codes:
            if not len(row):
                heard.append(Heard([]))
                continue
            wave = speak(self.model, [list(row)], [self.voice], self.options)[0]
            heard.append(self.listen(wave, rate))
        return heard


def whisper(directory: str | Path, *, beam: int = 1) -> Listening:
    """faster-whisper from a directory of its model. Errors: ConfigError (not installed, no such directory)."""
    if not Path(directory).is_dir():
        raise ConfigError(f"{directory}: no such directory, expected a model of faster-whisper; check the path")  # fmt: skip
    try:
        from faster_whisper import WhisperModel  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError("faster-whisper is not installed, expected it for a judge that listens; pip install 'thinktalk[judges]'") from None  # fmt: skip
    import soxr

    model = WhisperModel(str(directory), device="cpu", compute_type="int8")

    def listen(wave: np.ndarray, rate: int) -> Heard:
        pcm = soxr.resample(wave, rate, 16_000).astype(np.float32)
        segments, _ = model.transcribe(pcm, language="en", beam_size=beam, word_timestamps=True)
        words = [word for segment in segments for word in segment.words or ()]
        return Heard([Word(word.word.strip(), word.start, word.end) for word in words])

    return listen


def judge_of(name: str, *, codes_per_second: float, speaker: Callable[[], tuple[OmniModel, Voice]] | None = None) -> Judge:  # fmt: skip
    """The judge of a name, "reader:RUN" or "whisper:DIR"; `speaker` gives what makes waves, asked only if it is needed.

    Errors: ConfigError (another name), WeightsError (the run has no reader).
    """
    kind, _, place = name.partition(":")
    if kind == "reader" and place:
        return Reads(CodeReader.load(place), codes_per_second=codes_per_second)
    if kind == "whisper" and place and speaker is not None:
        return Listens(*speaker(), whisper(place))
    raise ConfigError(f"judge {name!r} is unknown; expected reader:RUN (a run of c1_tokenizer) or whisper:DIR (a model of faster-whisper)")  # fmt: skip
