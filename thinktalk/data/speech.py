"""Speech: a spoken sample -> Spoken: wave, what is said as numbers, and the phone of every frame.

    text, phones --Symbols--> labels for CTC, 1 and up
    durations (25 ms) --frame_labels--> one phone a frame at any rate: 50 a second for encoders, 100 for mels
    wave --augment--> speed, a room, noise, gain: labels move with the speed, and with nothing else

Letters: S samples, N labels, F frames.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor

from thinktalk.data.examples import IGNORED
from thinktalk.data.samples import Sample
from thinktalk.errors import InputError

__all__ = [
    "LETTERS",
    "PHONES",
    "Augmentation",
    "Decoded",
    "Spoken",
    "Symbols",
    "augment",
    "frame_labels",
    "spoken",
    "stress_labels",
]

STRESS = "ˈˌ"
"""Marks that belong to the phone after them."""
VOWELS = "AIOQWYaeiouæɐɑɒɔəɛɜɪʊʌᵊᵻ"
"""Of Kokoro's alphabet: what a stress mark is about."""
SILENCE = 0
"""The class of frames in which nobody speaks: before, after, between words, at punctuation."""
BLANK = 0
"""CTC's blank: labels begin at 1."""


@dataclass(frozen=True, slots=True)
class Symbols:
    """An alphabet: letters or phones to numbers 1, 2, ...; 0 is the blank of CTC and the silence of frames.

    >>> LETTERS.numbers("It's!"), LETTERS.text([9 + 2, 20 + 2])
    ([11, 22, 2, 21], 'it')
    """

    symbols: tuple[str, ...]

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Symbols:
        """The phones of some records, in the order of their code points; stress and punctuation are none."""
        found = {p for record in records for p in record.get("phones", ()) if _is_phone(p)}
        return cls(tuple(sorted(found)))

    def __len__(self) -> int:
        return len(self.symbols)

    def numbers(self, said: Iterable[str]) -> list[int]:
        """Labels of a text or of phones; case, accents and what is not in the alphabet are left out."""
        known = {s: n for n, s in enumerate(self.symbols, 1)}
        plain = said if not isinstance(said, str) or self != LETTERS else _plain(said)
        return [known[s] for s in plain if s in known]

    def text(self, numbers: Iterable[int]) -> str:
        """What labels stand for; blanks are nothing."""
        return "".join(self.symbols[n - 1] for n in numbers if n != BLANK)


LETTERS = Symbols(tuple(" 'abcdefghijklmnopqrstuvwxyz0123456789"))
"""What English is written with."""
PHONES = Symbols(tuple("AIOQSTWYabdfhijklmnopstuvwxzæðŋɐɑɒɔəɛɜɡɪɹɾʃʉʊʌʍʒʔʤʧːθᵊᵻ"))
"""What English is spoken with, in Kokoro's alphabet."""


def _plain(text: str) -> str:
    """Lower case without accents, anything that is no letter, digit or apostrophe a space, single spaces."""
    folded = unicodedata.normalize("NFKD", text.casefold().replace("\u2019", "'"))
    kept = (c for c in folded if not unicodedata.combining(c))
    return " ".join("".join(c if c.isalnum() or c == "'" else " " for c in kept).split())


def _is_phone(symbol: str) -> bool:
    return symbol not in STRESS and unicodedata.category(symbol[:1] or " ")[0] not in "PZSC"


def frame_labels(
    sample: Sample, symbols: Symbols, *, frames: int, rate: float, speed: float = 1.0
) -> Tensor:
    """The phone (F,) int64 at the middle of each of `frames` frames, `rate` a second; IGNORED where none is known.

    A stress mark's time is the next phone's; a phone that is not in `symbols` is IGNORED. `speed` is that of the sound
    against the labels.
    """
    known = {s: n for n, s in enumerate(symbols.symbols, 1)}
    numbers = [known.get(p, IGNORED) if _is_phone(p) else SILENCE for p in sample.phones]
    return _in_frames(sample, numbers, frames=frames, rate=rate, speed=speed)


