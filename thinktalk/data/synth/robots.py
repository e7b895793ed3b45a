"""Robots: a text -> speech of espeak-ng or flite, many times faster than natural voices and good for variety.

    Espeak().say(text, voice) -> Said with the frames of every phone, one character a phone, in Kokoro's alphabet
    Flite().say(text, voice)  -> the same, of flite

espeak-ng comes by pip (the extra `synth`); flite is used where the system has its libraries.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np
import soxr

from thinktalk.data.synth import espeak, flite
from thinktalk.data.synth.kokoro import SAMPLE_RATE, as_phones
from thinktalk.data.synth.voices import Said, Voice

__all__ = ["Espeak", "Flite", "frames_of"]

FRAME_SECONDS = 0.0125
FRAME_SAMPLES = round(FRAME_SECONDS * SAMPLE_RATE)
WORDS_A_MINUTE = 165
"""At speed 1: what Kokoro's voices speak."""
TIES = {"aɪ": "a^ɪ", "aʊ": "a^ʊ", "dʒ": "d^ʒ", "eɪ": "e^ɪ", "tʃ": "t^ʃ", "ɔɪ": "ɔ^ɪ", "əl": "ə^l", "oʊ": "o^ʊ", "əʊ": "ə^ʊ", "eə": "e^ə"}  # fmt: skip
"""Phones of several letters, which the library writes without ties when it speaks."""
STRESS = "ˈˌ"


class Espeak:
    """espeak-ng, in this process."""

    def say(self, text: str, voice: Voice, *, speed: float = 1.0) -> Said:
        """The text by a voice with its pitch. Errors: InputError (no espeak-ng, nothing to say)."""
        recipe = voice.recipe
        said = espeak.speak(
            text,
            recipe["voice"],
            words_a_minute=round(WORDS_A_MINUTE * speed),
            pitch=recipe["pitch"],
            spread=recipe["spread"],
        )
        marks = ((sample / said.sample_rate, phone) for sample, phone in said.marks)
        return _said(said.pcm, said.sample_rate, marks, british=voice.british)


def frames_of(
    marks: list[tuple[float, str]], frames: int, *, british: bool
) -> tuple[str, tuple[int, ...]]:
    """Marks (second, IPA) to phones of one character each and durations: silence before, one a phone, silence after.

    A phone of several characters shares its time among them, stress marks take none; between words is a space, as long as
    their pause.

    >>> frames_of([(0.0, "ˈaɪ"), (0.1, "")], 12, british=False)
    ('ˈI', (0, 0, 8, 4))
    """
    if not marks:
        return "", (frames, 0)
    said: list[tuple[float, str]] = []  # when each character begins
    ends = [at for at, _ in marks[1:]] + [frames * FRAME_SECONDS]
    for (at, ipa), end in zip(marks, ends, strict=True):
        characters = _characters(ipa, british=british) or " "
        timed = max(1, sum(c not in STRESS for c in characters))
        taken = 0
        for character in characters:
            if character != " " or (said and said[-1][1] != " "):
                said.append((at + (end - at) * taken / timed, character))
            taken += character not in STRESS
    end = said.pop()[0] if said and said[-1][1] == " " else frames * FRAME_SECONDS
    bounds = [0, *(min(frames, round(at / FRAME_SECONDS)) for at in [*(at for at, _ in said), end]), frames]  # fmt: skip
    return "".join(c for _, c in said), tuple(int(d) for d in np.diff(bounds))


def _characters(ipa: str, *, british: bool) -> str:
    """A phone as the library names it, in Kokoro's alphabet, marks above and below letters left out."""
    for letters, tied in TIES.items():
        ipa = ipa.replace(letters, tied)
    return "".join(c for c in as_phones(ipa, british=british) if not unicodedata.combining(c))


class Flite:
    """flite, in this process; its voices are American, but for awb, a Scot who says American phones."""

    def say(self, text: str, voice: Voice, *, speed: float = 1.0) -> Said:
        """The text by one of its voices. Errors: InputError (no flite, nothing to say)."""
        said = flite.speak(text, voice.recipe["voice"], stretch=1 / speed)
        return _said(said.pcm, said.sample_rate, said.marks, british=voice.british)


def _said(pcm: np.ndarray, rate: int, marks: Iterable[tuple[float, str]], *, british: bool) -> Said:
    """At the rate of all speech, in whole frames; marks are (second, IPA)."""
    pcm = soxr.resample(pcm, rate, SAMPLE_RATE).astype(np.float32)
    frames = -(-len(pcm) // FRAME_SAMPLES)
    pcm = np.pad(pcm, (0, frames * FRAME_SAMPLES - len(pcm)))
    phones, durations = frames_of(list(marks), frames, british=british)
    return Said(np.clip(pcm, -1, 1), SAMPLE_RATE, phones, durations, FRAME_SECONDS)
