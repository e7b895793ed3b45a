"""Speech to be learned by the Talker: samples -> Task (who asks what, who answers in which codes) -> Line -> batches.

    spoken sentence     text, voice, codes                                 --a task prompt-->  read it, or repeat it
    spoken dialogue     messages, answer_codes, answer_voice               as it is
    preference          messages, answer_voice, chosen, rejected           as it is (made by mining.py)

A Line is what one row of a batch is made of: the prompt the Thinker reads, the tokens it answers, and the codes that say
them. Batches are lists of like lengths. Letters: n codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from thinktalk.code2wav.speaker import Voice
from thinktalk.config import OmniConfig
from thinktalk.data.examples import OPENING
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Mixture, Source
from thinktalk.data.plan import Buckets, Plan
from thinktalk.data.prompts import written
from thinktalk.data.samples import Sample
from thinktalk.data.speech import PHONES, frame_labels
from thinktalk.data.words import Times, word_times
from thinktalk.errors import ConfigError, InputError
from thinktalk.prompt import Prompt, PromptBuilder, Tokenizer, build_prompt
from thinktalk.training.guide import token_ends, tokens_said
from thinktalk.training.parallel import World
from thinktalk.weights.voices import DEFAULT

__all__ = ["Kit", "Line", "Pair", "Prefers", "Task", "answered", "load", "phones_of", "talker_cost"]

Messages = list[dict[str, Any]]
EDGES = (80, 120, 170, 240, 340, 480, 700, 1000, 2000)
"""Upper ends of the buckets, in tokens of the Talker."""


@dataclass(frozen=True)
class Line:
    """Speech that answers something."""

    prompt: Prompt
    """What the Thinker reads, the assistant's turn open at its end."""
    reply: list[int]
    """Tokens of the answer, without the one that ends it."""
    codes: Tensor
    """(n,) int64 that say the answer."""
    voice: int
    """Token of the voice that speaks."""
    given: int = 0
    """Codes at the front that are heard and not learned."""
    complete: bool = True
    """Whether the speech ends with the last code, so that its end is learned."""
    said: Tensor | None = None
    """(n,) int64: the token of the reply that each code says, len(reply) after the last; None where it is not known."""
    phones: Tensor | None = None
    """(n,) int64: the phone of PHONES that each code says, 0 in silence, IGNORED where it is not known."""
    name: str = ""


@dataclass(frozen=True)
class Pair:
    """Two ways to say one answer."""

    chosen: Line
    rejected: Line


@dataclass(frozen=True)
class Task:
    """A line before it becomes numbers; media are named by member, their bytes are in `media`."""

    messages: Messages
    """Ends with the assistant's answer in words."""
    media: Mapping[str, bytes]
    codes: Sequence[int] | None
    """None where nobody has said it yet."""
    voice: str | None
    """Name of who answers; None: nobody that is known."""
    given: int = 0
    times: Times | None = None
    """When each word of the answer is said, where it is known."""
    phones: Tensor | None = None
    """The phone of each code, where it is known."""
    bare: bool = False
    """Whether nobody asks: there is nothing before the answer but the opening of its turn."""
    name: str = ""

    @property
    def text(self) -> str:
        """The answer in words."""
        return written(self.messages[-1])


@dataclass(frozen=True)
class Kit:
    """What turns tasks into lines."""

    tokenizer: Tokenizer
    config: OmniConfig
    voices: Mapping[str, int] = field(default_factory=dict)
    """Token of each voice that has one."""
    max_codes: int = 2000
    """Longer speech is passed by."""
    labels: bool = True
    """Whether it is told which token and which phone each code says, where that is known: guided learning alone needs it."""
    codes_by: str | None = None
    """Fingerprint of the tokenizer whose codes are learned (data/coding.py); None takes any."""

    @classmethod
    def of(
        cls, config: OmniConfig, voices: Mapping[str, Voice], tokenizer: Tokenizer, **options: Any
    ) -> Kit:
        """That of a checkpoint with these voices. Errors: ConfigError (no Talker)."""
        if config.talker is None or config.code2wav is None:
            raise ConfigError("the checkpoint has no talker in its configuration, expected one; make a checkpoint with: thinktalk train init")  # fmt: skip
        own = {name: v.bos_token for name, v in voices.items() if name != DEFAULT or v.name == DEFAULT}  # fmt: skip
        return cls(tokenizer, config, own, **options)

    @property
    def anybody(self) -> int:
        """The token of a voice that has none of its own (the Thinker's text start, which nothing else uses)."""
        assert self.config.talker is not None
        return self.config.talker.text_start

    @property
    def codes_per_second(self) -> float:
        """Of the speech that is made of them."""
        assert self.config.code2wav is not None
        return float(self.config.code2wav.codes_per_second)

    def check(self, sample: Sample) -> None:
        """InputError where the sample has codes of another tokenizer: they say something else."""
        told = sample.record.get("codes_by")
        if self.codes_by is not None and told is not None and told != self.codes_by:
            raise InputError(f"{sample.where}: has codes of the tokenizer {told}, expected {self.codes_by}; make them anew with: thinktalk data codes")  # fmt: skip

    def prompt(self, task: Task) -> tuple[Prompt, list[int]]:
        """What the Thinker reads and answers, as when it runs. Errors: InputError (media, no words)."""
        *asked, _ = task.messages
        if task.bare:
            builder = PromptBuilder(self.tokenizer, self.config)
            builder.mark("im_start")
            builder.text(OPENING)
            prompt = builder.prompt()
        else:
            prompt = build_prompt(
                resolve(asked, task.media),
                tokenizer=self.tokenizer,
                config=self.config,
                speech=True,
            )
        reply = self.tokenizer.encode(task.text)
        if not reply:
            raise InputError(f"{task.name}: the answer has no words, expected some to be spoken; mend the record")  # fmt: skip
        return prompt, reply

    def line(self, task: Task, codes: Sequence[int] | None = None) -> Line:
        """The line of a task; `codes` where they are not the task's own. Errors: InputError (codes, media, words)."""
        codes = task.codes if codes is None else codes
        if codes is None or not len(codes):
            raise InputError(f"{task.name}: has no codes, expected those of its speech; make them with: thinktalk data codes")  # fmt: skip
        if len(codes) > self.max_codes:
            raise InputError(f"{task.name}: {len(codes)} codes, expected at most {self.max_codes}; raise max_codes or cut the speech")  # fmt: skip
        assert self.config.talker is not None and self.config.code2wav is not None
        known = self.config.code2wav.dit.num_codes
        tensor = torch.as_tensor(codes, dtype=torch.int64)
        if int(tensor.max()) >= known:
            raise InputError(f"{task.name}: code {int(tensor.max())}, expected codes below {known}; make them with this model's tokenizer")  # fmt: skip
        voice = self.voices.get(task.voice, self.anybody) if task.voice else self.anybody
        prompt, reply = self.prompt(task)
        line = Line(prompt, reply, tensor, voice, given=task.given, name=task.name)
        if not self.labels or codes is not task.codes:
            return line
        said = None
        if task.times is not None:
            ends = token_ends(self.tokenizer, reply)
            said = tokens_said(task.text, ends, task.times, len(codes), self.codes_per_second)
        assert task.phones is None or len(task.phones) == len(codes)
        return replace(line, said=said, phones=task.phones)


