"""Marking: what a world expects and what a model said -> right or wrong, by the words that decide.

    mark("colour", "What colour is the star?", "The star is red.", "It's red!")  ->  expected "red", said "red": right

A model is asked what it sees, not for a wording: "Red." is as right as the sentence the world has. Each task has the words
that decide it and how they are taken; what the question itself names decides nothing. Naming two things where one is asked
for is wrong. Tasks without a rule are right when they say the same words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from thinktalk.data.synth import facts
from thinktalk.data.synth.drawing import COLOURS, SHAPES
from thinktalk.data.synth.noises import EVENTS, TEXTURES
from thinktalk.data.synth.pictures import plural
from thinktalk.metrics.wer import normalise

__all__ = ["RULES", "Mark", "Rule", "guessing", "mark"]

UNKNOWN = "unknown"
"""What is meant by an answer that says it is not known."""
BETWEEN = " + "


@dataclass(frozen=True, slots=True)
class Mark:
    """One answer."""

    right: bool
    expected: str
    """The words that decide, as they should be."""
    said: str
    choices: int = 0
    """How many answers the question itself offers ("the bell or the drum"); 0 where it offers none."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What decides an answer."""

    means: Mapping[str, str] = field(default_factory=dict)
    """Words (in normal form) and what they mean."""
    take: str = "set"
    """ "set": all of them, in any order; "row": in their order; "first"; "last"."""
    numbers: bool = False
    """Numbers decide, too."""
    asked: bool = False
    """Whether words that the question names decide nevertheless."""
    names: bool = False
    """The things of the set decide, too."""


def mark(task: str, question: str, expected: str, said: str, *, names: Collection[str] = ()) -> Mark:  # fmt: skip
    """Whether `said` answers `question` as `expected` does; `names` are all things that may be in a picture."""
    if task == "spelling":
        wanted, got = _letters(expected), _letters(said)
        return Mark(wanted == got, wanted, got)
    if task == "digits":
        wanted, got = ("".join(re.findall(r"\d", normalise(text))) for text in (expected, said))
        return Mark(wanted == got, wanted, got)
    rule = RULES.get(task)
    if rule is None or _is_unknown(expected) or _is_unknown(said):
        wanted, got = (UNKNOWN if _is_unknown(text) else normalise(text) for text in (expected, said))  # fmt: skip
        return Mark(wanted == got, wanted, got)
    words = _vocabulary(task, tuple(sorted(names)) if rule.names else ())
    named = set(_found(words, rule, question))
    wanted = _taken(rule, _found(words, rule, expected), named)
    drop = bool(wanted)
    if not wanted:  # "An orange is orange": the question names the answer
        wanted = _taken(rule, _found(words, rule, expected), set())
    got = _taken(rule, _found(words, rule, said), named if drop else set())
    choices = len(named) if wanted and set(wanted) <= named and len(named) > 1 else 0
    return Mark(bool(wanted) and wanted == got, BETWEEN.join(wanted), BETWEEN.join(got), choices)


def guessing(tasks: Sequence[str], marks: Sequence[Mark]) -> float:
    """What the best guess gets that knows the task and the question, but saw and heard nothing: the commonest answer of
    each task, or one of those that the question offers."""
    right = 0.0
    for task in dict.fromkeys(tasks):
        own = [m for t, m in zip(tasks, marks, strict=True) if t == task]
        commonest = Counter(m.expected for m in own).most_common(1)[0][1]
        right += max(commonest, sum(1 / m.choices for m in own if m.choices))
    return right / len(tasks)


def _taken(rule: Rule, found: Sequence[str], named: Collection[str]) -> tuple[str, ...]:
    if rule.take in ("first", "last"):
        return tuple(found[:1] if rule.take == "first" else found[-1:])
    own = [word for word in found if rule.asked or word not in named]
    return tuple(own) if rule.take == "row" else tuple(sorted(set(own)))


def _found(words: tuple[re.Pattern[str], Mapping[str, str]], rule: Rule, text: str) -> list[str]:
    """What the words of a text mean, in their order."""
    pattern, means = words
    plain = normalise(text.replace(":00", ""))
    return [means.get(m, m) for m in pattern.findall(plain)]


