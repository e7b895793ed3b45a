"""Held-out sets: seeds and pinned packages -> samples that nobody trained with, made once into a folder, the same anywhere.

    held.sentences("dev")    sentences of dev, by voices that were trained with
    held.sentences("test")   sentences of test: half by the six voices kept for it, half by the others
    held.dialogues()         spoken questions of test with their answers
    held.human()             prompts recorded by a person, whom nobody trains with

The split of a sentence or a question is its hash, so these are in no training set, whoever made it, with whatever seed.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinktalk.data.samples import Sample, parse
from thinktalk.data.shards import ShardWriter, scan
from thinktalk.data.synth.packages import Package, fetch, files
from thinktalk.data.synth.speech import SHARD_SAMPLES, SpeechWorld, make_speech
from thinktalk.data.synth.voices import TEST_VOICES
from thinktalk.errors import InputError

__all__ = ["HeldOut", "is_new"]

SEED = 90  # of the makes; what nano learns from has other seeds, not that it matters
TEXTS = ("chitchat", "wordnet")
RECORDINGS = Package("deb", "asterisk-core-sounds-en-g722", "1.6.1-1", "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806")  # fmt: skip
TRANSCRIPTS = Package("deb", "asterisk-core-sounds-en", "1.6.1-1", "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50")  # fmt: skip
"""Allison Smith's prompts of a telephone exchange, CC-BY-SA-3.0, 16 kHz."""
PROMPT_WORDS = range(3, 31)
PROMPT = re.compile(r"([\w/-]+):\s*(\S.*)")


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Where the sets are, and how many of each are wanted."""

    folder: Path
    n: int = 300
    engine: str = "kokoro"
    """Who speaks, as data/synth/voices.py has it."""
    make: bool = True
    """Whether what is missing is made; else there is as much as there is."""
    jobs: int = 1
    cache: str | None = None
    watch: Callable[[str], None] = lambda line: None

    def sentences(self, split: str) -> list[Sample]:
        """Spoken sentences: n of dev; of test so many that n are by held-out voices. Errors: InputError (they cannot be made)."""
        counts = {"dev": self.n, "test": 2 * self.n + self.n // 6}  # every other one, by chance
        texts = TEXTS if self.engine == "kokoro" else ("templates", "questions")
        world = SpeechWorld(engine=self.engine, kind="sentences", texts=texts, blends=0, own_percent=0, seed=SEED, cache=self.cache)  # fmt: skip
        return self._spoken(world, "sentences", split, counts[split])

    def dialogues(self) -> list[Sample]:
        """n spoken questions of test: messages, `asked` in words, "answer.opus". Errors: as `sentences`."""
        world = SpeechWorld(engine=self.engine, kind="dialogues", blends=0, own_percent=0, seed=SEED, cache=self.cache)  # fmt: skip
        return self._spoken(world, "dialogues", "test", self.n)[: self.n]

    def _spoken(self, world: SpeechWorld, name: str, split: str, count: int) -> list[Sample]:
        folder = self.folder / (name if self.engine == "kokoro" else f"{name}-{self.engine}")
        whole = -(-count // SHARD_SAMPLES) * SHARD_SAMPLES  # a shard begun short would stay short
        if self.make:
            make_speech(world, folder, counts={split: whole}, jobs=self.jobs, report=self.watch)
        return self._read(folder, split)

    def human(self) -> list[Sample]:
        """Recorded prompts of 3 to 30 words with what is said in them. Errors: InputError (the packages cannot be had)."""
        folder = self.folder / "human"
        if self.make and not list(folder.glob("test-*.tar")):
            recordings = {Path(name).stem: content for name, content in files(fetch(RECORDINGS, self.cache), "*.g722")}  # fmt: skip
            ((_, packed),) = files(fetch(TRANSCRIPTS, self.cache), "*/core-sounds-en.txt.gz")
            _write_prompts(folder, recordings, gzip.decompress(packed).decode())
        return self._read(folder, "test")

    def _read(self, folder: Path, split: str) -> list[Sample]:
        samples = [parse(entry) for path in sorted(folder.glob(f"{split}-*.tar")) for entry in scan(path).entries]  # fmt: skip
        if not samples:
            raise InputError(f"{folder}: holds no samples of {split}, expected some; make them with: thinktalk eval nano --make-data")  # fmt: skip
        return samples


def is_new(sample: Sample) -> bool:
    """Whether it is spoken by a voice that nobody trains with."""
    return sample.voice in TEST_VOICES


def _write_prompts(folder: Path, recordings: dict[str, bytes], transcripts: str) -> None:
    """One shard, whole or not at all."""
    scratch = folder.with_name(f".{folder.name}.making")
    shutil.rmtree(scratch, ignore_errors=True)
    with ShardWriter(scratch / "test") as writer:
        for name, text in prompts(transcripts):
            content = recordings.get(name)
            if content is None:
                continue
            record = {"text": text, "voice": "allison", "source": "asterisk", "language": "en"}
            writer.write(name, {"json": json.dumps(record).encode(), "wav": as_wav(content)})
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)


def prompts(transcripts: str) -> list[tuple[str, str]]:
    """(name, words) of the prompts that say a phrase; tones, lone words and telephone tunes are none."""
    found: dict[str, str] = {}
    for line in transcripts.splitlines():
        match = PROMPT.fullmatch(line.strip())
        if match is None or line.startswith(";") or re.search(r"[\[\]()<>*#_]", match[2]):
            continue
        if len(match[2].split()) in PROMPT_WORDS:
            found.setdefault(match[1].rpartition("/")[2], " ".join(match[2].split()))
    return sorted(found.items())


def as_wav(g722: bytes) -> bytes:
    """A WAV file of G.722 at 64 kbit/s: 16 kHz mono. Errors: InputError (it cannot be decoded)."""
    import av
    import numpy as np
    import soundfile

    try:
        with av.open(io.BytesIO(g722), format="g722") as container:
            pieces: Sequence[np.ndarray] = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]  # fmt: skip
    except av.FFmpegError as error:
        raise InputError(f"recording: cannot be decoded ({error.strerror}), expected G.722; fetch it again") from None  # fmt: skip
    out = io.BytesIO()
    soundfile.write(out, np.concatenate(pieces), 16_000, format="WAV", subtype="PCM_16")
    return out.getvalue()