def resolve(messages: Messages, media: Mapping[str, bytes]) -> Messages:
    """The messages with the bytes of each medium in the place of its member's name."""
    return Sample(where="", record={}, media=media).resolved(messages)


def phones_of(
    record: Mapping[str, Any], count: int, rate: float, prefix: str = ""
) -> Tensor | None:
    """The phone (count,) of each code of a record's speech, `prefix` "answer_" for an answer's; None where none is known."""
    said = {name: record[prefix + name] for name in ("phones", "durations") if record.get(prefix + name)}  # fmt: skip
    if len(said) < 2:
        return None
    if "frame_seconds" in record:
        said["frame_seconds"] = record["frame_seconds"]
    return frame_labels(Sample(where="", record=said), PHONES, frames=count, rate=rate)


def answered(sample: Sample) -> Task | None:
    """The task of a spoken dialogue, whose last message is the answer; None for a sample without messages.

    Errors: InputError where the answer is not the last message.
    """
    messages = sample.messages
    if not messages:
        return None
    if messages[-1]["role"] != "assistant" or len(messages) < 2:
        raise InputError(f"{sample.where}: ends with a message of {messages[-1]['role']}, expected a question and the assistant's answer; mend the record")  # fmt: skip
    record = sample.record
    return Task(
        messages=messages,
        media=sample.media,
        codes=_codes(sample, "answer_codes", required=False),
        voice=record.get("answer_voice"),
        times=word_times(record, "answer_"),
        name=sample.where,
    )


@dataclass(frozen=True)
class Prefers:
    """Sample -> Pair, as mining.py writes them: what a Loader makes in k2."""

    kit: Kit

    def __call__(self, sample: Sample, generator: torch.Generator) -> Pair:
        """Errors: InputError (fields that are not there)."""
        task = answered(sample)
        if task is None:
            raise InputError(f"{sample.where}: has no messages, expected a preference with chosen and rejected codes; use shards that k2_dpo has found")  # fmt: skip
        lines = []
        for which in ("chosen", "rejected"):
            complete = bool(sample.record.get(f"{which}_complete", True))
            lines.append(replace(self.kit.line(task, _codes(sample, which)), complete=complete))
        return Pair(*lines)


def _codes(sample: Sample, name: str, *, required: bool = True) -> list[int] | None:
    """A list of codes of the record, checked."""
    codes = sample.record.get(name)
    if codes is None and not required:
        return None
    if not (isinstance(codes, list) and codes and all(type(c) is int and c >= 0 for c in codes)):
        raise InputError(f"{sample.where}: {name} is {repr(codes)[:40]}, expected a list of codes; mend the record")  # fmt: skip
    return codes


# ------------------------------------------------------------------------------------------------------------- batches


def talker_cost(record: Mapping[str, Any], *, codes_per_second: float = 25.0) -> float:
    """Tokens of the Talker's row, about: its codes, and what the Thinker reads, from metadata alone."""
    codes = record.get("answer_codes") or record.get("chosen") or record.get("codes")
    seconds = record.get("answer_seconds", record.get("seconds", 0.0))
    spoken = len(codes) if codes else codes_per_second * seconds
    if "rejected" in record:
        spoken += len(record["rejected"])  # two rows
    messages = record.get("messages")
    heard, letters = 0.0, len(record.get("text", ""))
    if messages:
        letters = sum(len(written(m)) for m in messages)
        heard = 25.0 * record.get("seconds", 0.0)  # 25 tokens of sound a second
    return spoken + heard + letters / 3 + 50  # a system prompt and marks of about 50 tokens


def load(
    sources: Sequence[Source],
    make: Callable[[Sample, torch.Generator], Any],
    *,
    batch_tokens: float,
    seed: int,
    world: World,
    workers: int = 0,
) -> Loader:
    """This rank's batches, lists of what `make` gives, of about `batch_tokens` tokens of the Talker, alike in length."""
    plan = Plan(Mixture(sources, seed=seed), Buckets(batch_tokens, edges=EDGES))
    return Loader(plan, make, list, rank=world.rank, world=world.size, workers=workers)
