"""c1_inverse: a speech tokenizer for a checkpoint whose codes nobody can make: its decoder is asked which ones it wants to hear."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from thinktalk.config import Wav2CodeConfig, exact_div
from thinktalk.data.loader import Loader
from thinktalk.errors import ConfigError
from thinktalk.recipes.codec_recipe import CodecRecipe
from thinktalk.training import speech_batches
from thinktalk.training.c1_inverse import InverseConfig, InverseModules, InverseStage
from thinktalk.training.c1_tokenizer import TokenizerHeads, take_ears
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World
from thinktalk.training.reader import FILE
from thinktalk.training.stage import Stage
from thinktalk.wav2code.encoder import SpeechTokenizer

__all__ = ["InverseRecipe", "recipe"]

ENCODER_RATE = 50
"""Encoder frames a second, which `pool` averages to codes."""


@dataclass(frozen=True, kw_only=True)
class InverseRecipe(CodecRecipe):
    """The numbers of the run."""

    out: str = "out/c1_inverse"
    steps: int = 50_000
    num_layers: int = 6
    """Layers of the encoder, which otherwise has the sizes of `start`'s ears and begins with their lower layers."""
    head_layers: int = 2
    """Layers that listen to the chosen codes for what was said; they are not shipped."""
    first_code: int = 0
    """The lowest code to choose."""
    choices: int = 0
    """Codes to choose among; 0: all from first_code on that the decoder knows."""
    inverse: InverseConfig = field(default_factory=InverseConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-4, beta2=0.98, ema=0.999))

    def tokenizer_config(self) -> Wav2CodeConfig:
        """The sizes of what is looked for."""
        ears, decoder = self.config().thinker.audio, self.code2wav()
        rate = decoder.codes_per_second
        if rate.denominator != 1 or ENCODER_RATE % rate.numerator:
            raise ConfigError(f"{self.start}: {rate} codes a second, expected a part of the encoder's {ENCODER_RATE} frames; take another start")  # fmt: skip
        return Wav2CodeConfig(
            num_mels=ears.num_mels, width=ears.width, num_layers=self.num_layers, num_heads=ears.num_heads,
            ffn_width=ears.ffn_width, block_frames=ears.block_frames, pool=exact_div(ENCODER_RATE, rate.numerator),
            first_code=self.first_code, choices=self.choices or decoder.dit.num_codes - self.first_code,
        )  # fmt: skip

    def stage(self) -> InverseStage:
        """An encoder that begins with the ears, and the decoder as it is."""
        config, model = self.tokenizer_config(), self.load("audio", "dit")
        assert model.audio is not None and model.dit is not None
        alphabet = speech_batches.Alphabet(self.sources(), self.out)
        torch.manual_seed(self.seed)
        tokenizer = SpeechTokenizer(config)
        take_ears(tokenizer, model.audio)
        heads = TokenizerHeads(config, labels=len(alphabet.letters), num_layers=self.head_layers)
        return InverseStage(InverseModules(tokenizer, model.dit, heads), self.inverse)

    def data(self, world: World) -> Loader:
        """This rank's speech, heard and to be spoken; codes in the shards are only counted, as what would have been right."""
        sources, config = self.sources(), self.code2wav()
        return speech_batches.both(
            sources, speech_batches.Alphabet(sources, self.out), speech_batches.Mels(sources, config.mel), **self.reading(world)
        )  # fmt: skip

    def export(self, stage: Stage, directory: str | Path) -> None:
        """The checkpoint, and beside it what reads its codes aloud."""
        assert isinstance(stage, InverseStage)
        super().export(stage, directory)
        stage.reader().save(Path(directory).parent / FILE)


def recipe() -> InverseRecipe:
    """The defaults."""
    return InverseRecipe()
