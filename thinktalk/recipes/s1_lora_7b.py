"""s1_lora_7b: Qwen2.5-Omni-7B learns answers through LoRA on one GPU of 40 GB or more; docs/finetune.md walks through it.

thinktalk train s1_lora_7b --set shards=shards/train-*.tar --out out/tuned
"""

from __future__ import annotations

from dataclasses import replace

from thinktalk.recipes import s1_sft
from thinktalk.recipes.s1_sft import SftRecipe
from thinktalk.training.lora import LoraConfig
from thinktalk.training.optim import OptimConfig

__all__ = ["recipe"]


def recipe() -> SftRecipe:
    """What does not learn in bfloat16, adapters in float32, blocks computed again: 24 GB at 8192 tokens."""
    return replace(
        s1_sft.recipe(),
        start="Qwen/Qwen2.5-Omni-7B", out="out/s1_lora_7b", shards="shards/train-*.tar",
        steps=1000, accumulate=4, tokens=8192, lora=LoraConfig(rank=16, alpha=32.0),
        frozen="bfloat16", precision="bf16", recompute=True,
        optim=OptimConfig(lr=1e-4, weight_decay=0.0), cache_mb=8192, workers=8, save_seconds=900.0,
    )  # fmt: skip
