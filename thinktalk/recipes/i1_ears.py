"""i1_ears: the audio encoder of a model that begins from nothing, from shards of transcribed speech (docs/data.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Source
from thinktalk.data.speech import Augmentation
from thinktalk.recipes.recipe import ModelRecipe
from thinktalk.training import speech_batches
from thinktalk.training.i1_ears import Ears, EarsConfig, EarsStage, Words
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World

__all__ = ["EarsRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class EarsRecipe(ModelRecipe):
    """The numbers of the run."""

    out: str = "out/i1_ears"
    steps: int = 20_000
    shards: str = "corpus/train-*.tar"
    """Shards of speech, a pattern, or several with commas between."""
    batch_seconds: float = 60.0
    """Sound in a batch."""
    workers: int = 0
    """Processes that read; 0 reads in this one."""
    cache_mb: int = 256
    """Memory in which decoded sound waits for the next epoch, of each process that reads; an hour takes 230."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    ears: EarsConfig = field(default_factory=EarsConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3, beta2=0.98, ema=0.999))

    def source(self) -> Source:
        """The speech."""
        return Source([path for path in self.shards.split(",") if path])

    def stage(self) -> EarsStage:
        """The encoder of `start`, and heads as large as the corpus' alphabet."""
        alphabet = speech_batches.Alphabet(self.source(), self.out)
        encoder = self.load("audio").audio
        torch.manual_seed(self.seed)
        phones = len(alphabet.phones) + 1 if len(alphabet.phones) else 0
        words = self.words() if self.ears.words else None
        ears = Ears(encoder, labels=len(alphabet.letters), phones=phones, words=words)
        return EarsStage(ears, self.ears)

    def words(self) -> Words:
        """The tokens of `start`'s Thinker, which must have learnt to read for them to mean anything."""
        thinker = self.load("thinker").thinker
        assert thinker is not None
        return Words(thinker.embed.weight, self.tokenizer().encode)

    def data(self, world: World) -> Loader:
        """This rank's speech, each time as it might have sounded elsewhere."""
        source = self.source()
        return speech_batches.speech(
            source, speech_batches.Alphabet(source, self.out), augmentation=self.augmentation,
            batch_seconds=self.batch_seconds, seed=self.seed, world=world, workers=self.workers,
            cache_mb=self.cache_mb,
        )  # fmt: skip


def recipe() -> EarsRecipe:
    """The defaults."""
    return EarsRecipe()
