"""Speech from shards to the batches of the codec's stages: Sample -> Spoken -> Speech (c1), Utterances (c2), Recordings (c3).

What a batch is depends on the stage alone; which samples are in it, on the plan (data/plan.py). Augmented sound is for
hearing only: what shall be spoken is learnt from recordings as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from thinktalk.config import SpeechMelConfig
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Mixture, Source
from thinktalk.data.plan import Buckets, Plan
from thinktalk.data.samples import Sample, read_record
from thinktalk.data.speech import LETTERS, Augmentation, Spoken, Symbols, spoken
from thinktalk.errors import InputError
from thinktalk.layers.mel import log_mel, speech_mel
from thinktalk.training.c1_tokenizer import Speech
from thinktalk.training.c2_flow import Utterances
from thinktalk.training.c3_vocoder import Recordings
from thinktalk.training.parallel import World

__all__ = ["HEARD_HZ", "Alphabet", "load", "recordings", "speech", "utterances"]

HEARD_HZ = 16_000


class Alphabet:
    """The letters, phones and voices of some shards, as numbers; 0 is the blank, silence, and a voice that is not known."""

    def __init__(self, source: Source):
        records = [read_record(entry) for entry in source.entries]
        self.letters = LETTERS
        self.phones = Symbols.of(records)
        names = sorted({record["voice"] for record in records if record.get("voice")})
        self.voices = {name: number for number, name in enumerate(names, 1)}


def load(
    source: Source,
    make: Callable[[Sample, torch.Generator], Any],
    collate: Callable[[list[Any]], Any],
    *,
    batch_seconds: float,
    seed: int,
    world: World,
    workers: int = 0,
) -> Loader:
    """This rank's batches of about `batch_seconds` of sound, alike in length."""
    buckets = Buckets(batch_seconds, edges=(2.0, 4.0, 6.0, 9.0, 13.0))
    plan = Plan(Mixture([source], seed=seed), buckets)
    return Loader(plan, make, collate, rank=world.rank, world=world.size, workers=workers)


# ------------------------------------------------------------------------------------------------------------- batches


def speech(
    source: Source, alphabet: Alphabet, *, augmentation: Augmentation | None = None, **options: Any
) -> Loader:
    """Batches of c1: what is said in letters, and the phone of every frame."""
    make = partial(
        spoken, sample_rate=HEARD_HZ, symbols=alphabet.phones, letters=True, augmentation=augmentation
    )  # fmt: skip
    return load(source, make, partial(_speech, voices=alphabet.voices), **options)


def utterances(source: Source, mel: SpeechMelConfig, *, repeats: int, **options: Any) -> Loader:
    """Batches of c2: codes and the mel that they stand for. The samples must have codes."""
    return load(source, partial(_coded, mel=mel, repeats=repeats), _utterances, **options)


def recordings(source: Source, sample_rate: int, **options: Any) -> Loader:
    """Batches of c3: sound at the vocoder's rate."""
    return load(source, partial(_sound, sample_rate=sample_rate), Recordings, **options)


def _speech(items: Sequence[Spoken], *, voices: Mapping[str, int]) -> Speech:
    return Speech(
        mels=[log_mel(item.pcm[None])[0] for item in items],
        labels=pad_sequence([item.labels for item in items], batch_first=True),
        label_lengths=torch.tensor([len(item.labels) for item in items]),
        phones=[item.frames for item in items],
        speakers=torch.tensor([voices.get(item.voice, 0) for item in items]),
    )


def _coded(
    sample: Sample, generator: torch.Generator, *, mel: SpeechMelConfig, repeats: int
) -> tuple[Tensor, Tensor]:
    """Codes (n,) and mel (M, repeats n) of as much as both tell."""
    if sample.codes is None:
        raise InputError(f"{sample.where}: has no codes, expected those of its speech; make them with the tokenizer first")  # fmt: skip
    frames = speech_mel(torch.from_numpy(sample.pcm(mel.sample_rate))[None], mel)[0]
    n = min(len(sample.codes), frames.shape[1] // repeats)
    if n == 0:
        raise InputError(f"{sample.where}: is shorter than a code; use another source")
    return torch.from_numpy(sample.codes[:n]).long(), frames[:, : n * repeats]


def _utterances(items: Sequence[tuple[Tensor, Tensor]]) -> Utterances:
    return Utterances(codes=[codes for codes, _ in items], mels=[mel for _, mel in items])


def _sound(sample: Sample, generator: torch.Generator, *, sample_rate: int) -> Tensor:
    return torch.from_numpy(sample.pcm(sample_rate))
