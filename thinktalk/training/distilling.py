"""Distilling: texts -> shards of codes that an acoustic model says, no sound at all, for the Talker to learn from.

    sentences   text, voice, phones, durations, codes                  read aloud by the voices in turn
    dialogues   messages, answer_text, answer_voice, answer_codes ...  written conversations whose last answer is said

Phones are Kokoro's, by espeak-ng; how long they last and what codes say them comes from a run of k0_acoustic
(training/acoustic.py). A shard follows from seed and number alone: what was stopped goes on, with the same bytes.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from thinktalk.data.mixture import expand
from thinktalk.data.samples import FRAME_SECONDS, read_record
from thinktalk.data.shards import ShardWriter, scan
from thinktalk.data.synth.kokoro import said_in_phones
from thinktalk.data.synth.sentences import sentences
from thinktalk.data.synth.wording import aloud
from thinktalk.data.synth.world import begun
from thinktalk.errors import InputError
from thinktalk.training.acoustic import Acoustic, Utterance

__all__ = ["Distilled", "Plan", "distil"]

SHARD_SAMPLES = 1000
BATCH = 125
LONGEST_PHONES = 300
SPEEDS = (0.93, 1.08)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is said, and by whom."""

    texts: tuple[str, ...] = ()
    """Sources of sentences (data/synth/sentences.py), of which those of the split train are taken."""
    dialogues: tuple[str, ...] = ()
    """Shards of written conversations, in the place of sentences."""
    voices: tuple[str, ...]
    count: int
    seed: int = 0
    temperature: float = 0.8
    top_p: float = 0.8
    cache: str | None = field(default=None, compare=False)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes its bytes what they are, but for how many there are."""
        return {
            "distilled": list(self.texts or self.dialogues), "voices": list(self.voices), "seed": self.seed,
            "temperature": self.temperature, "top_p": self.top_p,
        }  # fmt: skip


@dataclass
class Distilled:
    """What was made now."""

    paths: list[str] = field(default_factory=list)
    """All shards, those that were there among them."""
    samples: int = 0
    seconds: float = 0.0
    left_out: int = 0
    """Texts with nothing to say, or too much."""


def distil(
    model: Acoustic,
    codes_by: str,
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = lambda line: None,
) -> Distilled:
    """Write OUT/train-00000.tar and so on, a thousand samples each; shards that are there are passed by.

    Errors: InputError (OUT holds shards of another make, no texts, a voice that the model has not learnt).
    """
    out, made = Path(out), Distilled()
    texts = list(_texts(plan))[: plan.count]
    if not texts:
        raise InputError("texts: none of the split train, expected some to be said; name other sources")  # fmt: skip
    with begun(out, {**plan.identity, "codes_by": codes_by}):
        for number, first in enumerate(range(0, len(texts), SHARD_SAMPLES)):
            path = out / f"train-{number:05d}.tar"
            made.paths.append(str(path))
            if path.exists():
                continue
            _write(model, codes_by, plan, number, texts[first : first + SHARD_SAMPLES], path, made)
            report(f"{path.name}: {made.samples} samples, {made.seconds / 3600:.2f} hours")
    return made


def _texts(plan: Plan) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is said, and the record that it belongs to."""
    if plan.texts:
        for text, source in sentences(plan.texts, "train", seed=plan.seed, cache=plan.cache):
            yield text, {"source": source}
        return
    for path in expand(list(plan.dialogues)):
        for entry in scan(path).entries:
            record = read_record(entry)
            last = (record.get("messages") or [{}])[-1]
            if last.get("role") == "assistant" and isinstance(last["content"], str):
                yield aloud(last["content"]), record


def _write(
    model: Acoustic, codes_by: str, plan: Plan, number: int, texts: Sequence[tuple[str, Mapping[str, Any]]], path: Path,
    made: Distilled,
) -> None:  # fmt: skip
    """One shard, whole or not at all."""
    draw = random.Random(f"{plan.seed} distilled {number}")
    generator = torch.Generator().manual_seed(draw.getrandbits(63))
    lines: list[tuple[str, Mapping[str, Any], Utterance]] = []
    for text, record in texts:
        voice, speed = draw.choice(plan.voices), round(draw.uniform(*SPEEDS), 2)
        phones = said_in_phones(text, british=voice.startswith("b"))
        if 1 <= len(phones) <= LONGEST_PHONES:
            lines.append((text, record, Utterance(voice, speed, phones)))
    made.left_out += len(texts) - len(lines)
    lines.sort(
        key=lambda line: len(line[2].phones)
    )  # alike in length: little of a batch is padding
    records: list[dict[str, Any]] = []
    for start in range(0, len(lines), BATCH):
        some = lines[start : start + BATCH]
        said = model.speak([u for _, _, u in some], temperature=plan.temperature, top_p=plan.top_p, generator=generator)  # fmt: skip
        for (text, record, u), (durations, codes) in zip(some, said, strict=True):
            seconds = round(sum(durations) * FRAME_SECONDS, 4)
            own = {"text": text, "voice": u.voice, "speed": u.speed, "phones": u.phones, "durations": durations, "seconds": seconds, "codes": codes}  # fmt: skip
            own = own if plan.texts else {f"answer_{name}": value for name, value in own.items()}
            records.append({**record, **own, "language": "en", "codes_by": codes_by})
            made.samples, made.seconds = made.samples + 1, made.seconds + seconds
    draw.shuffle(records)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as scratch:
        with ShardWriter(Path(scratch) / "shard", max_bytes=1 << 60) as writer:
            for n, record in enumerate(records):
                writer.write(f"{number * SHARD_SAMPLES + n:06d}", {"json": json.dumps(record, ensure_ascii=False).encode()})  # fmt: skip
        writer.paths[0].replace(path)
