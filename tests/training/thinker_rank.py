"""One rank of test_thinker_ranks.py: thinker_rank.py OUT ACCUMULATE STAGE; prints JSON on rank 0."""

from __future__ import annotations

import json
import sys

import torch
from thinker_house import batch, fresh

from thinktalk.training.journal import read_journal
from thinktalk.training.loop import TrainConfig, Trainer
from thinktalk.training.lora import LoraConfig
from thinktalk.training.optim import OptimConfig
from thinktalk.training.p1_align import AlignStage
from thinktalk.training.p2_joint import JointStage
from thinktalk.training.parallel import join, leave
from thinktalk.training.s1_sft import SftStage

ROWS = (("sound",), ("text", "picture"), ("text",), ("both", "video"))
"""What the ranks meet in the same step: sound here, pictures there, neither at all."""


class Turns:
    """The rows in turn; of two ranks, one gets the even ones."""

    def __init__(self, rank: int, ranks: int):
        self.rank, self.ranks = rank, ranks

    def __iter__(self):
        for number in range(self.rank, len(ROWS), self.ranks):
            yield batch(*ROWS[number])

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def stage_of(name: str):
    torch.manual_seed(0)
    if name == "p1":
        return AlignStage(fresh(), adapters_first=0.5)
    return JointStage(fresh()) if name == "p2" else SftStage(fresh(), lora=LoraConfig(rank=4))


def run(out: str, accumulate: int, name: str) -> dict:
    """Four steps; losses and lengths of the gradient."""
    torch.set_num_threads(1)
    world = join("cpu")
    config = TrainConfig(
        out=out, steps=4, accumulate=accumulate, save_seconds=0, device="cpu", explosion=0,
        optim=OptimConfig(lr=3e-3, eps=1e-5),
    )  # fmt: skip
    Trainer(stage_of(name), Turns(world.rank, world.size), config, world=world).run()
    lines = read_journal(f"{out}/metrics.jsonl") if world.leads else []
    leave(world)
    return {"lines": [{k: line[k] for k in ("loss", "norm")} for line in lines], "leads": world.leads}  # fmt: skip


if __name__ == "__main__":
    found = run(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    if found.pop("leads"):
        print(json.dumps(found))
