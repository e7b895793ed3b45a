"""c3_vocoder: nano's mel to wave from any recordings; `--set vocoder.adversarial=false` where there is no GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.config import Code2WavConfig, nano, tiny
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Source
from thinktalk.recipes.recipe import Recipe
from thinktalk.training import speech_batches
from thinktalk.training.c3_vocoder import VocoderConfig, VocoderModules, VocoderStage
from thinktalk.training.discriminators import Discriminators
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World

__all__ = ["VocoderRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class VocoderRecipe(Recipe):
    """The numbers of the run."""

    out: str = "out/c3_vocoder"
    steps: int = 100_000
    shards: str = "corpus/train-*.tar"
    """Shards of recordings, a pattern."""
    size: Literal["nano", "tiny"] = "nano"
    """Whose vocoder is trained."""
    batch_seconds: float = 90.0
    """Sound that a batch takes its crops from, one of each recording."""
    workers: int = 0
    """Processes that read; 0 reads in this one."""
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=2e-4, beta1=0.8, beta2=0.99, weight_decay=0.01, clip=500.0, ema=0.999
        )
    )

    def code2wav(self) -> Code2WavConfig:
        """What is trained."""
        config = (nano if self.size == "nano" else tiny)().code2wav
        assert config is not None
        return config

    def stage(self) -> VocoderStage:
        """A fresh BigVGAN, and judges if it is to please any."""
        torch.manual_seed(self.seed)
        config = self.code2wav()
        vocoder = BigVGAN(config.vocoder)
        judges = Discriminators() if self.vocoder.adversarial else None
        return VocoderStage(VocoderModules(vocoder, judges), config.mel, self.vocoder)

    def data(self, world: World) -> Loader:
        """This rank's recordings."""
        return speech_batches.recordings(
            Source(self.shards), self.code2wav().sample_rate,
            batch_seconds=self.batch_seconds, seed=self.seed, world=world, workers=self.workers,
        )  # fmt: skip


def recipe() -> VocoderRecipe:
    """The defaults."""
    return VocoderRecipe()
