"""c3_vocoder: a model's mel to wave, from any recordings; a GAN where there is a GPU, spectra alone where there is none."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import torch

from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.data.loader import Loader
from thinktalk.recipes.codec_recipe import CodecRecipe
from thinktalk.training import speech_batches
from thinktalk.training.c3_vocoder import VocoderConfig, VocoderModules, VocoderStage
from thinktalk.training.discriminators import Discriminators
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World

__all__ = ["VocoderRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class VocoderRecipe(CodecRecipe):
    """The numbers of the run."""

    out: str = "out/c3_vocoder"
    steps: int = 100_000
    batch_seconds: float = 90.0
    """Sound that a batch takes its crops from, one of each recording."""
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            lr=2e-4, beta1=0.8, beta2=0.99, weight_decay=0.01, clip=500.0, ema=0.999
        )
    )

    def stage(self) -> VocoderStage:
        """BigVGAN, and judges if it is to please any."""
        torch.manual_seed(self.seed)
        config = self.code2wav()
        vocoder = BigVGAN(config.vocoder) if self.fresh else copy.deepcopy(self.load("vocoder").vocoder)  # fmt: skip
        assert vocoder is not None
        adversarial = self.vocoder.adversarial
        if adversarial is None:
            adversarial = self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available())  # fmt: skip
        judges = Discriminators() if adversarial else None
        modules = VocoderModules(vocoder.requires_grad_(), judges)
        return VocoderStage(modules, config.mel, replace(self.vocoder, adversarial=adversarial))

    def data(self, world: World) -> Loader:
        """This rank's recordings."""
        return speech_batches.recordings(
            self.sources(), self.code2wav().sample_rate, **self.reading(world)
        )


def recipe() -> VocoderRecipe:
    """The defaults."""
    return VocoderRecipe()
