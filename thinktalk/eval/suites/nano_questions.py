"""Questions: the same ones spoken and typed -> answers, marked; how much is lost by hearing, and by which skill.

    spoken      every turn of the user is sound                  typed       the same words
    not heard   the turns are empty                              shuffled    the sound of another question of that skill

Half of the speakers are never heard in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from thinktalk.data.samples import Sample
from thinktalk.errors import InputError
from thinktalk.eval.bench import Bench
from thinktalk.eval.figures import draw_bars
from thinktalk.eval.heldout import is_new
from thinktalk.eval.rows import Row
from thinktalk.eval.suites.asked import ARM, Asked, Question, measure, rows_of, sure
from thinktalk.metrics.intervals import wilson

__all__ = ["ABILITIES", "answer_questions", "spoken", "typed"]

SPOKEN, TYPED = "questions, spoken", "the same questions, typed"
REACH = ("70 %", "85 %", "95 %")
GAP = ("15 points", "6 points", "2 points")


def answer_questions(bench: Bench) -> Iterator[Row]:
    """Spoken, typed, their difference, and each skill."""
    try:
        samples = bench.held.dialogues()[: bench.n]
    except InputError as error:
        for key, title, reach in (("spoken", SPOKEN, REACH), ("gap", "typed minus spoken", GAP)):
            yield Row(key=f"questions/{key}", title=title, reach=reach, missing=str(error))
        return
    heard = measure(bench, "questions/spoken", [spoken(n, s) for n, s in enumerate(samples)])
    read = measure(bench, "questions/typed", [typed(n, s) for n, s in enumerate(samples)], arms=())
    rows, (plain,) = rows_of(bench, "questions/spoken", SPOKEN, heard, reach=REACH), rows_of(bench, "questions/typed", TYPED, read)  # fmt: skip
    rows = [replace(row, note=_voices(samples, row)) if ARM not in row.key else row for row in rows]
    yield from rows
    yield plain
    gap = dict(key="questions/gap", title="typed minus spoken, paired", lower_is_better=True, reach=GAP, seed=bench.seed, keys=plain.keys)  # fmt: skip
    if sum(plain.tops) < len(plain.tops) / 2:
        yield Row(**gap, missing="fewer than half of the typed ones are right, so the difference says nothing of hearing")  # fmt: skip
    else:
        yield Row(**gap, tops=plain.tops, other_tops=rows[0].tops, seconds=rows[0].seconds + plain.seconds)  # fmt: skip
    yield from _skills(bench, heard[""], "spoken")
    yield from _skills(bench, read[""], "typed")
    _draw(bench, {"spoken": heard[""], "typed": read[""]})


def spoken(number: int, sample: Sample) -> Question:
    """A dialogue as it was recorded. Its words are known to who marks, not to the model."""
    *asked, answer = sample.resolved()
    return Question(key=f"dialogues/{number:05d}", task=sample.record["task"], messages=asked, words=sample.record["asked"][-1], expected=answer["content"])  # fmt: skip


def typed(number: int, sample: Sample) -> Question:
    """The same with its words in the place of the sound."""
    question, words = spoken(number, sample), iter(sample.record["asked"])
    messages = [{**m, "content": next(words)} if m["role"] == "user" else m for m in question.messages]  # fmt: skip
    return replace(question, messages=messages)


def _voices(samples: Sequence[Sample], row: Row) -> str:
    groups: dict[bool, list[float]] = {False: [], True: []}
    for sample, right in zip(samples, row.tops, strict=True):
        groups[is_new(sample)].append(right)
    told = [f"{name} voices {100 * sum(g) / len(g):.0f} % of {len(g)}" for name, g in (("known", groups[False]), ("new", groups[True])) if g]  # fmt: skip
    return ", ".join(told)


def _by_skill(asked: Asked) -> dict[str, list[tuple[str, float, float]]]:
    """(key, right, seconds) of each item, by skill."""
    skills: dict[str, list[tuple[str, float, float]]] = {}
    for question, told, result in zip(asked.questions, asked.marks, asked.results, strict=True):
        skills.setdefault(question.task, []).append((question.key, float(told.right), result["seconds"]))  # fmt: skip
    return dict(sorted(skills.items()))


def _skills(bench: Bench, asked: Asked, how: str) -> Iterator[Row]:
    for skill, items in _by_skill(asked).items():
        keys, right, seconds = zip(*items, strict=True)
        yield Row(key=f"questions/{how}/{skill}", title=f"questions, {how}: {skill}", tops=right, keys=keys, interval=sure(right), seed=bench.seed, seconds=sum(seconds))  # fmt: skip


def _draw(bench: Bench, ways: dict[str, Asked]) -> None:
    bars = {
        how: {skill: wilson(sum(right > 0 for _, right, _ in items), len(items)) for skill, items in _by_skill(asked).items()}
        for how, asked in ways.items()
    }  # fmt: skip
    draw_bars(bench, "questions", bars, "Questions answered right, by skill")


ABILITIES = {"questions": answer_questions}
