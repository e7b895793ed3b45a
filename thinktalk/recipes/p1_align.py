"""p1_align: encoders learn the Thinker's language from pairs of sound or picture and text; adapters first, the Thinker frozen."""

from __future__ import annotations

from dataclasses import dataclass, field

from thinktalk.recipes.thinker_recipe import ThinkerRecipe
from thinktalk.training.optim import OptimConfig
from thinktalk.training.p1_align import AlignStage

__all__ = ["AlignRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class AlignRecipe(ThinkerRecipe):
    """The numbers of the run."""

    out: str = "out/p1_align"
    steps: int = 10_000
    shards: str = "data/speech/train-*.tar,data/pictures/train-*.tar"
    learns: str = "audio,vision"
    adapters_first: float = 0.3
    """Share of the run in which only the adapters learn."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3))

    def stage(self) -> AlignStage:
        """Encoders and Thinker of `start`."""
        return AlignStage(self.load("thinker"), adapters_first=self.adapters_first, **self.options())  # fmt: skip


def recipe() -> AlignRecipe:
    """The defaults."""
    return AlignRecipe()
