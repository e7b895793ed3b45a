"""Worlds made from seeds: answers that are true, splits that do not leak, bytes that are the same again."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thinktalk.data.checking import check_shards
from thinktalk.data.mixture import expand
from thinktalk.data.prompts import split_of
from thinktalk.data.samples import parse
from thinktalk.data.shards import scan
from thinktalk.data.synth import drills, facts, omni, pictures, sounds, text, videos
from thinktalk.data.synth.further import further
from thinktalk.data.synth.world import Item, Only, fill, make_world, record_of
from thinktalk.errors import ConfigError, InputError

COUNTS = {"train": 50, "dev": 8, "test": 20}


def check_arithmetic(question: str, answer: str) -> None:
    a, name, b = re.search(r"(\d+) (plus|minus|times) (\d+)", question).groups()
    result = {"plus": int(a) + int(b), "minus": int(a) - int(b), "times": int(a) * int(b)}[name]
    assert answer == f"{a} {name} {b} is {result}." and result >= 0


@pytest.mark.parametrize("skill", text.SKILLS)
def test_text_answers_are_true(skill):
    draw = random.Random(0)
    for _ in range(200):
        item = skill(draw)
        question = fill(item, "train", draw)
        assert "{" not in question and "  " not in question and " ." not in question
        match item.skill:
            case "arithmetic":
                check_arithmetic(question, item.answer)
            case "comparison":
                a, b = map(int, re.findall(r"\d+", question))
                assert item.answer in (f"{max(a, b)} is larger.", f"{min(a, b)} is smaller.")
                assert item.answer.split()[-1][:-1] in question
            case "spelling":
                letters = item.answer.replace(" ", "").strip(".").lower()
                assert (letters[::-1] if "backwards" in question else letters) in question
            case "counting":
                numbers = [int(n) for n in item.answer.strip(".").split(", ")]
                assert [numbers[0], numbers[-1]] == [int(n) for n in re.findall(r"\d+", question)]
                assert set(np.diff(numbers)) in ({1}, {-1})
            case "clock":
                hours, hour = map(int, re.findall(r"\d+", question))
                then = hour + hours if "after" in question else hour - hours
                assert item.answer == f"It is {(then - 1) % 12 + 1} o'clock."
            case "memory" if item.before:
                told, what = item.before[0][0], item.answer.strip(".").split(maxsplit=2)[2]
                assert what.removeprefix("is ").removeprefix("in ").split()[-1] in told
            case "unknown" | "memory":
                assert item.answer == "I do not know that."
            case "capitals":
                city, country = re.search(r"capital of (.+) is (.+)\.|$", item.answer).groups()[
                    ::-1
                ]
                assert city is None or facts.CAPITALS[country] == city
    with pytest.raises(AssertionError):
        check_arithmetic("What is 2 plus 2?", "2 plus 2 is 5.")


@pytest.mark.parametrize("world", [text, drills, pictures, sounds, videos, omni])
def test_further_wordings_are_for_training_alone(world):
    draw = random.Random(0)
    known = 0
    for item in (skill(draw) for skill in world.SKILLS for _ in range(8)):
        more = further(item.wordings)
        asked = {w.format(**item.fields) for w in more}
        assert not asked & {w.format(**item.fields) for w in item.wordings}
        assert {fill(item, "train", draw) for _ in range(100)} & asked or not more
        assert not {fill(item, "test", draw) for _ in range(20)} & asked
        known += bool(more)
    assert known > 30 or world is drills, known
    item = text.capitals(draw)
    planted = replace(item, wordings=[item.wordings[0], *further(item.wordings)])
    asked = {w.format(**item.fields) for w in further(item.wordings)}
    assert {fill(planted, "test", draw) for _ in range(20)} & asked


def asked_in_both(skill, count: int = 400) -> set[str]:
    """Questions of `text` that a drill asks, too."""
    draw = random.Random(0)
    drilled = {item.content for item in (skill(draw) for _ in range(count))}
    return drilled & {text.ask(draw).content for _ in range(20 * count)}


def test_drills_are_true_and_are_no_questions_of_the_text():
    draw = random.Random(0)
    for skill in set(drills.SKILLS):
        for item in (skill(draw) for _ in range(100)):
            question, numbers = fill(item, "train", draw), [int(n) for n in re.findall(r"\d+", item.answer)]  # fmt: skip
            assert "{" not in question and "  " not in question
            match item.skill:
                case "arithmetic":
                    check_arithmetic(question, item.answer)
                case "clock":
                    many, hour = map(int, re.findall(r"\d+", question))
                    last = hour + many if "after" in question else hour - many
                    assert len(numbers) == many and numbers[-1] == (last - 1) % 12 + 1
                case "neighbours":
                    assert numbers[2] == (numbers[1] + numbers[0] if " more " in question else numbers[1] - numbers[0])  # fmt: skip
                case "letters" if numbers:
                    assert numbers == [len(item.answer.split()[0])]
                case "letters" if " letter of " in item.answer:
                    nth, word, which = re.fullmatch(r"The (\w+) letter of (\w+) is (\w)\.", item.answer).groups()  # fmt: skip
                    assert word[{"last": -1}.get(nth, 0) or drills.ORDINALS.index(nth)] == which.lower()  # fmt: skip
                case "letters":
                    spelt, word = item.answer.rstrip(".").split(" spells ")
                    assert spelt.replace(" ", "").lower() == word and spelt in question
                case "told":
                    assert item.answer.rstrip(".").split()[-1] in item.before[0][0]
                case "again":
                    assert item.answer[1:-1] in question
    # hours are the clock's own, each in the split in which the clock has it
    assert not any(asked_in_both(skill) for skill in set(drills.SKILLS) - {drills.hours})
    assert asked_in_both(drills.hours) and asked_in_both(text.spelling)
    assert all(drills.made_up(draw) not in facts.WORDS for _ in range(3000))


def test_some_skills_alone(tmp_path):
    asked = Only(text.ask, frozenset({"clock", "memory"}))
    draw = random.Random(0)
    assert {asked(draw).skill for _ in range(40)} == {"clock", "memory"}
    _, skills = make_world(asked, tmp_path / "some", counts={"train": 30}, jobs=1)
    assert set(skills) == {"clock", "memory"}
    with pytest.raises(InputError, match="another make"):
        make_world(text.ask, tmp_path / "some", counts={"train": 30})
    with pytest.raises(ConfigError, match="'clocks': is unknown; this world has arithmetic"):
        Only(text.ask, frozenset({"clocks"}))


def test_what_cannot_be_guessed_is_taught_and_what_was_told_is_remembered(tmp_path):
    paths, _ = make_world(text.capitals, tmp_path / "capitals", counts={"train": 400, "test": 40})
    train, test = (
        questions(tmp_path / "capitals", "train"),
        questions(tmp_path / "capitals", "test"),
    )
    asked = {name for q in test for name in facts.CAPITALS if name in q}
    assert asked and all(any(name in q for q in train) for name in asked) and not train & test
    draw = random.Random(0)
    items = [text.memory(draw) for _ in range(200)]
    turns = Counter(len(item.before) for item in items)
    assert set(turns) == {0, 1, 2} and turns[0] < 50
    record = record_of(next(i for i in items if len(i.before) == 2), "train", draw)
    assert [m["role"] for m in record["messages"]] == ["user", "assistant"] * 3
    assert paths


@pytest.mark.parametrize("module", [text, pictures])
def test_shards_of_a_world(module, tmp_path):
    world = module.ask
    counts = COUNTS if module is text else {"train": 16, "dev": 2, "test": 4}
    paths, skills = make_world(world, tmp_path / "a", counts=counts, seed=1)
    report = check_shards(tmp_path / "a")
    assert report.faults == [] and report.samples == sum(counts.values()) == skills.total()
    assert len(skills) == len(module.SKILLS) or module is pictures
    again, _ = make_world(world, tmp_path / "b", counts=counts, seed=1)
    other, _ = make_world(world, tmp_path / "c", counts=counts, seed=2)

    def read(files: list[str]) -> list[bytes]:
        return [Path(f).read_bytes() for f in files]

    assert read(paths) == read(again) != read(other)


def questions(out, split: str) -> set[str]:
    samples = (parse(e) for path in expand(f"{out}/{split}-*.tar") for e in scan(path).entries)
    return {str(s.messages[0]["content"]) for s in samples}


def test_no_test_content_and_no_test_wording_is_trained(tmp_path):
    make_world(text.arithmetic, tmp_path, counts={"train": 400, "test": 60})
    train, test = ({q for q in questions(tmp_path, split) if re.search(r"\d", q)} for split in ("train", "test"))  # fmt: skip

    def contents(asked: set[str]) -> set[str]:
        return {re.search(r"\d+ \w+ \d+", q)[0] for q in asked}

    def frames(asked: set[str]) -> set[str]:
        return {re.sub(r"\d+ \w+ \d+", "#", q) for q in asked}

    assert not contents(train) & contents(test) and not frames(train) & frames(test)
    assert {split_of(c, salt="arithmetic") for c in contents(train)} == {"train"}


def test_a_third_of_written_questions_are_in_the_words_of_speech(tmp_path):
    """Two plus three, for a model that will be asked aloud; the answer is written as ever, what has a picture is not changed."""
    item = Item("sums", "2 3", ("What is {a} plus {b}?", "Add {a} and {b}."), "2 plus 3 is 5.", {"a": 2, "b": 3}, before=[("I am 9.", "9 it is.")])  # fmt: skip
    draw, said = random.Random(0), 0
    for _ in range(300):
        told, nine, asked, answer = (m["content"] for m in record_of(item, "train", draw)["messages"])  # fmt: skip
        assert (told, nine, answer) in {("I am nine.", "9 it is.", "2 plus 3 is 5."), ("I am 9.", "9 it is.", "2 plus 3 is 5.")}  # fmt: skip
        assert ("two" in asked) == (told == "I am nine.") and ("2" in asked) != ("two" in asked)
        said += "two" in asked
    assert 70 < said < 130
    seen = replace(item, pixels={"png": (8, 8)})
    for _ in range(30):
        assert "2" in str(record_of(seen, "train", draw)["messages"][-2]["content"])


def test_a_split_without_contents_is_refused(tmp_path):
    only = text.Item("one", "the only question", ("Ask?", "Ask!"), "Yes.")
    absent = "test" if split_of(only.content, salt="one") != "test" else "dev"
    with pytest.raises(ConfigError, match=f"are not of the split {absent}"):
        make_world(lambda draw: only, tmp_path, counts={absent: 1})
    with pytest.raises(ConfigError, match=r"splits .*extra.* are unknown"):
        make_world(text.ask, tmp_path, counts={"extra": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_make_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    """Killed in the third shard: the first two are not made again, and all bytes are those of an unbroken make."""
    counts = {"train": 25, "test": 5}
    whole, _ = make_world(text.ask, tmp_path / "whole", counts=counts, shard_samples=10)
    asked = iter(range(23))

    def stops(draw: random.Random) -> text.Item:
        if next(asked, None) is None:
            raise KeyboardInterrupt
        return text.ask(draw)

    stops.__module__, stops.__qualname__ = text.ask.__module__, text.ask.__qualname__
    with pytest.raises(KeyboardInterrupt):
        make_world(stops, tmp_path / "broken", counts=counts, shard_samples=10)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "broken").glob("*.tar")}
    assert 1 <= len(before) < 4
    again, skills = make_world(text.ask, tmp_path / "broken", counts=counts, shard_samples=10)
    assert [Path(p).read_bytes() for p in again] == [Path(p).read_bytes() for p in whole]
    assert all(p.stat().st_mtime_ns == then for p, then in before.items())
    assert skills.total() == 30 - 10 * len(before)
    with pytest.raises(InputError, match="of another make"):
        make_world(text.ask, tmp_path / "broken", counts=counts, shard_samples=10, seed=1)


@pytest.mark.slow
def test_several_processes_make_the_same(tmp_path):
    counts = {"train": 30, "test": 10}
    one, skills = make_world(pictures.ask, tmp_path / "one", counts=counts, shard_samples=10)
    two, again = make_world(pictures.ask, tmp_path / "two", counts=counts, shard_samples=10, jobs=2)
    assert [Path(p).read_bytes() for p in one] == [Path(p).read_bytes() for p in two]
    assert skills == again