def stress_labels(sample: Sample, *, frames: int, rate: float) -> Tensor:
    """The stress (F,) int64 of the phone that is said in each frame: 0 none, 1 the first of STRESS, 2 the second.

    A mark counts up to the next vowel, as espeak-ng writes it. IGNORED where no phone is known.
    """
    numbers, mark = [], 0
    for phone in sample.phones:
        if phone in STRESS:
            mark = 1 + STRESS.index(phone)
        numbers.append(mark if _is_phone(phone) else 0)
        if phone in VOWELS:
            mark = 0
    return _in_frames(sample, numbers, frames=frames, rate=rate)


def _in_frames(
    sample: Sample, numbers: Sequence[int], *, frames: int, rate: float, speed: float = 1.0
) -> Tensor:
    """A number for each of the sample's phones -> that of each frame (F,), 0 in silence before and after."""
    if not len(sample.durations):
        return torch.full((frames,), IGNORED)
    spread = [SILENCE, *numbers, SILENCE]
    for n in range(len(spread) - 2, 0, -1):  # from the end, so that two marks in a row both move
        if sample.phones[n - 1] in STRESS:
            spread[n] = spread[n + 1]
    ends = np.cumsum(sample.durations) * sample.frame_seconds / speed
    middles = (np.arange(frames) + 0.5) / rate
    which = np.searchsorted(ends, middles, side="right")
    inside = which < len(spread)
    labels = np.where(inside, np.asarray(spread)[np.minimum(which, len(spread) - 1)], IGNORED)
    return torch.from_numpy(labels)


# -------------------------------------------------------------------------------------------------------- augmentation


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """What may happen to a recording; each is drawn from the sample's own generator."""

    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    """Faster and higher, or slower and lower."""
    room: float = 0.3
    """How often there is a room."""
    reverberation_s: tuple[float, float] = (0.05, 0.3)
    """Time in which a room's sound falls by 60 dB."""
    noise: float = 0.6
    """How often there is noise."""
    snr_db: tuple[float, float] = (5.0, 30.0)
    """Speech over noise."""
    microphone: float = 0.3
    """How often a microphone and a line colour it: up to 10 dB more or less an octave, and perhaps nothing above 3.4 to 8 kHz."""
    gain_db: tuple[float, float] = (-12.0, 3.0)


