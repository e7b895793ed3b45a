"""k1: speech goes on in its context. Samples -> Tasks whose voice is told apart from their words.

    dialogue                         the answer, in the voice its token names
    sentence, known voice            read, or repeat after ANOTHER voice; token of its voice
    sentence with a lead             [words of lead + words] [codes of lead: heard] [codes: learned]
                                     the lead is another sentence of the same voice; the token names it, or nobody

Timbre disentanglement (Qwen2.5-Omni report, 2.4: "to prevent the model from associating specific voices with infrequent
textual patterns"): what is said in one voice must never be what tells the voice. So the voice is always given by something
else than the words: by its token, or, where it has none, by a lead drawn from all its sentences; who asks is drawn apart
from who answers; and a sentence that several voices say comes as often in each. What is left to the words is how to say them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from thinktalk.data.mixture import Source
from thinktalk.data.prompts import task_messages
from thinktalk.data.samples import AUDIO_NAMES, Sample, parse, read_record
from thinktalk.data.shards import Entry
from thinktalk.data.words import splice, word_times
from thinktalk.errors import ConfigError, InputError
from thinktalk.omni import READ_ALOUD
from thinktalk.training.talker_batches import Kit, Line, Task, answered, phones_of

__all__ = ["Context", "InContext", "Sentences"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """How tasks are drawn."""

    lead: float = 0.3
    """Sentences that go on after another one of the same voice. A voice without a token always has a lead if it can."""
    anonymous: float = 0.5
    """Of those, the ones whose token names nobody: the lead alone tells the voice."""
    learned: float = 0.0
    """Of those with a lead, the ones whose lead is learned too, as one longer reading: a Talker that begins learns twice as
    much from as many tokens, and how to say words comes before how to take a voice up."""
    repeat: float = 0.2
    """Sentences said after somebody else who says the same; without such a one they are read."""
    aloud: float = 0.5
    """Of those read, the ones asked as `say` asks."""
    bare: float = 0.0
    """Sentences read that nobody asks for: without a prompt a row is nearly all codes, so that a Talker that begins reads two to
    three times as many in the same time."""
    spliced: float = 0.0
    """Sentences read that go over into another one of the same voice, cut between words (data/words.py), where durations are
    known: a small corpus is not learned by heart."""

    def __post_init__(self) -> None:
        for name in ("lead", "anonymous", "learned", "repeat", "aloud", "bare", "spliced"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"context.{name} is {getattr(self, name)}, expected a share from 0 to 1")  # fmt: skip


@dataclass(frozen=True)
class Sentences:
    """Where the spoken sentences of some sources lie, by voice and by what is said."""

    by_voice: dict[str, list[Entry]]
    by_text: dict[str, list[tuple[str, Entry]]]

    @classmethod
    def of(cls, sources: Iterable[Source]) -> Sentences:
        """Those with voice and text; the records are read once more."""
        by_voice: dict[str, list[Entry]] = defaultdict(list)
        by_text: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
        for source in sources:
            for entry in source.entries:
                record = read_record(entry)
                if record.get("voice") and record.get("text") and not record.get("messages"):
                    if record.get("codes"):
                        by_voice[record["voice"]].append(entry)
                    by_text[_plain(record["text"])].append((record["voice"], entry))
        return cls(dict(by_voice), dict(by_text))


@dataclass(frozen=True)
class InContext:
    """Sample -> Line: what a Loader makes in k1, the task drawn from the sample's own numbers."""

    kit: Kit
    sentences: Sentences
    context: Context = Context()
    fixed: bool = False
    """The same draw in every epoch, so that states kept on disk are found again."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Line:
        """Errors: InputError (no codes, no text, media that cannot be read)."""
        self.kit.check(sample)
        if self.fixed:
            generator = torch.Generator().manual_seed(_seed(sample.where))
        task = self.task(sample, generator)
        line = self.kit.line(task)
        # the lead alone tells the voice
        hides = task.given and _uniform(generator) < self.context.anonymous
        return replace(line, voice=self.kit.anybody) if hides else line

    def task(self, sample: Sample, generator: torch.Generator, *, lead: bool = True) -> Task:
        """What is asked, and who says it; codes are None where the sample has none. `lead`: whether one may be drawn."""
        spoken = answered(sample)
        if spoken is not None:
            return replace(spoken, phones=self._phones(sample.record, spoken.codes, "answer_"))
        task = self._sentence(sample, generator)
        known = task.voice in self.kit.voices
        if not lead or task.codes is None or (known and _uniform(generator) >= self.context.lead):
            return task
        before = self._lead(sample, generator)
        if before is None:
            return task
        whole = self._after(task, *before)
        learned = self.context.learned and _uniform(generator) < self.context.learned
        return replace(whole, given=0) if learned else whole

    def _sentence(self, sample: Sample, generator: torch.Generator) -> Task:
        """The sentence alone: read it, or repeat it after somebody else."""
        codes = None if sample.codes is None else sample.codes.tolist()
        times, phones = word_times(sample.record), self._phones(sample.record, codes)
        said = Task([], {}, codes, sample.voice, times=times, phones=phones, name=sample.where)
        if _uniform(generator) < self.context.repeat:
            other = self._other(sample, generator)
            if other is not None:
                # the sound is another's, the words are the same
                member = other.member(*AUDIO_NAMES)
                assert member is not None
                asked = task_messages(other, "repeat", generator)
                asked[-1] = {"role": "assistant", "content": sample.text}
                return replace(said, messages=asked, media={member: other.media[member]})
        if self.context.spliced and _uniform(generator) < self.context.spliced:
            said, sample = self._spliced(said, sample, generator)
        if self.context.bare and _uniform(generator) < self.context.bare:
            return replace(said, messages=_read(sample.text), bare=True)
        if _uniform(generator) < self.context.aloud:
            if not sample.text.strip():
                raise InputError(f"{sample.where}: has no text, expected what is said; use another source")  # fmt: skip
            return replace(said, messages=_read(sample.text))
        return replace(said, messages=task_messages(sample, "read", generator))

    def _spliced(
        self, said: Task, sample: Sample, generator: torch.Generator
    ) -> tuple[Task, Sample]:
        """The first words of the sentence and the last of another, if both are timed."""
        rate = self.kit.codes_per_second
        own = self.sentences.by_voice.get(sample.voice or "", [])
        if said.codes is None or not own:
            return said, sample
        record = read_record(own[_pick(len(own), generator)])
        both = splice(sample.record, record, generator, rate=rate)
        if both is None:
            return said, sample
        until, start = round(both.until_s * rate), round(both.from_s * rate)
        codes = [*said.codes[:until], *record["codes"][start:]]
        if len(codes) > self.kit.max_codes:
            return said, sample
        phones = _joined(said.phones, self._phones(record, record["codes"]), until, start)
        whole = replace(sample, record={**sample.record, "text": both.text})
        return replace(said, codes=codes, times=both.times, phones=phones), whole

    def _other(self, sample: Sample, generator: torch.Generator) -> Sample | None:
        """Somebody else who says the same."""
        same = self.sentences.by_text.get(_plain(sample.text), [])
        others = [entry for voice, entry in same if voice != sample.voice]
        other = parse(others[_pick(len(others), generator)]) if others else None
        return other if other is not None and other.member(*AUDIO_NAMES) else None

    def _lead(
        self, sample: Sample, generator: torch.Generator
    ) -> tuple[dict[str, Any], list[int]] | None:
        """Another sentence of the same voice that leaves room for this one."""
        own = self.sentences.by_voice.get(sample.voice or "", [])
        room = self.kit.max_codes - len(sample.codes if sample.codes is not None else ())
        for _ in range(4 if len(own) > 1 else 0):
            record = read_record(own[_pick(len(own), generator)])
            if _plain(record["text"]) != _plain(sample.text) and len(record["codes"]) <= room:
                return record, record["codes"]
        return None

    def _phones(
        self, record: Mapping[str, Any], codes: Sequence[int] | None, prefix: str = ""
    ) -> Tensor | None:
        """The phone of each code, where it is known and wanted."""
        if not codes or not self.kit.labels:
            return None
        return phones_of(record, len(codes), self.kit.codes_per_second, prefix)

    def _after(self, task: Task, lead: dict[str, Any], codes: Sequence[int]) -> Task:
        """The task as the second half of one that begins with the lead; both are asked for."""
        text = f"{lead['text'].strip()} {task.text.strip()}"
        first, second = word_times(lead), task.times
        times = None
        if first is not None and second is not None:
            later = len(codes) / self.kit.codes_per_second
            times = [*first, *((start + later, end + later) for start, end in second)]
        phones = _joined(self._phones(lead, codes), task.phones, len(codes), 0)
        return replace(
            task, messages=_read(text), media={}, codes=[*codes, *(task.codes or ())], given=len(codes), times=times,
            phones=phones,
        )  # fmt: skip


def _read(text: str) -> list[dict[str, Any]]:
    """As Omni.say asks."""
    return [{"role": "user", "content": READ_ALOUD + text}, {"role": "assistant", "content": text}]


def _joined(first: Tensor | None, second: Tensor | None, until: int, start: int) -> Tensor | None:
    """Phones of a recording's beginning and of another's rest; None where either's are not known."""
    return None if first is None or second is None else torch.cat((first[:until], second[start:]))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _pick(count: int, generator: torch.Generator) -> int:
    drawn: Tensor = torch.randint(count, (), generator=generator)
    return int(drawn)


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
