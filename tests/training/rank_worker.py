"""One rank of the runs of test_parallel.py: rank_worker.py OUT STEPS ACCUMULATE [recompute] [bf16] [show]; prints JSON on rank 0."""

from __future__ import annotations

import json
import sys
import weakref

import torch
from torch.distributed.tensor import DTensor
from toys import Dialogues, Drawn, Sentences

from thinktalk.training.journal import read_journal
from thinktalk.training.loop import TrainConfig, Trainer
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import join, leave


def gathered(trainer: Trainer) -> tuple[dict[str, torch.Tensor], int]:
    """Trainer.weights(), and how many whole tensors that came from shards it held at a time."""
    alive, most, full_tensor = weakref.WeakSet(), 0, DTensor.full_tensor

    def counted(tensor: DTensor) -> torch.Tensor:
        nonlocal most
        whole = full_tensor(tensor)
        alive.add(whole)
        most = max(most, len(alive))
        return whole

    DTensor.full_tensor = counted
    try:
        weights = trainer.weights()
    finally:
        DTensor.full_tensor = full_tensor
    return {f"weights/{name}": tensor for name, tensor in weights.items()}, most


def run(out: str, steps: int, accumulate: int, *words: str) -> dict[str, object]:
    """Train the sentences; losses, metrics, and every trained tensor as sums and samples of its whole."""
    torch.set_num_threads(1)
    world = join("cpu")
    # eps: the gradient of a key's bias is nearly nothing but rounding, which Adam would blow up to whole steps
    config = TrainConfig(
        out=out, steps=steps, accumulate=accumulate, save_every=2, save_seconds=0, device="cpu",
        optim=OptimConfig(lr=3e-3, eps=1e-5, ema=0.5), recompute="recompute" in words,
        precision="bf16" if "bf16" in words else "fp32", show_every=2 if "show" in words else 0,
    )  # fmt: skip
    data = Drawn(Dialogues.draw, count=12, rank=world.rank, ranks=world.size)
    trainer = Trainer(Sentences(), data, config, world=world)
    trainer.run()
    whole = {}
    given, most_whole = gathered(trainer)
    for name, tensor in {**trainer.tensors(), **given}.items():
        full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        whole[name] = full.double().flatten()[:: max(1, full.numel() // 50)].tolist()
    held = world.gather((len(given), most_whole))
    sharded = sum(hasattr(t, "full_tensor") for t in trainer.tensors().values())
    lines = read_journal(f"{out}/metrics.jsonl") if world.leads else []
    leave(world)
    return {"lines": lines, "whole": whole, "sharded": sharded, "held": held, "leads": world.leads}


if __name__ == "__main__":
    found = run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
    if found.pop("leads"):
        print(json.dumps(found))
