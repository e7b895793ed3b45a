"""Thinker batches: shards of any kind -> rows of conversations, side by side, that the Thinker's stages learn from.

    a record with messages          its conversation, with whatever it holds; the answers are learnt
    a record with sound and text    a task in natural language: transcribe, repeat, read
    a record with text alone        language: every token is learnt

    "text/*.tar, speech/train-*.tar@0.5"  --Source--> Mixture --Bins--> so many tokens a batch --pack--> Packed

A weight is a share of tokens. Letters: T tokens.
"""

from __future__ import annotations

import functools
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from thinktalk.config import OmniConfig
from thinktalk.data.examples import IGNORED, Example, TokenCost, encode
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Mixture, Source, weighted
from thinktalk.data.packing import Packed, pack
from thinktalk.data.plan import Bins, Plan
from thinktalk.data.pointing import about, cells, slots
from thinktalk.data.prompts import TASKS, task_messages, written
from thinktalk.data.samples import AUDIO_NAMES, Sample, parse, read_record
from thinktalk.data.shards import Entry
from thinktalk.data.speech import Augmentation, augment
from thinktalk.data.words import Times, splice, word_times
from thinktalk.errors import ConfigError, InputError
from thinktalk.prompt import DEFAULT_SYSTEM, SPEECH_SYSTEM, Tokenizer
from thinktalk.training.guide import token_ends, tokens_heard
from thinktalk.training.parallel import World

__all__ = ["Make", "loader", "sources", "tasks_of", "timed"]


def tasks_of(names: str) -> tuple[str, ...]:
    """ "transcribe,read" -> the tasks; ConfigError names those there are."""
    tasks = tuple(name.strip() for name in names.split(",") if name.strip())
    if not tasks or (unknown := set(tasks) - set(TASKS)):
        raise ConfigError(f"tasks {names!r}: {', '.join(sorted(unknown)) if tasks else 'none'}; expected some of {', '.join(TASKS)}")  # fmt: skip
    return tasks


