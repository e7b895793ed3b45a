"""c1_tokenizer: nano's speech tokenizer from shards of transcribed speech (docs/data.md), phones and voices where they are known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from thinktalk.config import Wav2CodeConfig, nano
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Source
from thinktalk.data.speech import Augmentation
from thinktalk.recipes.recipe import Recipe
from thinktalk.training import speech_batches
from thinktalk.training.c1_tokenizer import (
    TokenizerHeads,
    TokenizerModules,
    TokenizerStage,
    Weights,
)
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World
from thinktalk.wav2code.encoder import SpeechTokenizer

__all__ = ["TokenizerRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe(Recipe):
    """The numbers of the run."""

    out: str = "out/c1_tokenizer"
    steps: int = 20_000
    shards: str = "corpus/train-*.tar"
    """Shards of speech, a pattern."""
    batch_seconds: float = 60.0
    """Sound in a batch."""
    workers: int = 0
    """Processes that read; 0 reads in this one."""
    width: int = 256
    num_layers: int = 4
    """Layers before the quantiser."""
    head_layers: int = 2
    """Layers after it, which are not kept."""
    weights: Weights = field(default_factory=Weights)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3, beta2=0.98))

    def tokenizer(self) -> Wav2CodeConfig:
        """What is trained."""
        base = nano().wav2code
        assert base is not None
        return replace(base, width=self.width, ffn_width=4 * self.width, num_layers=self.num_layers)

    def stage(self) -> TokenizerStage:
        """A fresh tokenizer, its heads as large as the corpus' alphabet."""
        alphabet, config = speech_batches.Alphabet(Source(self.shards)), self.tokenizer()
        torch.manual_seed(self.seed)
        heads = TokenizerHeads(
            config, labels=len(alphabet.letters), phones=len(alphabet.phones) + 1,
            speakers=len(alphabet.voices) + 1, num_layers=self.head_layers,
        )  # fmt: skip
        return TokenizerStage(TokenizerModules(SpeechTokenizer(config), heads), weights=self.weights)  # fmt: skip

    def data(self, world: World) -> Loader:
        """This rank's speech, each time as it might have sounded elsewhere."""
        source = Source(self.shards)
        return speech_batches.speech(
            source, speech_batches.Alphabet(source), augmentation=Augmentation(),
            batch_seconds=self.batch_seconds, seed=self.seed, world=world, workers=self.workers,
        )  # fmt: skip


def recipe() -> TokenizerRecipe:
    """The defaults."""
    return TokenizerRecipe()
