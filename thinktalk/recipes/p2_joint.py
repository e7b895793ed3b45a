"""p2_joint: encoders and Thinker learn from text, sound, pictures and video together; of plain text every token."""

from __future__ import annotations

from dataclasses import dataclass, field

from thinktalk.recipes.thinker_recipe import ThinkerRecipe
from thinktalk.training.optim import OptimConfig
from thinktalk.training.p2_joint import JointStage

__all__ = ["JointRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class JointRecipe(ThinkerRecipe):
    """The numbers of the run."""

    out: str = "out/p2_joint"
    steps: int = 20_000
    tasks: str = "transcribe,repeat,read"
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3))

    def stage(self) -> JointStage:
        """Encoders and Thinker of `start`."""
        return JointStage(self.load("thinker"), **self.options())


def recipe() -> JointRecipe:
    """The defaults."""
    return JointRecipe()
