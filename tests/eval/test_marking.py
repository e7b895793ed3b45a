"""Marking: the world's own answers are right in every wording, short answers too, and each kind of wrong answer is wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from thinktalk.data.synth import omni, pictures, sounds, text, videos
from thinktalk.data.synth.objects import Objects
from thinktalk.data.synth.things import Thing
from thinktalk.eval import marking
from thinktalk.eval.marking import RULES, guessing, mark

NAMES = ("cat", "toy fox", "cherry", "orange", "mouse", "hot dog", "dog", "bread")
THINGS = [Thing(n, "drawn", Path(f"{n}.png"), (64, 64), held) for n in NAMES for held in (False, True)]  # fmt: skip


def items():
    for world in (text, pictures, sounds, videos, omni):
        for skill in dict.fromkeys(world.SKILLS):
            yield pytest.param(skill, id=f"{world.__name__.rpartition('.')[2]}.{skill.__name__}")


@pytest.mark.parametrize("skill", list(items()))
def test_what_the_world_answers_is_right(skill):
    draw = random.Random(skill.__name__)
    expected = set()
    for _ in range(40):
        item = skill(draw)
        assert item.skill in RULES or item.skill in ("spelling", "digits")
        for wording in item.wordings:
            asked = wording.format(**item.fields)
            told = mark(item.skill, asked, item.answer, item.answer)
            assert told.right and told.expected, (asked, item.answer, told)
            assert not mark(item.skill, asked, item.answer, "Well.").right
            expected.add(told.expected)
    assert len(expected) > 1 or item.skill == "unknown", "one answer for all would always be right"


@pytest.mark.parametrize(
    "method", ["what", "which", "where", "relation", "count", "present", "card"]
)
def test_things_of_the_set_decide(method):
    draw, world = random.Random(3), Objects(THINGS)
    for _ in range(30):
        item = getattr(world, method)(draw)
        for wording in item.wordings:
            asked = wording.format(**item.fields)
            assert mark(item.skill, asked, item.answer, item.answer, names=NAMES).right
            assert not mark(item.skill, asked, item.answer, "A wolf.", names=NAMES).right


RIGHT = [
    ("colour", "What colour is the star?", "The star is red.", "It's RED!"),
    ("count", "How many rings are there?", "There are three rings.", "3"),
    ("count", "How many rings are there?", "There are no rings.", "None."),
    ("digits", "Read the number.", "The number is 407.", "four, zero, seven"),
    ("relation", "Is the star left of the ring?", "Yes, the star is left of the ring.", "Yes."),
    ("where", "What is above the ring?", "A red star is above the ring.", "Above the ring is a star."),
    ("spelling", "Spell dog.", "D O G.", "d-o-g"),
    ("capitals", "What is the capital of Mexico?", "The capital of Mexico is Mexico City.", "Mexico City"),
    ("capitals", "Mexico City is the capital of which country?", "Mexico City is the capital of Mexico.", "Mexico"),
    ("facts", "What colour is an orange?", "An orange is orange.", "Orange."),
    ("clock", "What time is it 3 hours after 2 o'clock?", "It is 5 o'clock.", "Five o'clock."),
    ("arithmetic", "What is 3 plus 4?", "3 plus 4 is 7.", "three plus four is seven"),
    ("unknown", "What is the age of my cousin?", "I do not know that.", "I don't know."),
    ("pitch", "Does the pitch rise or fall?", "The pitch rises.", "It goes up."),
    ("sound_order", "Which is first, the bell or the dog?", "The bell comes first.", "The bell, then the dog."),
    ("bounces", "How often?", "The ball bounces twice.", "2 times"),
    ("what is new", "Who?", "Two cats.", "2 cats"),
]  # fmt: skip
WRONG = [
    ("colour", "What colour is the star?", "The star is red.", "Red or blue."),
    ("colour", "What colour is the star?", "The star is red.", "The star."),
    ("count", "How many rings are there?", "There are three rings.", "Three or four."),
    ("digits", "Read the number.", "The number is 407.", "47"),
    ("relation", "Is the star left of the ring?", "No, the star is not left of the ring.", "Yes, it is left of the ring."),
    ("describe", "Describe it.", "I see a red star and a blue ring.", "I see a blue ring and a red star."),
    ("spelling", "Spell dog.", "D O G.", "D O C."),
    ("capitals", "What is the capital of Mexico?", "The capital of Mexico is Mexico City.", "The capital of Mexico is Mexico."),
    ("counting", "Count from 1 to 3.", "1, 2, 3.", "1, 3, 2."),
    ("memory", "What is my name?", "Your name is Anna.", "I do not know that."),
    ("memory", "What is my name?", "I do not know that.", "Your name is Anna."),
    ("vanishing", "Which shape appears or vanishes?", "The star vanishes.", "The star appears."),
    ("sound_order", "Which is first, the bell or the dog?", "The bell comes first.", "The bird comes first."),
]  # fmt: skip


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case[3])
def test_right_in_other_words(case):
    assert mark(*case).right


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case[3])
def test_wrong(case):
    assert not mark(*case).right


def test_what_guessing_gets():
    tasks = ["colour"] * 4 + ["sound_order"] * 2
    asked = "Which is first, the bell or the horn?"
    marks = [mark("colour", "Which?", f"It is {c}.", "") for c in ("red", "red", "red", "blue")]
    marks += [mark("sound_order", asked, f"The {n} comes first.", "") for n in ("bell", "horn")]
    assert marks[-1].choices == 2
    assert guessing(tasks, marks) == pytest.approx((3 + 1) / 6)


def test_planted_fault_naming_everything_would_be_right(monkeypatch):
    everything = "red green blue yellow orange purple black pink brown"
    assert not mark("colour", "Which colour?", "It is red.", everything).right
    monkeypatch.setattr(marking, "_taken", lambda rule, found, named: tuple(sorted(set(found) & {"red"})))  # fmt: skip
    assert mark(
        "colour", "Which colour?", "It is red.", everything
    ).right  # a bag of words falls for it
