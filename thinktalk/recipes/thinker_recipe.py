"""ThinkerRecipe: the numbers that p1_align, p2_joint, p3_long and s1_sft share, and how their batches are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thinktalk.data.loader import Loader
from thinktalk.data.speech import Augmentation
from thinktalk.errors import ConfigError
from thinktalk.recipes.recipe import ModelRecipe
from thinktalk.training.parallel import World
from thinktalk.training.thinker_batches import Make, loader, tasks_of

__all__ = ["ThinkerRecipe"]


@dataclass(frozen=True, kw_only=True)
class ThinkerRecipe(ModelRecipe):
    """A run that trains encoders, Thinker, or both on conversations and texts."""

    shards: str = "data/text/*.tar,data/speech/train-*.tar,data/pictures/train-*.tar"
    """Folders or patterns of shards, separated by commas; @NUMBER behind one is its weight, a share of tokens."""
    tokens: int = 8192
    """Tokens a batch, in one row; conversations that are longer are passed by."""
    learns: str = "audio,vision,thinker"
    """What is trained: beginnings of parameters' names, such as audio.proj or thinker.layers, separated by commas."""
    encoder_rate: float = 1.0
    """Learning rate of the encoders as a share of optim.lr."""
    length: float = 0.0
    """Weight of how unlike the Thinker's embeddings in length sounds and pictures are; for adapters that begin anew, 0.1."""
    guide: float = 0.0
    """Weight of guided attention (training/guide.py) for transcripts whose durations are known and for things whose boxes or times
    are; 0, as the report has it, for none."""
    cache_mb: int = 0
    """Memory for features of encoders that are not trained; 0 encodes every medium each time."""
    tasks: str = "transcribe"
    """What is asked of recordings with a text and no messages: transcribe, repeat, read; drawn anew each time."""
    speech: float = 0.5
    """Share of conversations under the system prompt of speech, where they bring none of their own."""
    spliced: float = 0.0
    """Share of those recordings that go over into another one of the same voice, cut between words whose times are known."""
    augment: bool = True
    """Rooms, noise and speed for sounds."""
    workers: int = 0
    """Processes that read; 0 reads in this one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        tasks_of(self.tasks)
        if self.tokens < 8:
            raise ConfigError(f"tokens is {self.tokens}, expected 8 or more")
        for name in ("speech", "spliced"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 to 1")

    def options(self) -> dict[str, Any]:
        """What every stage is told."""
        names = tuple(name.strip() for name in self.learns.split(",") if name.strip())
        return {"learns": names, "encoder_rate": self.encoder_rate, "cache_mb": self.cache_mb, "length": self.length, "guide": self.guide}  # fmt: skip

    def data(self, world: World) -> Loader:
        """This rank's rows."""
        make = Make(
            self.tokenizer(), self.config(), max_tokens=self.tokens, tasks=tasks_of(self.tasks),
            speech=self.speech, augmentation=Augmentation() if self.augment else None, guide=self.guide > 0, spliced=self.spliced,
        )  # fmt: skip
        return loader(
            self.shards, make, tokens=self.tokens, seed=self.seed, world=world, workers=self.workers,
            fixed=bool(self.compile),
        )  # fmt: skip
