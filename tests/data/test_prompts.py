"""Tasks in natural language, and splits that never leak."""

from __future__ import annotations

import pytest
import torch

from thinktalk.data.prompts import TASKS, split_of, task_messages, wordings
from thinktalk.data.samples import Sample
from thinktalk.errors import ConfigError, InputError
from thinktalk.prompt import Medium, render

SAMPLE = Sample(where="a.tar/0", record={"text": "It costs {5} euros."}, media={"opus": b"sound"})
GOLDEN = [
    "train",
    "train",
    "train",
    "train",
    "train",
    "train",
    "train",
    "dev",
    "train",
    "train",
    "train",
    "train",
]


@pytest.mark.parametrize("task", TASKS)
def test_wordings_are_split(task):
    train, test = wordings(task), wordings(task, split="test")
    assert len(train) >= 5 and test and not set(train) & set(test)
    assert set(train) | set(test) == set(TASKS[task])


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_a_conversation(task):
    drawn = set()
    for seed in range(60):
        messages = task_messages(SAMPLE, task, torch.Generator().manual_seed(seed))
        assert messages[1] == {"role": "assistant", "content": SAMPLE.text}
        media = [s for s in render(messages, answer=False) if isinstance(s, Medium)]
        assert [m.source for m in media] == ([] if task == "read" else ["opus"])
        drawn.add(str(messages))
        assert task != "read" or SAMPLE.text in messages[0]["content"]
    assert len(drawn) >= 5
    test = task_messages(SAMPLE, task, torch.Generator().manual_seed(0), split="test")
    assert str(test) not in drawn


def test_what_a_task_needs_is_named():
    generator = torch.Generator()
    with pytest.raises(InputError, match=r"a.tar/1: has no text"):
        task_messages(Sample(where="a.tar/1", record={}), "read", generator)
    with pytest.raises(InputError, match=r"a.tar/1: has no sound"):
        task_messages(Sample(where="a.tar/1", record={"text": "x"}), "repeat", generator)
    with pytest.raises(ConfigError, match="have transcribe, repeat, read"):
        task_messages(SAMPLE, "sing", generator)


def test_split_of_is_the_same_for_ever():
    """Goldens: a changed hash would move test sentences into training."""
    assert [split_of(f"sentence {i}") for i in range(12)] == GOLDEN
    assert split_of("Good  Morning.") == split_of("good morning.")
    parts = [split_of(str(i)) for i in range(4000)]
    # 5 % of 4000 is 200; four standard deviations are 55
    assert abs(parts.count("test") - 200) < 55 and abs(parts.count("dev") - 200) < 55
    assert [split_of(str(i), salt="voice") for i in range(4000)] != parts
