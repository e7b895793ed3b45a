"""Speech from shards to the batches of the codec's stages: Sample -> Spoken -> Speech (c1), Utterances (c2), Recordings (c3).

What a batch is depends on the stage alone; which samples are in it, on the plan (data/plan.py). Augmented sound is for
hearing only: what shall be spoken is learnt from recordings as they are.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from thinktalk.config import SpeechMelConfig
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Mixture, Source
from thinktalk.data.plan import Buckets, Plan
from thinktalk.data.samples import Sample, parse, read_record
from thinktalk.data.shards import Entry
from thinktalk.data.speech import LETTERS, Augmentation, Decoded, Spoken, Symbols, spoken
from thinktalk.errors import InputError
from thinktalk.layers.mel import log_mel, speech_mel
from thinktalk.training.c1_inverse import Inverse
from thinktalk.training.c1_tokenizer import Speech
from thinktalk.training.c2_flow import Utterances
from thinktalk.training.c3_vocoder import Recordings
from thinktalk.training.parallel import World
from thinktalk.weights.files import read_json
from thinktalk.weights.store import atomic_write

__all__ = ["HEARD_HZ", "Alphabet", "Mels", "both", "load", "recordings", "speech", "utterances"]

Sources = Source | Sequence[Source]

HEARD_HZ = 16_000


class Alphabet:
    """The letters, phones and voices of some shards, as numbers; 0 is the blank, silence, and a voice that is not known.

    A run keeps the one it began with in `run`/alphabet.json: its heads are as large as that, whatever shards came since.
    """

    def __init__(self, sources: Sources, run: str | Path | None = None):
        self.letters = LETTERS
        path = None if run is None else Path(run) / "alphabet.json"
        if path is not None and path.exists():
            kept = read_json(path)
            phones, names = kept["phones"], kept["voices"]
        else:
            records = [read_record(entry) for source in _all(sources) for entry in source.entries]
            phones = Symbols.of(records).symbols
            names = sorted({record["voice"] for record in records if record.get("voice")})
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                kept = {"phones": list(phones), "voices": names}
                atomic_write(path, json.dumps(kept, ensure_ascii=False).encode())
        self.phones = Symbols(tuple(phones))
        self.voices = {name: number for number, name in enumerate(names, 1)}


class Mels:
    """The mels of some speech, by recording, and who else was recorded with the same voice.

    Up to `remember_mib` of them stay in memory, the latest ones: decoding is a third of the work of a small model's step,
    and voices come again and again.
    """

    def __init__(self, sources: Sources, mel: SpeechMelConfig, *, remember_mib: int = 1024):
        self.mel, self.room = mel, remember_mib << 20
        self.of_voice: dict[str, list[Entry]] = {}
        for source in _all(sources):
            for entry in source.entries:
                voice = read_record(entry).get("voice")
                if voice:
                    self.of_voice.setdefault(voice, []).append(entry)
        self._kept: dict[str, Tensor] = {}

    def of(self, recording: Sample | Entry) -> Tensor:
        """Mel (M, T) of a recording."""
        mel = self._kept.pop(recording.where, None)
        if mel is None:
            sample = parse(recording) if isinstance(recording, Entry) else recording
            mel = speech_mel(torch.from_numpy(sample.pcm(self.mel.sample_rate))[None], self.mel)[0]
            self.room -= mel.nbytes
            while self.room < 0 and self._kept:
                self.room += self._kept.pop(next(iter(self._kept))).nbytes
        self._kept[recording.where] = mel  # the latest last
        return mel

    def of_another(self, sample: Sample, generator: torch.Generator) -> Tensor:
        """Mel (M, T) of another recording of the same voice; of this one where there is no other."""
        same = self.of_voice.get(sample.voice or "", [])
        others = len(same) - 1
        if others < 1:
            return self.of(sample)
        number = int(torch.randint(others, (), generator=generator))
        # the last one stands in for this one
        return self.of(same[number] if same[number].where != sample.where else same[others])

    def mean(self, *, most: int = 64) -> Tensor:
        """Mean mel (M,) of some recordings of all voices in turn."""
        turns = zip(*(itertools.islice(itertools.cycle(same), most) for same in self.of_voice.values()), strict=True)  # fmt: skip
        some = list(dict.fromkeys(itertools.islice(itertools.chain.from_iterable(turns), most)))
        return torch.cat([self.of(entry) for entry in some], 1).mean(1)

    def typical(self, voice: str, frames: int) -> Tensor:
        """Mel (M, T) of the recording of a voice that lasts most nearly `frames`, and no more of it than that."""
        wanted = frames / float(self.mel.frames_per_second)
        same = self.of_voice[voice]
        gaps = [abs(read_record(entry).get("seconds", 0.0) - wanted) for entry in same]
        return self.of(same[gaps.index(min(gaps))])[:, :frames]


def load(
    sources: Sources,
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
    plan = Plan(Mixture(_all(sources), seed=seed), buckets)
    return Loader(plan, make, collate, rank=world.rank, world=world.size, workers=workers)


def _all(sources: Sources) -> list[Source]:
    return [sources] if isinstance(sources, Source) else list(sources)


# ------------------------------------------------------------------------------------------------------------- batches


def speech(
    sources: Sources,
    alphabet: Alphabet,
    *,
    augmentation: Augmentation | None = None,
    cache_mb: int = 0,
    **options: Any,
) -> Loader:
    """Batches of c1: what is said in letters, and the phone of every frame. `cache_mb` of decoded sound stay in memory."""
    make = partial(
        spoken, sample_rate=HEARD_HZ, symbols=alphabet.phones, letters=True, augmentation=augmentation,
        decode=Decoded(cache_mb),
    )  # fmt: skip
    return load(sources, make, partial(_speech, voices=alphabet.voices), **options)


def utterances(
    sources: Sources, mels: Mels, *, repeats: int, codes_by: str | None = None, **options: Any
) -> Loader:
    """Batches of c2: codes, the mel that they stand for, and who speaks, shown by another recording of the same voice.

    The samples must have codes, made by the tokenizer `codes_by` (data/coding.py) where that is given.
    """
    make = partial(_coded, mels=mels, repeats=repeats, codes_by=codes_by)
    return load(sources, make, _utterances, **options)


def both(sources: Sources, alphabet: Alphabet, mels: Mels, **options: Any) -> Loader:
    """Batches of c1_inverse: speech as it is heard and as it shall be spoken, its codes where they are known."""
    make = partial(_heard_and_spoken, symbols=alphabet.phones, mels=mels)
    return load(sources, make, partial(_inverse, voices=alphabet.voices), **options)


def recordings(sources: Sources, sample_rate: int, **options: Any) -> Loader:
    """Batches of c3: sound at the vocoder's rate."""
    return load(sources, partial(_sound, sample_rate=sample_rate), Recordings, **options)


