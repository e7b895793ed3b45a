"""The codec's stages in the real loop: turns, checkpoints, going on after an interruption bit by bit, bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import test_c1_tokenizer as c1
import test_c2_flow as c2
import test_c3_vocoder as c3
import torch

from thinktalk.training.loop import TrainConfig, Trainer
from thinktalk.training.optim import OptimConfig

STAGES = {
    "c1": (c1.make, c1.batch),
    "c2": (c2.make, c2.batch),
    "c3": (c3.make, c3.batch),
}


class Batches:
    """The same few batches for ever."""

    def __init__(self, make):
        self.make, self.given = make, 0

    def __iter__(self):
        while True:
            self.given += 1
            yield self.make(self.given % 3)

    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.given = state["given"]


def run(name: str, out: Path, *, steps: int, precision: str = "fp32", ema: float = 0.9):
    make, batch = STAGES[name]
    stage = make()
    seen: dict[int, float] = {}
    config = TrainConfig(
        out=str(out), steps=4, save_every=2, save_seconds=0, precision=precision,
        optim=OptimConfig(lr=1e-3, ema=ema),
    )  # fmt: skip
    trainer = Trainer(stage, Batches(batch), config)

    def watch(step, numbers):
        seen[step] = numbers["loss"]
        if step == steps:
            trainer.stop()

    trainer.watch = watch
    trainer.run()
    return stage, seen


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_goes_on_bit_by_bit(name, tmp_path):
    whole, all_losses = run(name, tmp_path / "whole", steps=4)
    _, first = run(name, tmp_path / "parts", steps=2)
    parts, rest = run(name, tmp_path / "parts", steps=4)
    assert 2 in first and 4 not in first and 4 in rest
    assert {**first, **rest} == all_losses
    for (n, a), b in zip(whole.modules.named_parameters(), parts.modules.parameters(), strict=True):
        assert torch.equal(a, b), n


@pytest.mark.parametrize("name", ["c1", "c2"])
def test_a_stage_learns_in_bfloat16(name, tmp_path):
    """The same losses but for rounding: what must be float32 (rounding to codes, errors, CTC) is."""
    _, full = run(name, tmp_path / "full", steps=2, ema=0.0)
    _, half = run(name, tmp_path / "half", steps=2, precision="bf16", ema=0.0)
    for step in (1, 2):
        # bfloat16 has 8 bits; a code near a border may fall on its other side
        assert half[step] == pytest.approx(full[step], rel=0.05)
        assert half[step] != full[step]
