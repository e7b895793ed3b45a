"""Asked: a world and a seed -> questions of its test, each asked whole and with controls -> rows of the table.

    questions(bench, "pictures-colour", pictures.colour)  ->  [Question]
    measure(bench, "pictures/colour", questions, arms=...)  ->  {"": Rows of marks, "text only": ..., "shuffled": ...}

An arm is the same question with something taken away (controls.py). All arms ask the same items, so that a row and its
arms compare pair by pair; a row "pictures/colour~text only" stands beside "pictures/colour" in the report.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from thinktalk import pipeline
from thinktalk.config import OmniConfig
from thinktalk.data.samples import Sample, parse
from thinktalk.data.shards import scan
from thinktalk.data.synth.world import Item as WorldItem
from thinktalk.data.synth.world import World, make_world
from thinktalk.errors import InputError
from thinktalk.eval import controls
from thinktalk.eval.bench import Bench
from thinktalk.eval.items import Item, Result
from thinktalk.eval.marking import guessing, mark
from thinktalk.eval.rows import Row
from thinktalk.eval.worst import worst
from thinktalk.metrics.intervals import Interval, wilson
from thinktalk.prompt import Prompt, build_prompt

__all__ = ["ARM", "Asked", "Question", "ask", "ended", "greedy", "made", "measure", "mixed", "question_of", "questions", "rows_of", "sure"]  # fmt: skip

ARM = "~"
"""Between the key of a row and the name of its arm."""
LONGEST_TEXT = (
    48  # tokens: no answer of the worlds is longer, and one that does not end is wrong anyway
)
NEW_STYLES = ("striped", "slanted", "twemoji")
Alter = Callable[[Prompt], Prompt]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and what is known of it."""

    key: str
    task: str
    messages: controls.Messages = field(repr=False)
    """With media, without the answer."""
    words: str
    """The question's own, as far as it is written."""
    expected: str
    names: tuple[str, ...] = field(default=(), repr=False)
    """All things of the set."""
    style: str = ""