@dataclass(frozen=True)
class Make:
    """Samples -> examples, Loader's make; and what a record costs in tokens, from its metadata alone."""

    tokenizer: Tokenizer
    config: OmniConfig
    max_tokens: int
    """Longer conversations are passed by; of longer plain texts a stretch is drawn."""
    tasks: tuple[str, ...] = ("transcribe",)
    """What is asked of a recording that has a text and no messages."""
    speech: float = 0.5
    """Share of conversations that begin with the system prompt of speech, where they bring none of their own."""
    augmentation: Augmentation | None = None
    """What happens to sounds."""
    spliced: float = 0.0
    """Share of the recordings with tasks that go over into another one of the same voice (data/words.py)."""
    timed: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    """Recordings whose words are known in time, by voice."""
    guide: bool = False
    """Whether to tell where each token is heard or seen (guide.py): of transcripts whose durations are known, of things that have
    a box in a picture or a time in a sound (data/pointing.py)."""

    # ------------------------------------------------------------------------------------------------------- example

    def __call__(self, sample: Sample, generator: torch.Generator) -> Example:
        """What the Thinker learns of a sample, drawn with its own generator. Errors: InputError names the sample."""
        messages, times, speed = sample.messages, None, 1.0
        if not messages and sample.member(*AUDIO_NAMES) is None:
            return self._language(sample, generator)
        if not messages:
            if self.spliced and float(torch.rand((), generator=generator)) < self.spliced:
                sample, times = self._spliced(sample, generator)
            task = self.tasks[int(torch.randint(len(self.tasks), (), generator=generator))]
            messages = task_messages(sample, task, generator)
            times = (times or word_times(sample.record)) if self.guide and task != "read" else None
        speech = float(torch.rand((), generator=generator)) < self.speech
        if self.augmentation is not None:
            messages, speed = self._elsewhere(messages, sample, generator, self.augmentation)
            times = times and [(start / speed, end / speed) for start, end in times]
        example = encode(
            sample.resolved(messages), tokenizer=self.tokenizer, config=self.config, speech=speech,
            max_tokens=self.max_tokens, name=sample.where,
        )  # fmt: skip
        if times is not None:
            return replace(example, heard=self._heard(example, sample.text, times))
        return (
            replace(example, heard=self._shown(example, sample, speed)) if self.guide else example
        )

    def _shown(self, example: Example, sample: Sample, speed: float) -> Tensor | None:
        """Where the things are that the words of the answer are about; None where nothing is known of them."""
        messages, record = sample.messages, sample.record
        things = record.get("things") or record.get("events") or ()
        places = self._places(example, things, speed)
        if len(messages) < 2 or not any(places):
            return None
        asked, answer = (written(message) for message in messages[-2:])
        reply, ends = self._reply(example)
        if not ends or ends[-1] != len(answer):
            return None  # answers of several turns
        heard = torch.full((example.length, 2), IGNORED)
        for (first, last), number in about(answer, asked, things):
            for token, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
                if begin < last and end > first and (place := places[number]) is not None:
                    heard[reply[token] - 1] = torch.tensor(place)
        return heard

    def _places(
        self, example: Example, things: Sequence[Mapping[str, Any]], speed: float
    ) -> list[tuple[int, int] | None]:
        """From and to of each thing's tokens, in the only picture or sound there is."""
        kinds, ids = (len(example.images), len(example.audio), len(example.videos)), self.config.thinker.ids  # fmt: skip
        token = {(1, 0, 0): ids.image, (0, 1, 0): ids.audio}.get(kinds)
        if token is None:
            return [None] * len(things)
        marked = (example.token_ids == token).nonzero().flatten()
        start, found = int(marked[0]), []
        for thing in things:
            place = None
            if example.images and "box" in thing:
                merge, (_, height, width) = self.config.thinker.vision.merge, example.images[0][1]
                place = cells(thing["box"], height // merge, width // merge)
            elif example.audio and "start" in thing and "end" in thing:
                place = slots(thing["start"] / speed, thing["end"] / speed, self._rate, len(marked))
            found.append(None if place is None else (start + place[0], start + place[1]))
        return found

    def _spliced(self, sample: Sample, generator: torch.Generator) -> tuple[Sample, Times | None]:
        """The first words of the recording and the last of another, and when each is said; as it is where either is not timed."""
        own = self.timed.get(sample.voice or "", ())
        if not own:
            return sample, None
        other = parse(own[int(torch.randint(len(own), (), generator=generator))])
        rate = self.config.mel.sample_rate
        both = splice(sample.record, other.record, generator, rate=rate)
        if both is None:
            return sample, None
        first, second = sample.pcm(rate), other.pcm(rate)
        pcm = np.concatenate((first[: round(both.until_s * rate)], second[round(both.from_s * rate) :]))  # fmt: skip
        sound = io.BytesIO()
        soundfile.write(sound, pcm, rate, format="WAV", subtype="PCM_16")
        record = {"text": both.text, "voice": sample.voice, "seconds": len(pcm) / rate}
        return replace(sample, record=record, media={"wav": sound.getvalue()}), both.times

    def _heard(self, example: Example, text: str, times: Times) -> Tensor | None:
        """Where each token of the answer, which is `text`, is heard in the only sound there is."""
        sound = (example.token_ids == self.config.thinker.ids.audio).nonzero().flatten()
        reply, ends = self._reply(example)
        found = tokens_heard(text, ends, times, len(sound), self._rate)
        if found is None:
            return None
        heard = torch.full((example.length, 2), IGNORED)
        heard[reply - 1] = found + sound[0]
        return heard

    @property
    def _rate(self) -> float:
        """Tokens of a second of sound."""
        return self.config.mel.frames_per_second / 4

    def _reply(self, example: Example) -> tuple[Tensor, list[int]]:
        """Places of the answer's tokens without what ends it, and its letters up to the end of each."""
        places = (example.labels != IGNORED).nonzero().flatten()[:-1]
        return places, token_ends(self.tokenizer, example.token_ids[places].tolist())

    def _language(self, sample: Sample, generator: torch.Generator) -> Example:
        """Plain text: learnt from its second token to its end, which is a token, too."""
        if not sample.text.strip():
            raise InputError(f"{sample.where}: has neither messages nor a text, expected one of them; use another source")  # fmt: skip
        ids = [*self.tokenizer.encode(sample.text), self.config.thinker.ids.pad]
        if len(ids) > self.max_tokens:
            room = len(ids) - self.max_tokens
            start = int(torch.randint(room + 1, (), generator=generator))
            ids = ids[start : start + self.max_tokens]
        token_ids = torch.tensor(ids)
        positions = torch.arange(len(ids)).expand(3, -1)
        return Example(token_ids, positions, token_ids.clone(), name=sample.where)

    def _elsewhere(
        self, messages: Sequence[dict[str, Any]], sample: Sample, generator: torch.Generator, how: Augmentation
    ) -> tuple[list[dict[str, Any]], float]:  # fmt: skip
        """The messages with their sounds as they might have been recorded elsewhere, and the speed of the last of them."""
        rate, speed = self.config.mel.sample_rate, 1.0

        def part(p: dict[str, Any]) -> dict[str, Any]:
            if p["type"] != "audio":
                return p
            nonlocal speed
            pcm, speed = augment(sample.pcm(rate, member=p["audio"]), rate, generator, how)
            return {**p, "audio": (pcm, rate)}

        elsewhere = [
            m if isinstance(m["content"], str) else {**m, "content": [part(p) for p in m["content"]]}
            for m in messages
        ]  # fmt: skip
        return elsewhere, speed

    # ---------------------------------------------------------------------------------------------------------- cost

    def cost(self, record: Mapping[str, Any]) -> float:
        """Tokens of a record, its wording the longest, its system prompt as it is on average; what Source measures with."""
        system = self._system * self.speech
        if "messages" in record:
            return self._tokens(record) + system
        length = len(self.tokenizer.encode(record.get("text", "")))
        if not record.get("seconds"):
            return float(min(length + 1, self.max_tokens))
        sound = self._tokens.sound(record, "")
        asked = (self._wording[t] + (length if t == "read" else sound) for t in self.tasks)
        return float(max(asked) + length + system)

    @functools.cached_property
    def _tokens(self) -> TokenCost:
        return TokenCost(self.tokenizer, self.config)

    @functools.cached_property
    def _system(self) -> int:
        """By how much the longer system prompt is longer."""
        long, short = (len(self.tokenizer.encode(s)) for s in (SPEECH_SYSTEM, DEFAULT_SYSTEM))
        return max(0, long - short)

    @functools.cached_property
    def _wording(self) -> dict[str, int]:
        """Tokens of each task's longest wording, template included, without text and sound."""
        return {
            task: max(int(self._tokens({"messages": _asked(w)})) for w in TASKS[task])
            for task in self.tasks
        }


def _asked(wording: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": wording.format(text="")},
        {"role": "assistant", "content": ""},
    ]


# ------------------------------------------------------------------------------------------------------------- sources


def sources(shards: str, make: Make) -> list[Source]:
    """ "a/*.tar, b/train-*.tar@0.25" -> sources measured in tokens; what follows @ is a weight, 1 where there is none.

    Errors: ConfigError (a weight that is none), InputError (no shards, nothing in them).
    """
    return [
        Source(paths, weight=weight or 1.0, measure=make.cost) for paths, weight in weighted(shards)
    ]


def timed(sources: Iterable[Source]) -> dict[str, list[Entry]]:
    """The recordings of known voices whose words are known in time, by voice; the records are read once more."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for source in sources:
        for entry in source.entries:
            record = read_record(entry)
            if record.get("voice") and not record.get("messages") and word_times(record):
                found[record["voice"]].append(entry)
    return dict(found)


def _row(examples: Sequence[Example], *, pad_id: int, width: int) -> Packed:
    """One row, `width` wide or as wide as it must be: planned from metadata, it may be a little longer than planned."""
    return pack(examples, pad_id=pad_id, capacity=max(width, sum(e.length for e in examples)))


def loader(
    shards: str,
    make: Make,
    *,
    tokens: int,
    seed: int,
    world: World,
    workers: int = 0,
    fixed: bool = False,
) -> Loader:
    """This rank's batches of about `tokens` tokens, one row each; `fixed` pads every row to `tokens`.

    A conversation longer than make.max_tokens is passed by.
    """
    make = replace(make, max_tokens=min(make.max_tokens, tokens))
    found = sources(shards, make)
    if make.spliced:
        make = replace(make, timed=timed(found))
    plan = Plan(Mixture(found, seed=seed), Bins(float(tokens)))
    collate = functools.partial(_row, pad_id=make.config.thinker.ids.pad, width=tokens if fixed else 0)  # fmt: skip
    return Loader(plan, make, collate, rank=world.rank, world=world.size, workers=workers)
