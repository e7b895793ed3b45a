"""c2_flow: nano's codes to mel from shards of speech whose codes are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from thinktalk.code2wav.dit import DiT
from thinktalk.config import Code2WavConfig, nano, tiny
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Source
from thinktalk.recipes.recipe import Recipe
from thinktalk.training import speech_batches
from thinktalk.training.c2_flow import FlowConfig, FlowStage
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World

__all__ = ["FlowRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class FlowRecipe(Recipe):
    """The numbers of the run."""

    out: str = "out/c2_flow"
    steps: int = 40_000
    shards: str = "corpus/train-*.tar"
    """Shards of speech with codes, a pattern."""
    size: Literal["nano", "tiny"] = "nano"
    """Whose code2wav is trained."""
    batch_seconds: float = 60.0
    """Sound in a batch."""
    workers: int = 0
    """Processes that read; 0 reads in this one."""
    flow: FlowConfig = field(default_factory=FlowConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3, ema=0.999))

    def code2wav(self) -> Code2WavConfig:
        """What is trained."""
        config = (nano if self.size == "nano" else tiny)().code2wav
        assert config is not None
        return config

    def stage(self) -> FlowStage:
        """A fresh DiT."""
        torch.manual_seed(self.seed)
        return FlowStage(DiT(self.code2wav().dit), self.flow)

    def data(self, world: World) -> Loader:
        """This rank's utterances."""
        config = self.code2wav()
        return speech_batches.utterances(
            Source(self.shards), config.mel, repeats=config.dit.repeats,
            batch_seconds=self.batch_seconds, seed=self.seed, world=world, workers=self.workers,
        )  # fmt: skip


def recipe() -> FlowRecipe:
    """The defaults."""
    return FlowRecipe()
