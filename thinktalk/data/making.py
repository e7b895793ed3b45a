"""Making: a folder of recordings with their transcripts -> shards, split by sentence, unusable recordings named.

    a.wav + a.txt (or a.lab)     one transcript a file, anywhere below the folder
    metadata.csv                 ID|TEXT or ID|TEXT|NORMALISED TEXT a line, recordings beside it or in wavs/   (LJ Speech)
    *.trans.txt                  ID TEXT a line, recordings beside it                                         (LibriSpeech)

The split of a sentence is that of its hash (prompts.split_of), the same in every corpus: what one voice reads for training,
no other voice reads for a test.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from thinktalk.data.prompts import SPLITS, split_of
from thinktalk.data.samples import AUDIO_NAMES
from thinktalk.data.shards import Fault, ShardWriter
from thinktalk.errors import InputError
from thinktalk.media.audio import load_audio

__all__ = ["Made", "Recording", "find_recordings", "make_corpus"]

RATE = 24_000
MAX_TEXT_BYTES = 1 << 20
"""A longer file of text beside a recording is no transcript."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A sound file and what is said in it."""

    path: Path
    text: str
    voice: str


@dataclass
class Made:
    """What was written."""

    paths: list[str] = field(default_factory=list)
    samples: dict[str, int] = field(default_factory=lambda: {name: 0 for _, name in SPLITS})
    """By split."""
    seconds: dict[str, float] = field(default_factory=lambda: {name: 0.0 for _, name in SPLITS})
    faults: list[Fault] = field(default_factory=list)


def make_corpus(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    voice: str | None = None,
    test_voices: Collection[str] = (),
    source: str | None = None,
    max_bytes: int = 256 << 20,
) -> Made:
    """Write OUT/train-00000.tar, OUT/dev-00000.tar, ... of the recordings below `directory`; their bytes stay as they are.

    `voice` names the speaker of all; otherwise the folder a recording lies in does. All that `test_voices` say goes to
    test. The same folder gives the same bytes. Errors: InputError (nothing found, OUT cannot be written).
    """
    directory = Path(directory)
    made = Made()
    recordings = sorted(find_recordings(directory, made.faults), key=lambda r: str(r.path))
    if not recordings:
        why = f" ({made.faults[0]})" if made.faults else ""
        raise InputError(f"{directory}: holds no recordings with transcripts{why}, expected a.wav with a.txt, metadata.csv or *.trans.txt; see docs/data.md")  # fmt: skip
    names = [name for _, name in SPLITS]
    with contextlib.ExitStack() as stack:
        writers = {n: stack.enter_context(ShardWriter(Path(out) / n, max_bytes=max_bytes)) for n in names}  # fmt: skip
        for recording in recordings:
            try:
                seconds = len(load_audio(recording.path, sample_rate=RATE)) / RATE
            except InputError as error:
                where, _, reason = str(error).partition(": ")
                made.faults.append(Fault(where, reason))
                continue
            speaker = voice or recording.voice
            split = "test" if speaker in test_voices else split_of(recording.text)
            record = {
                "text": recording.text,
                "voice": speaker,
                "seconds": round(seconds, 4),
                "source": source or directory.resolve().name,
            }
            members = {
                "json": json.dumps(record, ensure_ascii=False).encode(),
                recording.path.suffix[1:].lower(): recording.path.read_bytes(),
            }
            writers[split].write(f"{writers[split].samples:06d}", members)
            made.samples[split] += 1
            made.seconds[split] += seconds
    made.paths = [str(path) for writer in writers.values() for path in writer.paths]
    return made


def find_recordings(directory: Path, faults: list[Fault]) -> Iterator[Recording]:
    """Every recording below `directory` that has a transcript; lines without a recording go to `faults`."""
    if not directory.is_dir():
        raise InputError(f"{directory}: is no folder, expected one with recordings; check the path")
    for folder, _, files in os.walk(directory):
        here = Path(folder)
        stems = {Path(f).stem: here / f for f in sorted(files) if _is_sound(f)}
        speaker = here.name if here != directory else directory.resolve().name
        for name in sorted(files):
            path = here / name
            if name == "metadata.csv":
                wavs = here / "wavs"
                inner = sorted(wavs.iterdir()) if wavs.is_dir() else []
                beside = stems | {p.stem: p for p in inner if _is_sound(p.name)}
                yield from _table(path, "|", beside, speaker, faults)
            elif name.endswith(".trans.txt"):
                yield from _table(path, " ", stems, speaker, faults)
            elif path.suffix in (".txt", ".lab") and path.stem in stems:
                text = _read(path, faults)
                if text is not None:
                    yield Recording(stems[path.stem], text, speaker)


def _table(
    path: Path, separator: str, sounds: dict[str, Path], speaker: str, faults: list[Fault]
) -> Iterator[Recording]:
    """One recording a line: its name, then the text; of several texts the last one, which is the one as spoken."""
    content = _read(path, faults, lines=True) or ""
    for number, line in enumerate(content.splitlines(), 1):
        name, *texts = line.strip().split(separator, 1 if separator == " " else -1)
        text = next((" ".join(t.split()) for t in reversed(texts) if t.strip()), "")
        sound = sounds.get(Path(name).stem if Path(name).suffix[1:] in AUDIO_NAMES else name)
        if text and sound is not None:
            yield Recording(sound, text, speaker)
        elif line.strip():
            what = "has no text" if sound is not None else f"names {name[:80]!r}, no such recording"
            faults.append(Fault(f"{path}:{number}", what))


def _read(path: Path, faults: list[Fault], *, lines: bool = False) -> str | None:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES and not lines:
            raise ValueError(f"more than {MAX_TEXT_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        faults.append(Fault(str(path), f"is no transcript ({' '.join(str(error).split())[:100]})"))
        return None
    text = text if lines else " ".join(text.split())
    if not text:
        faults.append(Fault(str(path), "is an empty transcript"))
    return text or None


def _is_sound(name: str) -> bool:
    return name.rpartition(".")[2].lower() in AUDIO_NAMES
