"""flite: a text -> speech with the place of every phone, by the library itself.

    speak("Hello.", "slt") -> Speech: pcm (S,), 16 kHz, and (second, IPA) marks; a space begins a word, "" is a pause

flite is used where the system has its libraries (Debian: libflite1). A word is a token of the text: "dog's" is one.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Callable, Iterator
from ctypes import c_char_p, c_float, c_int, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinktalk.errors import InputError

__all__ = ["VOICES", "Speech", "speak"]

VOICES = {
    "awb": "cmu_us_awb", "kal": "cmu_us_kal", "kal16": "cmu_us_kal16", "rms": "cmu_us_rms", "slt": "cmu_us_slt",
}  # fmt: skip
"""Library of each voice; `register_` and its name is the function that gives the voice."""
IPA = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "axr": "ɚ", "ay": "aɪ", "b": "b", "ch": "tʃ", "d": "d",
    "dh": "ð", "dx": "ɾ", "eh": "ɛ", "el": "əl", "em": "əm", "en": "ən", "er": "ɜːɹ", "ey": "eɪ", "f": "f", "g": "ɡ", "hh": "h",
    "hv": "h", "ih": "ɪ", "iy": "i", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n", "ng": "ŋ", "nx": "n", "ow": "oʊ",
    "oy": "ɔɪ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t", "th": "θ", "uh": "ʊ", "uw": "u", "v": "v", "w": "w",
    "y": "j", "z": "z", "zh": "ʒ",
}  # fmt: skip
"""Of flite's American phones (us_phoneset.c)."""
REDUCED = {"er": "ɚ"}
"""What sounds otherwise without stress."""


@dataclass(frozen=True, slots=True)
class Speech:
    """What was said, and when."""

    pcm: np.ndarray  # (S,) float32
    sample_rate: int
    marks: tuple[tuple[float, str], ...]
    """Where each phone begins, in seconds, and its IPA, stress before a vowel; a pause is an empty one, the beginning of a
    word a space."""


class _Wave(ctypes.Structure):
    """cst_wave of cst_wave.h."""

    _fields_ = [
        ("type", c_char_p), ("sample_rate", c_int), ("num_samples", c_int), ("num_channels", c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]  # fmt: skip


class _VoiceHead(ctypes.Structure):
    """cst_voice of cst_voice.h begins so."""

    _fields_ = [("name", c_char_p), ("features", c_void_p)]


FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "flite_synth_text": (c_void_p, c_char_p, c_void_p),
    "utt_wave": (ctypes.POINTER(_Wave), c_void_p),
    "utt_relation": (c_void_p, c_void_p, c_char_p),
    "relation_head": (c_void_p, c_void_p),
    "item_next": (c_void_p, c_void_p),
    "item_daughter": (c_void_p, c_void_p),
    "item_as": (c_void_p, c_void_p, c_char_p),
    "item_feat_string": (c_char_p, c_void_p, c_char_p),
    "item_feat_float": (c_float, c_void_p, c_char_p),
    "ffeature_float": (c_float, c_void_p, c_char_p),
    "ffeature_string": (c_char_p, c_void_p, c_char_p),
    "feat_set_float": (None, c_void_p, c_char_p, c_float),
    "delete_utterance": (None, c_void_p),
}
"""What is called: the result's type and those of the arguments."""


def _open(name: str) -> ctypes.CDLL:
    path = ctypes.util.find_library(name)
    try:
        if path is None:
            raise OSError
        return ctypes.CDLL(path)
    except OSError:
        raise InputError(f"flite: its library {name} is not installed, expected it for its voices; install it (Debian: libflite1) or take --engine espeak") from None  # fmt: skip


@functools.cache
def _library() -> ctypes.CDLL:
    lib = _open("flite")
    lib.flite_init()
    for name, (result, *arguments) in FUNCTIONS.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


@functools.cache
def _voice(name: str) -> int:
    """The voice, loaded once a process."""
    _library()  # first: the voice's library takes its functions from there
    register = getattr(_open(f"flite_{VOICES[name]}"), f"register_{VOICES[name]}")
    register.restype, register.argtypes = c_void_p, [c_char_p]
    return register(None)


def speak(text: str, voice: str = "slt", *, stretch: float = 1.0) -> Speech:
    """The text spoken, `stretch` times as long. Errors: InputError (no flite, no such voice, nothing to say)."""
    if voice not in VOICES:
        raise InputError(f"voice {voice!r}: is none of flite's, expected one of {', '.join(VOICES)}")  # fmt: skip
    lib, held = _library(), _voice(voice)
    features = _VoiceHead.from_address(held).features
    lib.feat_set_float(features, b"duration_stretch", stretch)
    ctypes.CDLL(None).srand(1)  # breath is made of C's rand(): the same text gives the same samples
    said = lib.flite_synth_text(text.encode(), held)
    if not said:
        raise InputError(f"{text[:60]!r}: flite says nothing of it, expected words; pass it by")
    try:
        wave = lib.utt_wave(said).contents
        pcm = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.float32) / 32768
        marks = tuple(_marks(lib, said))
        rate = wave.sample_rate
    finally:
        lib.delete_utterance(said)
    if not len(pcm) or not any(phone.strip() for _, phone in marks):
        raise InputError(f"{text[:60]!r}: flite says nothing of it, expected words; pass it by")
    return Speech(pcm, rate, marks)


def _marks(lib: ctypes.CDLL, said: int) -> Iterator[tuple[float, str]]:
    """Phones of tokens of the text, and the pauses between."""
    end = 0.0
    tokens = lib.relation_head(lib.utt_relation(said, b"Token"))
    for token in _chain(lib.item_next, tokens):
        begun = False
        for word in _chain(lib.item_next, lib.item_daughter(token)):
            for syllable in _chain(lib.item_next, lib.item_daughter(lib.item_as(word, b"SylStructure"))):  # fmt: skip
                stressed = lib.item_feat_string(syllable, b"stress") == b"1"
                for segment in _chain(lib.item_next, lib.item_daughter(syllable)):
                    start = lib.ffeature_float(segment, b"R:Segment.p.end")
                    if start > end:
                        yield end, ""
                    if not begun:
                        yield start, " "
                        begun = True
                    name = lib.item_feat_string(segment, b"name").decode()
                    vowel = lib.ffeature_string(segment, b"ph_vc") == b"+"
                    ipa = IPA[name] if stressed else REDUCED.get(name, IPA[name])
                    yield start, ("ˈ" if stressed and vowel else "") + ipa
                    end = lib.item_feat_float(segment, b"end")
    yield end, ""


def _chain(step: Callable[[int], int | None], item: int | None) -> Iterator[int]:
    """The item and those that follow it."""
    while item:
        yield item
        item = step(item)
