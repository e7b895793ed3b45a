"""k0_realign: the Talker for a Thinker that was fine-tuned (ms-swift, LLaMA-Factory, s1_sft), from texts alone.

`start` is the tuned checkpoint, `old` the one it was tuned from. The old system speaks the answers of `dialogues` into
OUT/spoken first; then the Talker of `start` learns to say them as the old one does, after the tuned Thinker.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from thinktalk.data.loader import Loader
from thinktalk.errors import ConfigError, InputError
from thinktalk.recipes.talker_recipe import TalkerRecipe, has_words, source
from thinktalk.training.k0_realign import RealignStage
from thinktalk.training.k1_icl import Context, InContext, Sentences
from thinktalk.training.mining import Mined, speak
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World
from thinktalk.weights.model import OmniModel

__all__ = ["RealignRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class RealignRecipe(TalkerRecipe):
    """The numbers of the run; `shards` are sentences to be read, `dialogues` conversations, written or spoken."""

    out: str = "out/k0_realign"
    steps: int = 2000
    old: str = ""
    """The checkpoint as it was before its Thinker was tuned."""
    shards: str = ""
    dialogues: str = "shards/train-*.tar"
    spoken: str = ""
    """Shards with answer_codes that the old system has said; made now if empty."""
    rows: int = 16
    """Answers that are spoken side by side."""
    context: Context = field(default_factory=lambda: Context(lead=0.0, repeat=0.0))
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4))

    def before(self) -> RealignRecipe:
        """The same recipe, of the old checkpoint. ConfigError where none is named."""
        if not self.old:
            raise ConfigError("old: no checkpoint, expected the one that the Thinker was tuned from; name it with --set old=DIR")  # fmt: skip
        return replace(self, start=self.old)

    def stage(self) -> RealignStage:
        """The Talker of `start`, and the old system that it shall sound like."""
        return RealignStage(self.model(), self.before().model(), eos_weight=self.eos_weight, cache=self.states or None)  # fmt: skip

    def data(self, world: World) -> Loader:
        """This rank's lines, spoken first if they have not been yet."""
        spoken = source(self.spoken or self.speak(world))
        make = InContext(self.kit(), Sentences({}, {}), self.context, fixed=bool(self.states))
        return self.loaded([spoken], make, world)

    def speak(self, world: World) -> str:
        """The pattern of the shards of spoken answers, after every rank has made its own."""
        old = self.before()
        model: OmniModel = old.model().to(world.device)
        directory, total = Path(self.out) / "spoken", Mined()
        kit = replace(old.kit(), codes_by=None)
        voices = sorted(kit.voices)
        if not voices:
            raise ConfigError(f"{self.old}: has no voice, expected one that can speak; take a checkpoint with voices")  # fmt: skip
        make = InContext(kit, Sentences({}, {}), self.context)
        for number, some in enumerate(self.sources(has_words)):
            total += speak(
                model, some, make, voices, directory / str(number), rows=self.rows, seed=self.seed,
                rank=world.rank, ranks=world.size, watch=_tell if world.leads else lambda spoken: None,
            )  # fmt: skip
        if not sum((Mined(**numbers) for numbers in world.gather(vars(total))), Mined()).pairs:
            raise InputError(f"{directory}: the old system stopped in none of its answers, expected some; give it shorter answers, or the right checkpoint as old")  # fmt: skip
        return ",".join(str(path) for path in sorted(directory.glob("*/*.tar")))


def _tell(spoken: Mined) -> None:
    print(f"spoken {spoken.pairs} of {spoken.tried} answers", file=sys.stderr, flush=True)


def recipe() -> RealignRecipe:
    """The defaults."""
    return RealignRecipe()
