"""p3_long: p2 at 32768 tokens a row, with long sound and video."""

from __future__ import annotations

from dataclasses import dataclass, field

from thinktalk.recipes.thinker_recipe import ThinkerRecipe
from thinktalk.training.optim import OptimConfig
from thinktalk.training.p3_long import LongStage

__all__ = ["LongRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class LongRecipe(ThinkerRecipe):
    """The numbers of the run."""

    out: str = "out/p3_long"
    steps: int = 2_000
    tokens: int = 32_768
    recompute: bool = True
    tasks: str = "transcribe,repeat,read"
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4))

    def stage(self) -> LongStage:
        """Encoders and Thinker of `start`."""
        return LongStage(self.load("thinker"), **self.options())


def recipe() -> LongRecipe:
    """The defaults."""
    return LongRecipe()
