"""Checking: shards -> a Report of what they hold and of everything in them that cannot be used, by name.

    headers -> records -> media decoded, their length against what the record says

Training passes such samples by; this says beforehand which ones, and why.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from thinktalk.config import VisualConfig
from thinktalk.data.mixture import expand
from thinktalk.data.samples import AUDIO_NAMES, IMAGE_NAMES, VIDEO_NAMES, Sample, parse, read_record
from thinktalk.data.shards import Entry, Fault, scan
from thinktalk.errors import InputError
from thinktalk.media.image import load_image
from thinktalk.media.video import load_video

__all__ = ["Report", "check_sample", "check_shards"]

RATE = 24_000
SLACK_SECONDS = 0.025
"""A sound may differ from `seconds` by a frame of labels: codecs pad."""


@dataclass
class Report:
    """What some shards hold."""

    shards: int = 0
    samples: int = 0
    """Samples that can be used."""
    bytes: int = 0
    seconds: float = 0.0
    """Of all sound, as the records tell it."""
    words: int = 0
    members: Counter[str] = field(default_factory=Counter)
    """How many members of each ending."""
    fields: Counter[str] = field(default_factory=Counter)
    """How many records have each field."""
    voices: Counter[str] = field(default_factory=Counter)
    """Seconds by voice."""
    faults: list[Fault] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {
            "shards": self.shards,
            "samples": self.samples,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "words": self.words,
            "members": dict(self.members.most_common()),
            "fields": dict(self.fields.most_common()),
            "voices": {v: round(s, 3) for v, s in self.voices.most_common()},
            "faults": [str(fault) for fault in self.faults],
        }


def check_shards(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, decode: bool = True
) -> Report:
    """Read every sample of these shards; without `decode`, headers and records only.

    Errors: InputError only where no shard is found; what is wrong inside of one is a fault in the report.
    """
    report = Report()
    for path in expand(paths):
        report.shards += 1
        try:
            shard = scan(path)
        except InputError as error:
            report.faults.append(_fault(error, path))
            continue
        report.faults += shard.faults
        report.bytes += shard.size
        if not shard.entries and not shard.faults:
            report.faults.append(Fault(path, "holds no samples"))
        for entry in shard.entries:
            _check_entry(entry, report, decode)
    return report


def _check_entry(entry: Entry, report: Report, decode: bool) -> None:
    try:
        record = read_record(entry)
        wrong = list(check_sample(parse(entry))) if decode else []
    except InputError as error:
        report.faults.append(_fault(error, entry.where))
        return
    report.faults += wrong
    if wrong:
        return
    report.samples += 1
    report.seconds += record.get("seconds", 0.0)
    report.words += len(record.get("text", "").split())
    report.members.update(m.name.rpartition(".")[2] for m in entry.members if m.name != "json")
    report.fields.update(record.keys())
    if "voice" in record:
        report.voices[record["voice"]] += record.get("seconds", 0.0)


def check_sample(sample: Sample) -> Iterator[Fault]:
    """What is wrong with the media of a sample."""
    for name, content in sample.media.items():
        ending, label = name.rpartition(".")[2], f"{sample.where}.{name}"
        try:
            if ending in AUDIO_NAMES:
                heard = len(sample.pcm(RATE, member=name)) / RATE
                # a sample with several sounds tells the length of the one its labels are of: the first
                told = sample.seconds if name == sample.member(*AUDIO_NAMES) else 0.0
                if told and abs(heard - told) > SLACK_SECONDS:
                    yield Fault(label, f"lasts {heard:.3f} s, the record says {told:.3f} s")
            elif ending in IMAGE_NAMES:
                load_image(content, name=label)
            elif ending in VIDEO_NAMES:
                load_video(content, visual=VisualConfig(), want_audio=True, name=label)
        except InputError as error:
            yield _fault(error, label)


def _fault(error: InputError, where: str) -> Fault:
    """The error's own words, its place cut off where it begins with it."""
    text = str(error)
    place, colon, reason = text.partition(": ")
    return Fault(place, reason) if colon and place.startswith(where) else Fault(where, text)
