"""One rank of the runs of test_talker_ranks.py: talker_worker.py STAGE CHECKPOINT OUT STEPS ACCUMULATE; prints JSON on rank 0."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "data"))
from talker_house import codes_of, house, lines
from toys import Drawn

from thinktalk.training.journal import read_journal
from thinktalk.training.k0_realign import RealignStage
from thinktalk.training.k2_dpo import PreferenceStage
from thinktalk.training.k3_speaker import SpeakerStage
from thinktalk.training.loop import TrainConfig, Trainer
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import join, leave
from thinktalk.training.talker_batches import Line, Pair
from thinktalk.training.talker_stage import TalkerStage
from thinktalk.weights.hf import load


def run(name: str, checkpoint: str, out: str, steps: int, accumulate: int) -> dict[str, object]:
    """Train a stage of the Talker; its losses, and some numbers of all that was trained."""
    torch.set_num_threads(1)
    world = join("cpu")
    model, kit = house(checkpoint)
    given = [replace(x, said=torch.arange(len(x.codes)) // 2) for x in lines(kit)]

    def draw(generator: torch.Generator) -> list[Line] | list[Pair]:
        """Two lines of unequal length, or two pairs of them."""
        chosen = torch.randperm(len(given), generator=generator)[:2].tolist()
        if name != "k2":
            return [given[n] for n in chosen]
        other = Line(given[0].prompt, given[0].reply, torch.tensor(codes_of(9, 7)), given[0].voice)
        return [Pair(given[n], Line(given[n].prompt, given[n].reply, other.codes, given[n].voice)) for n in chosen]  # fmt: skip

    stages = {
        "k0": lambda: RealignStage(model, load(checkpoint, parts=("thinker", "talker"))),
        "k1": lambda: TalkerStage(model),
        "k1 guided": lambda: TalkerStage(model, guide=0.5),
        "k2": lambda: PreferenceStage(model),
        "k3": lambda: SpeakerStage(model, sorted(kit.voices.values())),
    }
    stage = stages[name]()
    # eps: the gradient of a key's bias is nearly nothing but rounding, which Adam would blow up to whole steps
    config = TrainConfig(
        out=out, steps=steps, accumulate=accumulate, save_seconds=0, device="cpu",
        optim=OptimConfig(lr=1e-3, eps=1e-4),
    )  # fmt: skip
    data = Drawn(draw, count=100, rank=world.rank, ranks=world.size)
    trainer = Trainer(stage, data, config, world=world)
    trainer.run()
    whole = {n: t.double().flatten()[:: max(1, t.numel() // 20)].tolist() for n, t in trainer.weights().items()}  # fmt: skip
    sharded = sum(hasattr(t, "full_tensor") for t in trainer.tensors().values())
    found = {"lines": read_journal(f"{out}/metrics.jsonl") if world.leads else [], "whole": whole}
    leave(world)
    return {**found, "sharded": sharded, "leads": world.leads}


if __name__ == "__main__":
    result = run(*sys.argv[1:4], *map(int, sys.argv[4:6]))
    if result.pop("leads"):
        print(json.dumps(result))
