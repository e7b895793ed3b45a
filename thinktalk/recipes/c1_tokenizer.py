"""c1_tokenizer: the speech tokenizer of a model, from shards of transcribed speech (docs/data.md), phones and voices where known."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch

from thinktalk.data.loader import Loader
from thinktalk.data.speech import Augmentation
from thinktalk.errors import ConfigError
from thinktalk.recipes.codec_recipe import CodecRecipe
from thinktalk.training import speech_batches
from thinktalk.training.c1_tokenizer import (
    TokenizerHeads,
    TokenizerModules,
    TokenizerStage,
    Weights,
)
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import Precision, World
from thinktalk.training.reader import FILE
from thinktalk.training.stage import Stage
from thinktalk.wav2code.encoder import SpeechTokenizer

__all__ = ["TokenizerRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe(CodecRecipe):
    """The numbers of the run."""

    out: str = "out/c1_tokenizer"
    steps: int = 10_000
    precision: Precision = "bf16"
    """Six tenths of the time on a CPU that knows bfloat16; rounding to codes and the losses stay float32."""
    from_ears: bool = True
    """A fresh tokenizer takes over the audio encoder of `start`, which hears already (i1_ears); else it begins with nothing."""
    head_layers: int = 2
    """Layers after the quantiser, which are not shipped; from ears, the upper ones of those."""
    cache_mb: int = 256
    """Memory in which decoded sound waits for the next epoch, of each process that reads; an hour takes 230."""
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(room=0.15, noise=0.3, microphone=0.0)
    )
    """How recordings may sound elsewhere; the noisy copies of the agreement are another matter."""
    weights: Weights = field(default_factory=Weights)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-4, beta2=0.98, ema=0.999))

    def stage(self) -> TokenizerStage:
        """The tokenizer, and heads as large as the speech's alphabet."""
        config = self.config().wav2code
        if config is None or config.choices:
            has = "none" if config is None else "one that chooses another decoder's codes (c1_inverse trains those)"  # fmt: skip
            raise ConfigError(f"{self.start}: expected the sizes of a speech tokenizer of its own, has {has}; take another start")  # fmt: skip
        alphabet = speech_batches.Alphabet(self.sources(), self.out)
        torch.manual_seed(self.seed)
        heads = TokenizerHeads(
            config, labels=len(alphabet.letters), phones=len(alphabet.phones) + 1 if len(alphabet.phones) else 0,
            speakers=len(alphabet.voices) + 1, num_layers=self.head_layers,
        )  # fmt: skip
        tokenizer = SpeechTokenizer(config) if self.fresh else copy.deepcopy(self.wav2code())
        modules = TokenizerModules(tokenizer, heads).requires_grad_()
        stage = TokenizerStage(modules, weights=self.weights)
        if self.fresh and self.from_ears:
            ears = self.load("audio").audio
            assert ears is not None
            stage.start_from(ears)
        return stage

    def data(self, world: World) -> Loader:
        """This rank's speech, each time as it might have sounded elsewhere."""
        sources = self.sources()
        return speech_batches.speech(
            sources, speech_batches.Alphabet(sources, self.out), augmentation=self.augmentation, cache_mb=self.cache_mb,
            **self.reading(world),
        )  # fmt: skip

    def export(self, stage: Stage, directory: str | Path) -> None:
        """The checkpoint, and beside it what reads codes aloud (training/reader.py)."""
        assert isinstance(stage, TokenizerStage)
        super().export(stage, directory)
        stage.reader().save(Path(directory).parent / FILE)


def recipe() -> TokenizerRecipe:
    """The defaults."""
    return TokenizerRecipe()
