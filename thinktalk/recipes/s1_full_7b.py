"""s1_full_7b: every weight of Qwen2.5-Omni-7B's language model learns, sharded over eight GPUs of 80 GB; see docs/finetune.md.

torchrun --nproc-per-node 8 -m thinktalk.cli.main train s1_full_7b --set shards=shards/train-*.tar --out out/tuned
"""

from __future__ import annotations

from dataclasses import replace

from thinktalk.recipes import s1_sft
from thinktalk.recipes.s1_sft import SftRecipe
from thinktalk.training.optim import OptimConfig

__all__ = ["recipe"]


def recipe() -> SftRecipe:
    """A tenth of the rate of LoRA; half a million tokens a step on eight GPUs."""
    return replace(
        s1_sft.recipe(),
        start="Qwen/Qwen2.5-Omni-7B", out="out/s1_full_7b", shards="shards/train-*.tar",
        steps=1000, accumulate=8, tokens=8192, precision="bf16", recompute=True,
        optim=OptimConfig(lr=1e-5, weight_decay=0.1), cache_mb=8192, workers=4, save_seconds=1800.0,
    )  # fmt: skip