def augment(
    pcm: np.ndarray, sample_rate: int, generator: torch.Generator, config: Augmentation
) -> tuple[np.ndarray, float]:
    """The recording (S,) as it might have been elsewhere, float32 within -1..1, and its speed.

    The direct sound stays where it is: frame labels hold, once the speed is reckoned with.
    """

    def draw(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    speed = config.speeds[int(torch.randint(len(config.speeds), (), generator=generator))]
    out = soxr.resample(pcm, speed * sample_rate, sample_rate) if speed != 1 else pcm
    out = np.asarray(out, np.float64)
    seed = int(torch.randint(1 << 62, (), generator=generator))
    random = np.random.default_rng(seed)
    if draw() < config.room:
        fall = draw(*config.reverberation_s)
        steps = np.arange(1, int(fall * sample_rate))
        tail = random.standard_normal(len(steps)) * 10 ** (-3 * steps / (fall * sample_rate))
        # a room as loud as a quarter to the whole of the direct sound
        tail *= draw(0.25, 1.0) / max(np.sqrt((tail**2).sum()), 1e-9)
        out = _convolve(out, np.concatenate([[1.0], tail]))
    if draw() < config.noise:
        out = out + _noise(out, draw(*config.snr_db), draw(0.0, 1.0), random)
    if draw() < config.microphone:
        out = _coloured(out, sample_rate, random)
    out = out * 10 ** (draw(*config.gain_db) / 20)
    return (out / max(1.0, float(np.abs(out).max(initial=0.0)))).astype(np.float32), speed


def _convolve(pcm: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Causal convolution, cut to the length of `pcm`."""
    size = 1 << (len(pcm) + len(response) - 1).bit_length()
    spectrum = np.fft.rfft(pcm, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[: len(pcm)]


def _coloured(pcm: np.ndarray, sample_rate: int, random: np.random.Generator) -> np.ndarray:
    """`pcm` (S,) through a microphone: a gain for each octave from 62.5 Hz, a line between them; half of the lines are narrow."""
    octaves = np.arange(int(np.log2(sample_rate / 2 / 62.5)) + 1)
    gains_db = np.clip(random.normal(0.0, 4.0, len(octaves)), -10.0, 10.0)
    hertz = np.fft.rfftfreq(len(pcm), 1 / sample_rate)
    at = np.log2(np.maximum(hertz, 1.0) / 62.5)
    gain = 10 ** (np.interp(at, octaves, gains_db) / 20)
    if random.random() < 0.5:
        edge = random.uniform(3400.0, 8000.0)
        gain = gain / np.sqrt(1 + (hertz / edge) ** 16)  # Butterworth, eighth order
    return np.fft.irfft(np.fft.rfft(pcm) * gain, len(pcm))


def _noise(
    pcm: np.ndarray, snr_db: float, colour: float, random: np.random.Generator
) -> np.ndarray:
    """Noise (S,) whose power falls as 1 / f ** (2 colour): 0 is white, 0.5 pink, 1 brown."""
    spectrum = np.fft.rfft(random.standard_normal(len(pcm)))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** colour
    spectrum[0] = 0  # no offset
    noise = np.fft.irfft(spectrum, len(pcm))
    level = np.sqrt((pcm**2).mean()) / 10 ** (snr_db / 20)
    return noise * level / max(np.sqrt((noise**2).mean()), 1e-12)


# -------------------------------------------------------------------------------------------------------------- spoken


class Decoded:
    """Decoded recordings, of which the first `room_mb` stay in memory: decoding Opus is two thirds of the work of a batch.

    Nothing is thrown out. Epochs come in other orders, so that any choice is hit as often, and the latest ones would be thrown
    out just before they come again. Every process that reads has its own.
    """

    def __init__(self, room_mb: int):
        self._room = room_mb << 20
        self._kept: dict[tuple[str, int], np.ndarray] = {}

    def __call__(self, sample: Sample, sample_rate: int) -> np.ndarray:
        """`Sample.pcm`, remembered; not to be written to."""
        key = (sample.where, sample_rate)
        pcm = self._kept.get(key)
        if pcm is None:
            pcm = sample.pcm(sample_rate)
            if pcm.nbytes <= self._room:
                self._room -= pcm.nbytes
                self._kept[key] = pcm
        return pcm


@dataclass
class Spoken:
    """A spoken sample, ready for a stage."""

    pcm: Tensor  # (S,) float32
    labels: Tensor  # (N,) int64, 1 and up: letters or phones
    frames: Tensor  # (F,) int64 phone of each frame, SILENCE, or IGNORED
    voice: str
    codes: Tensor | None  # (n,) int64, where the sample has them and its speed is its own
    name: str
    text: str = ""
    """As it is written, capitals and all."""


def spoken(
    sample: Sample,
    generator: torch.Generator,
    *,
    sample_rate: int,
    symbols: Symbols,
    letters: bool = False,
    frame_rate: float = 50.0,
    augmentation: Augmentation | None = None,
    decode: Callable[[Sample, int], np.ndarray] = Sample.pcm,
) -> Spoken:
    """What a stage learns from a spoken sample: `Loader`'s make, once its options are bound.

    `letters`: labels are of the text, otherwise of the phones. Errors: InputError (no sound, nothing said).
    """
    pcm, speed = decode(sample, sample_rate), 1.0
    if augmentation is not None:
        pcm, speed = augment(pcm, sample_rate, generator, augmentation)
    said: Sequence[str] = sample.text if letters else sample.phones
    labels = (LETTERS if letters else symbols).numbers(said)
    if not labels:
        raise InputError(f"{sample.where}: has no {'text' if letters else 'phones'}, expected what is said; use another source")  # fmt: skip
    frames = int(len(pcm) / sample_rate * frame_rate)
    codes = sample.codes if speed == 1.0 else None
    return Spoken(
        pcm=torch.from_numpy(pcm),
        labels=torch.tensor(labels),
        frames=frame_labels(sample, symbols, frames=frames, rate=frame_rate, speed=speed),
        voice=sample.voice or "",
        codes=None if codes is None else torch.from_numpy(codes),
        name=sample.where,
        text=sample.text,
    )
