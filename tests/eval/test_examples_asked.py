"""Examples: a dozen recordings, pictures and clips of the test, each with a question, its answer and a licence; they can be asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from thinktalk.data.prompts import split_of, wordings
from thinktalk.prompt import DEFAULT_SYSTEM, render

EXAMPLES = Path(__file__).parents[2] / "examples"
TOLD = json.loads((EXAMPLES / "asked" / "asked.json").read_text(encoding="utf-8"))


@pytest.fixture
def ask_py(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "ask", raising=False)
    import ask

    return ask


def test_all_files_are_told_of_and_small():
    files = {path.name for path in (EXAMPLES / "asked").iterdir()} - {"asked.json"}
    assert files == {one["file"] for one in TOLD} and len(files) >= 12
    assert sum(path.stat().st_size for path in (EXAMPLES / "asked").iterdir()) < 400_000
    assert {one["kind"] for one in TOLD} == {"image", "audio", "video"}
    assert all("Apache-2.0" in one["licence"] for one in TOLD)


@pytest.mark.parametrize("one", TOLD, ids=lambda one: one["file"])
def test_the_answer_is_right_and_another_is_not(ask_py, one):
    assert ask_py.marked(one, one["answer"]).right
    assert not ask_py.marked(one, "I do not know that.").right
    assert not ask_py.marked(one, "").right
    assert one["answer"] not in one["ask"]


def test_they_are_of_the_test():
    (sentence,) = (one for one in TOLD if one["task"] == "transcribe")
    assert split_of(sentence["answer"]) == "test"
    assert sentence["ask"] in wordings("transcribe", split="test")


def test_a_model_is_asked(ask_py, tiny_checkpoint):
    import thinktalk

    omni = thinktalk.load(tiny_checkpoint, parts=("thinker",))
    for kind in ("image", "audio", "video"):
        one = next(one for one in TOLD if one["kind"] == kind)
        segments = render(ask_py.messages(one))
        assert DEFAULT_SYSTEM in str(segments[1])
        assert isinstance(ask_py.ask(omni, one), str)
