"""Spoken and typed questions: the same items, their difference paired, and each skill; a missing set is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from thinktalk.data.samples import Sample
from thinktalk.data.synth.ogg import opus
from thinktalk.errors import InputError
from thinktalk.eval import controls
from thinktalk.eval.bench import Bench
from thinktalk.eval.heldout import HeldOut
from thinktalk.eval.suites import asked, nano_questions
from thinktalk.eval.suites.nano_questions import answer_questions, spoken, typed

SOUND = opus(np.sin(np.arange(8000) * 0.1).astype(np.float32) * 0.3, 16_000)
TURNS = [
    ("arithmetic", [("What is 3 plus 4?", "3 plus 4 is 7.")]),
    ("memory", [("My name is Anna.", "Hello, Anna."), ("What is my name?", "Your name is Anna.")]),
    ("capitals", [("Name the capital of Peru.", "The capital of Peru is Lima.")]),
]


def dialogue(number: int) -> Sample:
    task, turns = TURNS[number % len(TURNS)]
    messages = []
    for n, (_, answer) in enumerate(turns):
        messages += [{"role": "user", "content": [{"type": "audio", "audio": f"{n}.opus"}]}, {"role": "assistant", "content": answer}]  # fmt: skip
    record = {"messages": messages, "asked": [q for q, _ in turns], "task": task, "voice": "af_nova" if number % 2 else "af_heart"}  # fmt: skip
    media = {f"{n}.opus": SOUND + bytes([number]) for n in range(len(turns))}
    return Sample(where=f"d/{number}", record=json.loads(json.dumps(record)), media=media)


class Held(HeldOut):
    def dialogues(self):
        return [dialogue(n) for n in range(12)]


class NoneHeld(HeldOut):
    def dialogues(self):
        raise InputError("kokoro: cannot be had")


@pytest.fixture
def bench(tmp_path: Path, tiny_checkpoint: str) -> Bench:
    import thinktalk

    held = Held(folder=tmp_path / "data", n=12)
    return Bench(omni=thinktalk.load(tiny_checkpoint, parts=("thinker",)), model="tiny", sum="0", held=held, out=tmp_path / "out", n=12)  # fmt: skip


def test_typed_are_the_words_of_the_spoken():
    sample = dialogue(1)
    heard, read = spoken(0, sample), typed(0, sample)
    assert len(controls.media_of(heard.messages)) == 2 and not controls.media_of(read.messages)
    assert [m["content"] for m in read.messages] == ["My name is Anna.", "Hello, Anna.", "What is my name?"]  # fmt: skip
    assert (heard.key, heard.words, heard.expected) == (read.key, read.words, read.expected)
    assert sample.messages[-1]["content"] == heard.expected not in str(heard.messages)


def test_rows_and_their_difference(bench, monkeypatch):
    """One who knows every typed question, and of the spoken ones only those with one turn."""
    answers = {q: a for _, turns in TURNS for q, a in turns}
    by_sound = {s.media["0.opus"]: s.messages[-1]["content"] for s in bench.held.dialogues() if s.record["task"] != "memory"}  # fmt: skip

    def told(bench, messages, *, alter=None):
        last = messages[-1]["content"]
        if isinstance(last, str):
            return answers[last]
        return by_sound.get(last[0]["audio"], "What?") if last else "What?"

    monkeypatch.setattr(asked, "ask", told)
    rows = {row.key: row for row in answer_questions(bench)}
    assert rows["questions/typed"].value.value == 1.0
    assert rows["questions/spoken"].value.value == pytest.approx(8 / 12)
    assert rows["questions/gap"].value.value == pytest.approx(4 / 12)
    assert rows["questions/gap"].value.low > 0
    assert rows["questions/spoken~text only"].value.value == 0.0
    assert rows["questions/spoken"].note == "known voices 67 % of 6, new voices 67 % of 6"
    assert rows["questions/spoken/memory"].value.value == 0.0
    assert rows["questions/typed/memory"].value.value == 1.0


def test_a_real_model_is_asked(bench, monkeypatch):
    bench.n = 2
    monkeypatch.setattr(nano_questions, "_draw", lambda *_: None)
    rows = {row.key: row for row in answer_questions(bench)}
    assert len(rows["questions/spoken"].tops) == 2 and not rows["questions/spoken"].faults
    assert (
        "says nothing of hearing" in rows["questions/gap"].missing
    )  # a random model is no good listener


def test_a_set_that_cannot_be_made_is_said(bench, tmp_path):
    bench.held = NoneHeld(folder=tmp_path)
    assert all("cannot be had" in row.missing for row in answer_questions(bench))
