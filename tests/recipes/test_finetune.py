"""docs/finetune.md from end to end: rows of ms-swift and LLaMA-Factory -> shards -> LoRA -> a checkpoint that answers so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from thinktalk.cli.main import main
from thinktalk.config import omni_3b, omni_7b, tiny
from thinktalk.recipes.recipe import find_recipe
from thinktalk.weights.convert import convert
from thinktalk.weights.files import TensorFiles
from thinktalk.weights.random import random_checkpoint

ROWS = Path(__file__).parents[2] / "examples" / "finetune.jsonl"
QUESTION, ANSWER = "Where is the bakery?", "At the end of Mill Street, beside the bridge."


def said(capsys, model: Path) -> str:
    assert main(["chat", "--model", str(model), "--text", QUESTION, "--no-speech", "--greedy", "--max-text-tokens", "40", "--json"]) == 0  # fmt: skip
    return json.loads(capsys.readouterr().out)["text"]


def test_rows_to_answers(tmp_path, capsys):
    base = random_checkpoint(tiny(), tmp_path / "base")
    assert main(["data", "make", "--chats", str(ROWS), "--out", str(tmp_path / "shards"), "--json"]) == 0  # fmt: skip
    made = json.loads(capsys.readouterr().out)
    assert made["samples"] == {"train": 10, "dev": 0, "test": 2} and not made["faults"]
    settings = [
        f"start={base}", f"shards={tmp_path}/shards/train-*.tar", "lora.rank=16", "lora.alpha=32", "tokens=512", "steps=120",
        "optim.lr=2e-2", "speech=0", "cache_mb=64", "device=cpu",
    ]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    assert main(["train", "s1_sft", *words, "--out", str(tmp_path / "run"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    model = Path(told["model"])
    assert said(capsys, base) != ANSWER  # who was not taught does not know
    assert said(capsys, model) == ANSWER
    # what did not learn is the same file, and the adapter beside it, as PEFT writes it, gives the same weights
    convert(base, tmp_path / "merged", lora=[tmp_path / "run" / "adapter"])
    ours, theirs, before = (TensorFiles(d) for d in (model, tmp_path / "merged", base))
    assert set(ours) == set(theirs) == set(before)
    changed = set()
    for name in ours:
        one, other = ours.read(name), theirs.read(name)
        # float32 products of rank 16, merged by two pieces of code
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
        if not torch.equal(one, before.read(name)):
            changed.add(name)
    assert len(changed) == 7 * tiny().thinker.text.num_layers
    assert all("thinker.model.layers" in name and name.endswith("weight") for name in changed)


@pytest.mark.parametrize(
    ("recipe", "gpus", "least", "most"),
    [("s1_lora_7b", 1, 20e9, 40e9), ("s1_full_7b", 8, 25e9, 60e9)],
)
def test_the_worked_recipes_fit(recipe, gpus, least, most, monkeypatch, capsys):
    """One card of 40 GB and eight of 80 GB, with room for what cannot be counted. The layers are real, there are fewer."""
    from dataclasses import replace

    from thinktalk.training import memory

    real = memory.activations

    def few(config, tuning):  # blocks are alike: from two and three of them follow all
        def of(count: int) -> int:
            text = replace(config.thinker.text, num_layers=count)
            return real(replace(config, thinker=replace(config.thinker, text=text)), tuning)

        two, three = of(2), of(3)
        return two + (three - two) * (config.thinker.text.num_layers - 2)

    monkeypatch.setattr(memory, "activations", few)
    assert main(["train", recipe, "--memory", str(gpus), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gpus"] == gpus and least < told["total"] < most
    assert find_recipe(recipe).precision == "bf16"
    assert omni_3b().thinker.text.num_layers > omni_7b().thinker.text.num_layers


def test_memory_of_other_recipes_is_not_told(capsys):
    assert main(["train", "sums", "--memory", "1"]) == 2
    assert "sums is not counted, expected s1_sft" in capsys.readouterr().err
