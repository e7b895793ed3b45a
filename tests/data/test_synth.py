"""Worlds made from seeds: answers that are true, splits that do not leak, bytes that are the same again."""

from __future__ import annotations

import io
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thinktalk.data.checking import check_shards
from thinktalk.data.mixture import expand
from thinktalk.data.prompts import split_of
from thinktalk.data.samples import parse
from thinktalk.data.shards import scan
from thinktalk.data.synth import facts, pictures, text
from thinktalk.data.synth.world import fill, make_world, record_of
from thinktalk.errors import ConfigError

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


def colours_seen(png: bytes) -> Counter[str]:
    """Pixels of each pure colour."""
    pixels = np.asarray(Image.open(io.BytesIO(png))).reshape(-1, 3)
    names = {rgb: name for name, rgb in pictures.COLOURS.items()}
    return Counter(names[p] for p in map(tuple, pixels.tolist()) if p in names)


def test_pictures_show_what_the_answer_says():
    draw = random.Random(0)
    for _ in range(25):
        item = pictures.colour(draw)
        colour = item.answer.strip(".").split()[-1]
        seen = colours_seen(item.media()["png"])
        assert seen[colour] > 30
        assert len(seen) == int(item.content.split()[-1])
        assert item.fields["shape"] in item.answer
        named = pictures.shape(draw)
        assert colours_seen(named.media()["png"])[named.fields["colour"]] > 30
        relation = pictures.relation(draw)
        assert relation.answer.startswith("No,") == (" not " in relation.answer)


def test_a_count_is_the_number_of_shapes(monkeypatch):
    scenes = []
    monkeypatch.setattr(pictures, "paint", lambda scene, ground: scenes.append(scene) or b"")
    paint = lambda item: item.media() and item  # noqa: E731
    draw = random.Random(0)
    for _ in range(100):
        item = paint(pictures.count(draw))
        kind = item.fields["kind"]
        seen = sum(s.shape == kind for s in scenes[-1])
        assert pictures.NUMBERS[seen] in item.answer.split(), (item, seen)
    answers = Counter(pictures.count(draw).answer.split()[2] for _ in range(300))
    assert set(answers) == set(pictures.NUMBERS)
    # relations: the coordinates decide
    for _ in range(100):
        item = paint(pictures.relation(draw))
        one, other = scenes[-1]
        dx, dy = pictures.PLACES[item.fields["word"]]
        holds = (one.x - other.x) * dx + (one.y - other.y) * dy > 0
        assert item.answer.startswith("Yes") == holds


@pytest.mark.parametrize("world", [text.ask, pictures.ask])
def test_shards_of_a_world(world, tmp_path):
    paths, skills = make_world(world, tmp_path / "a", counts=COUNTS, seed=1)
    report = check_shards(tmp_path / "a")
    assert report.faults == [] and report.samples == sum(COUNTS.values()) == skills.total()
    assert len(skills) == (len(text.SKILLS) if world is text.ask else 4)
    again, _ = make_world(world, tmp_path / "b", counts=COUNTS, seed=1)
    other, _ = make_world(world, tmp_path / "c", counts=COUNTS, seed=2)

    def read(files: list[str]) -> list[bytes]:
        return [Path(f).read_bytes() for f in files]

    assert read(paths) == read(again) != read(other)


def questions(out, split: str) -> set[str]:
    samples = (parse(e) for path in expand(f"{out}/{split}-*.tar") for e in scan(path).entries)
    return {str(s.messages[0]["content"]) for s in samples}


def test_no_test_content_and_no_test_wording_is_trained(tmp_path):
    make_world(text.arithmetic, tmp_path, counts={"train": 400, "test": 60})
    train, test = questions(tmp_path, "train"), questions(tmp_path, "test")

    def contents(asked: set[str]) -> set[str]:
        return {re.search(r"\d+ \w+ \d+", q)[0] for q in asked}

    def frames(asked: set[str]) -> set[str]:
        return {re.sub(r"\d+ \w+ \d+", "#", q) for q in asked}

    assert not contents(train) & contents(test) and not frames(train) & frames(test)
    assert {split_of(c, salt="arithmetic") for c in contents(train)} == {"train"}


def test_a_split_without_contents_is_refused(tmp_path):
    only = text.Item("one", "the only question", ("Ask?", "Ask!"), "Yes.")
    absent = "test" if split_of(only.content, salt="one") != "test" else "dev"
    with pytest.raises(ConfigError, match=f"are not of the split {absent}"):
        make_world(lambda draw: only, tmp_path, counts={absent: 1})
    with pytest.raises(ConfigError, match=r"splits .*extra.* are unknown"):
        make_world(text.ask, tmp_path, counts={"extra": 1})
    assert list(tmp_path.iterdir()) == []
