"""i2_eyes: the vision encoder of a model that begins from nothing, from shards of pictures and silent videos (docs/data.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from thinktalk.data.loader import Loader
from thinktalk.recipes.recipe import ModelRecipe
from thinktalk.training import seen_batches, thinker_batches
from thinktalk.training.i2_eyes import Eyes, EyesConfig, EyesStage
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World
from thinktalk.training.seen_batches import Labels, Views
from thinktalk.training.thinker_batches import Make

__all__ = ["EyesRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class EyesRecipe(ModelRecipe):
    """The numbers of the run."""

    out: str = "out/i2_eyes"
    steps: int = 20_000
    shards: str = "pictures/train-*.tar"
    """Patterns of shards, a comma between them; PATTERN@WEIGHT gives a share of tokens."""
    tokens: int = 3072
    """Tokens of a batch, pictures and words together."""
    workers: int = 0
    """Processes that read; 0 reads in this one."""
    reader_layers: int = 2
    """Layers of the reader, which is not kept."""
    views: Views = field(default_factory=Views)
    eyes: EyesConfig = field(default_factory=EyesConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3, ema=0.999))

    def stage(self) -> EyesStage:
        """The encoder of `start`, and heads for all names and colours there are in the shards."""
        config = self.config().thinker
        labels = Labels.of(thinker_batches.sources(self.shards, self.make()))
        vision = self.load("vision").vision
        torch.manual_seed(self.seed)
        return EyesStage(Eyes(vision, config, labels, reader_layers=self.reader_layers), self.eyes)

    def data(self, world: World) -> Loader:
        """This rank's pictures, each time as they might have been taken elsewhere."""
        make = self.make()
        sources = thinker_batches.sources(self.shards, make)
        return seen_batches.loader(
            sources, make, Labels.of(sources), views=self.views, tokens=self.tokens, seed=self.seed,
            world=world, workers=self.workers,
        )  # fmt: skip

    def make(self) -> Make:
        """How a sample becomes a conversation: without the system prompt of speech."""
        return Make(self.tokenizer(), self.config(), max_tokens=self.tokens, speech=0.0)


def recipe() -> EyesRecipe:
    """The defaults."""
    return EyesRecipe()