@lru_cache(maxsize=256)
def _vocabulary(task: str, names: tuple[str, ...]) -> tuple[re.Pattern[str], Mapping[str, str]]:
    """A pattern that finds the longest of a task's words first, so that Mexico City is not Mexico; and what they mean."""
    rule = RULES[task]
    means = {normalise(word): meaning for word, meaning in rule.means.items()}
    for name in names:
        means |= {normalise(name): name, normalise(plural(name)): name}
    longest_first = sorted(means, key=len, reverse=True)
    each = [re.escape(word) for word in longest_first] + ([r"\d+"] if rule.numbers else [])
    each = each or ["(?!)"]  # nothing decides: nothing is found
    return re.compile(rf"(?<!\w)(?:{'|'.join(each)})(?!\w)"), means


def _letters(text: str) -> str:
    """A word that is spelt letter by letter; all of it where it is not."""
    words = normalise(text).split()
    single = [word for word in words if len(word) == 1]
    return "".join(single or words)


def _is_unknown(text: str) -> bool:
    return "not know" in normalise(text)


# ----------------------------------------------------------------------------------------------------------------- rules


def _same(words: Collection[str]) -> dict[str, str]:
    """Each word and its plural mean the word."""
    return {form: word for word in words for form in (plural(word), word)}


def _meaning(**words: str) -> dict[str, str]:
    """meaning="one or other" turned round."""
    return {word: meaning for meaning, several in words.items() for word in several.split()}


NO = {"no": "0", "none": "0", "nothing": "0"}
YES = Rule(_meaning(yes="yes", no="no not"), "first")
SHAPE, COLOUR = _same(SHAPES), {colour: colour for colour in COLOURS}
NOISE = _same([*EVENTS, *TEXTURES])
FACTS = {w: w for table in (facts.COLOUR_OF, facts.SOUND_OF, facts.YOUNG_OF, facts.OPPOSITES) for w in table.values()}  # fmt: skip
TOLD = {w: w for w in (*facts.NAMES, *facts.PLACES)}
GREW = _meaning(grows="grow grows growing larger bigger", shrinks="shrink shrinks shrinking smaller")  # fmt: skip
ROSE = _meaning(rises="rise rises rising up upwards higher", falls="fall falls falling down downwards lower")  # fmt: skip
WAY = _meaning(left="left leftwards", right="right rightwards", up="up upwards", down="down downwards")  # fmt: skip
THERE = _meaning(appears="appear appears", vanishes="vanish vanishes disappear disappears")
HALVES = Rule(_meaning(first="first", second="second"), "first")
COUNT = Rule(NO, numbers=True)

RULES: dict[str, Rule] = {
    # pictures and objects
    "colour": Rule(COLOUR), "card": Rule(COLOUR), "shape": Rule(SHAPE), "count": COUNT,
    "relation": YES, "present": YES, "where": Rule(SHAPE, names=True),
    "describe": Rule(COLOUR | SHAPE, "row"), "what": Rule(names=True), "which": Rule(take="row", names=True),
    # videos, and videos with sound
    "direction": Rule(WAY), "order": Rule(SHAPE), "vanishing": Rule(SHAPE | THERE, asked=True),
    "bounces": Rule(_meaning(**{"1": "once", "2": "twice"}), numbers=True), "recolouring": Rule(COLOUR),
    "race": Rule(SHAPE), "growing": Rule(GREW, "first"), "which_sounds": Rule(SHAPE), "hit_sound": Rule(NOISE, "first"),
    "together": YES, "before_after": Rule(_meaning(before="before", after="after"), "first"),
    # sounds
    "sound": Rule(NOISE), "sound_count": COUNT, "pitch": Rule(ROSE, "first"), "louder": HALVES, "longer": HALVES,
    "higher": Rule(_meaning(higher="higher", lower="lower"), "first"), "sound_order": Rule(NOISE, "first"),
    "sequence": Rule(NOISE, "row"), "heard": YES,
    # questions
    "arithmetic": Rule(take="last", numbers=True), "comparison": Rule(take="first", numbers=True),
    "counting": Rule(take="row", numbers=True, asked=True), "clock": Rule(take="last", numbers=True),
    "capitals": Rule({w: w for pair in facts.CAPITALS.items() for w in pair}),
    "calendar": Rule({w: w for w in (*facts.DAYS, *facts.MONTHS)}), "facts": Rule(FACTS | NO, numbers=True),
    "memory": Rule(TOLD | NO, numbers=True), "unknown": Rule(),
}  # fmt: skip