def _speech(items: Sequence[Spoken], *, voices: Mapping[str, int]) -> Speech:
    return Speech(
        mels=[log_mel(item.pcm[None])[0] for item in items],
        labels=pad_sequence([item.labels for item in items], batch_first=True),
        label_lengths=torch.tensor([len(item.labels) for item in items]),
        phones=[item.frames for item in items],
        speakers=torch.tensor([voices.get(item.voice, 0) for item in items]),
        texts=[item.text for item in items],
    )


def _coded(
    sample: Sample, generator: torch.Generator, *, mels: Mels, repeats: int, codes_by: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (n,) and mel (M, repeats n) of as much as both tell, and a mel (M, T) of who speaks."""
    if sample.codes is None:
        raise InputError(f"{sample.where}: has no codes, expected those of its speech; make them with: thinktalk data codes")  # fmt: skip
    told = sample.record.get("codes_by")
    if codes_by is not None and told is not None and told != codes_by:
        raise InputError(f"{sample.where}: has codes of the tokenizer {told}, expected {codes_by}; make them anew with: thinktalk data codes")  # fmt: skip
    mel = mels.of(sample)
    n = min(len(sample.codes), mel.shape[1] // repeats)
    if n == 0:
        raise InputError(f"{sample.where}: is shorter than a code; use another source")
    codes = torch.from_numpy(sample.codes[:n]).long()
    return codes, mel[:, : n * repeats], mels.of_another(sample, generator)


def _utterances(items: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Utterances:
    codes, mels, references = zip(*items, strict=True)
    return Utterances(codes=codes, mels=mels, references=references)


def _heard_and_spoken(
    sample: Sample, generator: torch.Generator, *, symbols: Symbols, mels: Mels
) -> tuple[Spoken, Tensor, Tensor]:
    """What is said, its mel (M, T), and that of another recording of the voice."""
    said = spoken(sample, generator, sample_rate=HEARD_HZ, symbols=symbols, letters=True)
    return said, mels.of(sample), mels.of_another(sample, generator)


def _inverse(
    items: Sequence[tuple[Spoken, Tensor, Tensor]], *, voices: Mapping[str, int]
) -> Inverse:
    said, mels, references = zip(*items, strict=True)
    codes = [item.codes for item in said]
    known = all(c is not None for c in codes)
    return Inverse(heard=_speech(said, voices=voices), mels=mels, references=references, codes=codes if known else None)  # fmt: skip


def _sound(sample: Sample, generator: torch.Generator, *, sample_rate: int) -> Tensor:
    return torch.from_numpy(sample.pcm(sample_rate))
