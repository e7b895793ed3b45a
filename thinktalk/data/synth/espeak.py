"""espeak-ng: a text -> its phones in IPA, and speech with the place of every phone, by the library itself.

    ipa("Hello.", "en-us")                          -> "həl^ˈo^ʊ"     ^ ties the letters of one phone
    speak("Hello.", "en-us+f2", words_a_minute=160) -> Speech: pcm (S,), 22.05 kHz, and (sample, phone) marks

The library comes with the extra `synth` (a wheel with library and data), or from the system. It has one voice and one set
of options a process; each call sets what it needs. What it says depends on all that it said before (phases, noise), so
`speak` begins with a library that was just loaded: 4 ms, and the same text gives the same samples.
"""

from __future__ import annotations

import _ctypes
import ctypes
import ctypes.util
import functools
import importlib.util
from dataclasses import dataclass

import numpy as np

from thinktalk.errors import InputError

__all__ = ["TIE", "Speech", "ipa", "speak"]

TIE = "^"
SYNCHRONOUS, PHONE_EVENTS, PHONE_IPA, DONT_EXIT = 2, 0x1, 0x2, 0x8000  # speak_lib.h
UTF8, END_PAUSE = 1, 0x1000
RATE, PITCH, SPREAD = 1, 3, 4  # espeak_PARAMETER
WORD_EVENT, PHONE_EVENT = 1, 7


@dataclass(frozen=True, slots=True)
class Speech:
    """What was said, and when."""

    pcm: np.ndarray  # (S,) float32
    sample_rate: int
    marks: tuple[tuple[int, str], ...]
    """Where each phone begins, in samples, and its IPA; a pause is an empty one, the beginning of a word a space."""


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("phone", ctypes.c_char * 8),
    ]  # fmt: skip


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))  # fmt: skip


class _Library:
    """The loaded library; `heard` is what its callback collects."""

    def __init__(self) -> None:
        path, data = _where()
        try:
            self.lib = ctypes.CDLL(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be loaded ({str(error)[:100]}), expected espeak-ng; install thinktalk[synth]") from None  # fmt: skip
        self.lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        options = PHONE_EVENTS | PHONE_IPA | DONT_EXIT
        self.sample_rate = self.lib.espeak_Initialize(
            SYNCHRONOUS, 0, data and data.encode(), options
        )
        if self.sample_rate <= 0:
            raise InputError(f"{data or path}: espeak-ng does not start, expected its data there; install thinktalk[synth] in a folder with a shorter path")  # fmt: skip
        if hasattr(self.lib, "espeak_ng_SetRandSeed"):  # since 1.52; it begins with the clock
            self.lib.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self.heard: list[np.ndarray] = []
        self.marks: list[tuple[int, str]] = []
        self._callback = _CALLBACK(self._collect)  # held: ctypes does not
        self.lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, wave, count: int, events) -> int:
        """Called with each piece of sound and what begins in it."""
        if wave and count:
            self.heard.append(np.ctypeslib.as_array(wave, (count,)).astype(np.float32) / 32768)
        number = 0
        while events[number].type:  # a list that ends with type 0
            if events[number].type == WORD_EVENT:
                self.marks.append((events[number].sample, " "))
            elif events[number].type == PHONE_EVENT:
                # eight bytes: a letter cut in two at their end is left out
                phone = events[number].phone.decode("utf-8", "ignore")
                self.marks.append((events[number].sample, phone))
            number += 1
        return 0

    def close(self) -> None:
        """Unload it, and with it all that it remembers; where that cannot be done it goes on as it is."""
        self.lib.espeak_Terminate()
        if hasattr(_ctypes, "dlclose"):
            _ctypes.dlclose(self.lib._handle)

    def voice(self, name: str) -> None:
        if self.lib.espeak_SetVoiceByName(name.encode()) != 0:
            raise InputError(f"voice {name!r}: is none of espeak-ng's, expected a language and perhaps a variant, such as en-us+f2; see: espeak-ng --voices=en")  # fmt: skip


def _where() -> tuple[str, str | None]:
    """Library and data: of the wheel, or of the system."""
    if importlib.util.find_spec("espeakng_loader") is not None:
        import espeakng_loader

        return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    found = ctypes.util.find_library("espeak-ng")
    if found is None:
        raise InputError("espeak-ng: is not installed, expected its library for phones and speech; install thinktalk[synth]")  # fmt: skip
    return found, None


@functools.cache
def _library() -> _Library:
    return _Library()


def ipa(text: str, voice: str = "en-us") -> str:
    """The phones of a text, words apart by spaces, stress marked, the letters of one phone tied by TIE.

    Punctuation is not kept. Errors: InputError (no espeak-ng, no such voice).
    """
    library = _library()
    library.voice(voice)
    place = ctypes.c_char_p(text.encode())
    mode = ord(TIE) << 8 | 0x80 | 0x02  # tie, IPA
    clauses = []
    while place.value is not None:  # a clause a call; NULL after the last one
        clause = library.lib.espeak_TextToPhonemes(ctypes.byref(place), UTF8, mode)
        clauses.append(clause.decode().strip())
    return " ".join(" ".join(clauses).split())


def speak(
    text: str, voice: str = "en-us", *, words_a_minute: int = 175, pitch: int = 50, spread: int = 50
) -> Speech:
    """The text spoken; `pitch` and `spread` (how far it moves) are 0 to 99. Errors: InputError as for `ipa`."""
    _library().close()
    _library.cache_clear()
    library = _library()
    library.voice(voice)
    for parameter, value in ((RATE, words_a_minute), (PITCH, pitch), (SPREAD, spread)):
        library.lib.espeak_SetParameter(parameter, value, 0)
    said = text.encode()
    failed = library.lib.espeak_Synth(said, len(said) + 1, 0, 1, 0, UTF8 | END_PAUSE, None, None)
    if failed or not library.heard or not any(phone.strip() for _, phone in library.marks):
        raise InputError(f"{text[:60]!r}: espeak-ng says nothing of it (status {failed}), expected words; pass it by")  # fmt: skip
    return Speech(np.concatenate(library.heard), library.sample_rate, tuple(library.marks))