@dataclass(frozen=True)
class Asked:
    """A whole set with one arm: a result an item, marked."""

    questions: Sequence[Question]
    results: Sequence[Result]

    @property
    def marks(self):
        """A Mark an item; what could not be answered said nothing."""
        return [mark(q.task, q.words, q.expected, r.get("said", ""), names=q.names) for q, r in zip(self.questions, self.results, strict=True)]  # fmt: skip

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(expected, said) an item, by the words that decide."""
        return [(m.expected, m.said) for m in self.marks]


# ------------------------------------------------------------------------------------------------------------------ sets


def mixed(world: World, *skills: Callable[[random.Random], WorldItem]) -> World:
    """The questions of a world that are of these skills, each as often as the others."""
    return _Mixed(getattr(world, "__module__", "mixed"), skills)


@dataclass
class _Mixed:
    name: str
    skills: Sequence[Callable[[random.Random], WorldItem]]

    def __call__(self, draw: random.Random) -> WorldItem:
        return draw.choice(self.skills)(draw)


def made(bench: Bench, name: str, world: World) -> list[Sample]:
    """The test of a world, `bench.n` samples, made where it is not there. Smaller ones are the beginning of larger ones."""
    folder = bench.held.folder / f"{name}-{bench.seed}-{bench.n}"
    if not bench.held.make and not folder.exists():
        raise InputError(f"{folder}: is not there, expected a held-out set; measure without --no-make")  # fmt: skip
    paths, _ = make_world(world, folder, counts={"test": bench.n}, seed=bench.seed)
    return [parse(entry) for path in paths for entry in scan(path).entries]


def questions(bench: Bench, name: str, world: World) -> list[Question]:
    """The questions of a world's test. Errors: InputError (the world's packages cannot be had)."""
    samples = made(bench, name, world)
    names = tuple(sorted({thing["name"] for s in samples for thing in s.record.get("things", ())}))
    return [question_of(f"{name}/{n:05d}", sample, names) for n, sample in enumerate(samples)]


def question_of(key: str, sample: Sample, names: tuple[str, ...] = ()) -> Question:
    """A sample whose last message is the answer."""
    *asked, answer = sample.resolved()
    content = asked[-1]["content"]
    words = content if isinstance(content, str) else " ".join(p["text"] for p in content if p["type"] == "text")  # fmt: skip
    return Question(key=key, task=sample.record["task"], messages=asked, words=words, expected=answer["content"], names=names, style=sample.record.get("style", ""))  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------- ask


def ask(bench: Bench, messages: controls.Messages, *, alter: Alter | None = None) -> str:
    """What the model writes, greedily; `alter` changes its prompt. Errors: InputError."""
    omni = bench.omni
    prompt = build_prompt(messages, tokenizer=omni.tokenizer, config=omni.config, speech=False)
    prompts = [alter(prompt) if alter else prompt]
    return ended(pipeline.answer(omni.model, omni.tokenizer, prompts, greedy(omni.config)))[0].text.strip()  # fmt: skip


def greedy(config: OmniConfig, *, longest: int = LONGEST_TEXT) -> pipeline.Options:
    """Options of a written answer of at most so many tokens."""
    limit = min(longest, config.generation.max_text_tokens)
    generation = replace(config.generation, max_text_tokens=limit)
    return pipeline.Options(generation=generation, greedy=True, speech=False)


def ended(answering: Generator[Any, None, T]) -> T:
    """What a generator returns at its end."""
    while True:
        try:
            next(answering)
        except StopIteration as stop:
            return stop.value


def measure(bench: Bench, name: str, asked: Sequence[Question], *, arms: Sequence[str] = ("text only", "shuffled")) -> dict[str, Asked]:  # fmt: skip
    """Every question as it is (arm "") and in each arm; results are kept, so that a run that was killed goes on."""
    return {arm: _measured(bench, name, list(asked), arm) for arm in ("", *arms)}


def _measured(bench: Bench, name: str, asked: list[Question], arm: str) -> Asked:
    # by the words that decide: "The star is red" and "The ring is red" are one answer
    decide = [mark(q.task, q.words, q.expected, "", names=q.names).expected for q in asked]
    lender = controls.others(decide, [q.task for q in asked], seed=bench.seed)
    ids = bench.omni.config.thinker.ids

    def work(item: Item) -> dict[str, Any]:
        n = item.content
        messages, alter = asked[n].messages, None
        match arm:
            case "":
                pass
            case "text only":
                messages = controls.without_media(messages)
            case "shuffled":
                messages = controls.others_media(messages, asked[lender[n]].messages)
            case "eyes only":
                messages = controls.deaf(messages)
            case "shifted sound":
                alter = partial(controls.shifted_sound, seed=n)
            case "scrambled times":
                alter = partial(controls.scrambled_times, ids=ids, seed=n)
            case _:
                raise AssertionError(f"arm {arm!r} is unknown")
        return {"said": ask(bench, messages, alter=alter)}

    items = [Item(q.key, n) for n, q in enumerate(asked)]
    # who lends its media to whom depends on how many there are
    more = {"of": len(asked)} if arm == "shuffled" else {}
    label = f"{name}{ARM}{arm}" if arm else name
    return Asked(
        asked, bench.results(label.replace(" ", "_"), items, work, only="text", arm=arm, **more)
    )


# ------------------------------------------------------------------------------------------------------------------ rows


def rows_of(bench: Bench, key: str, title: str, arms: dict[str, Asked], *, reach: tuple[str, str, str] = ("", "", "")) -> list[Row]:  # fmt: skip
    """The row, and one for each arm."""
    rows = []
    for arm, asked in arms.items():
        marks, results = asked.marks, asked.results
        right = [float(m.right) for m in marks]
        told = [{"key": q.key, "question": q.words, "expected": q.expected, **r} for q, r in zip(asked.questions, results, strict=True)]  # fmt: skip
        rows.append(
            Row(
                key=f"{key}{ARM}{arm}" if arm else key,
                title=f"{title}, {arm}" if arm else title,
                tops=right,
                interval=sure(right),
                keys=[q.key for q in asked.questions],
                reach=("", "", "") if arm else reach,
                seed=bench.seed,
                seconds=sum(r["seconds"] for r in results),
                chance=guessing([q.task for q in asked.questions], marks),
                faults=sum("fault" in r for r in results),
                worst=() if arm else worst(told, right, perfect=1.0),
                note="" if arm else _by_style(asked.questions, right),
            )
        )
    return rows


def sure(right: Sequence[float]) -> Interval | None:
    """Wilson's interval where all or none are right, since drawing them again gives no width; else None."""
    return wilson(int(sum(right)), len(right)) if len(set(right)) == 1 else None


def _by_style(asked: Sequence[Question], right: Sequence[float]) -> str:
    """What is right of drawings in a style that nobody trained with."""
    groups: dict[bool, list[float]] = defaultdict(list)
    for question, value in zip(asked, right, strict=True):
        groups[any(style in NEW_STYLES for style in question.style.split("+"))].append(value)
    if len(groups) < 2:
        return ""
    share = {new: f"{100 * sum(g) / len(g):.0f} % of {len(g)}" for new, g in groups.items()}
    return f"known styles {share[False]}, new style {share[True]}"
