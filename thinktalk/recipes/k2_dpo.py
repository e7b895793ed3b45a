"""k2_dpo: the Talker says things several times, a judge listens, and it learns to prefer what was heard right.

Its own pairs are found first, into OUT/pairs (more than one round: start from the result, with another seed); then they
are learned. With `pairs` the search is left out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from thinktalk.code2wav.speaker import Voice
from thinktalk.data.loader import Loader
from thinktalk.errors import ConfigError, InputError
from thinktalk.recipes.talker_recipe import TalkerRecipe, has_words, source
from thinktalk.training.judges import judge_of
from thinktalk.training.k1_icl import InContext, Sentences
from thinktalk.training.k2_dpo import GUARDED, PreferenceStage
from thinktalk.training.losses import Preference
from thinktalk.training.mining import Mined, mine
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World
from thinktalk.training.scoring import MiningConfig
from thinktalk.training.talker_batches import Prefers
from thinktalk.weights.model import OmniModel
from thinktalk.weights.voices import DEFAULT

__all__ = ["PreferenceRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class PreferenceRecipe(TalkerRecipe):
    """The numbers of the run; `shards` and `dialogues` are what is to be said, their codes are not needed."""

    out: str = "out/k2_dpo"
    steps: int = 500
    pairs: str = ""
    """Shards of pairs that were found before; found now if empty."""
    judge: str = "reader:out/c1_tokenizer"
    """Who listens: reader:RUN of c1_tokenizer, or whisper:DIR."""
    mining: MiningConfig = field(default_factory=MiningConfig)
    preference: Preference = GUARDED
    batch_tokens: float = 3000.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-6))

    def stage(self) -> PreferenceStage:
        """The Talker of `start`, held to what it was."""
        return PreferenceStage(self.model(), preference=self.preference, cache=self.states or None)

    def data(self, world: World) -> Loader:
        """This rank's pairs, found first if there are none yet."""
        found = source(self.pairs or self.find(world))
        return self.loaded([found], Prefers(self.kit()), world)

    def find(self, world: World) -> str:
        """The pattern of the shards of pairs, after every rank has made its own."""
        directory = Path(self.out) / "pairs"
        model = self.model().to(world.device)
        rate = float(self._code2wav().codes_per_second)
        judge = judge_of(self.judge, codes_per_second=rate, speaker=self._speaker)
        sources = self.sources(has_words)
        sentences, total = Sentences.of(sources), Mined()
        for number, some in enumerate(sources):
            make = InContext(self.kit(), sentences, self.context)
            place = directory / ("sentences", "dialogues")[number]
            total += mine(
                model, some, make, judge, place, self.mining, seed=self.seed, rank=world.rank, ranks=world.size,
                watch=_tell if world.leads else lambda mined: None,
            )  # fmt: skip
        every = sum((Mined(**numbers) for numbers in world.gather(vars(total))), Mined())
        if not every.pairs:
            raise InputError(f"{directory}: {every.tried} tasks gave no pair (mean error {every.error:.2f}, of the best {every.best:.2f}), expected some; train k1 longer, or raise mining.samples, mining.worst_chosen or mining.temperature")  # fmt: skip
        return ",".join(str(path) for path in sorted(directory.glob("*/*.tar")))

    def _code2wav(self):
        code2wav = self.config().code2wav
        if code2wav is None:
            raise ConfigError(f"{self.start}: has no code2wav in its configuration, expected one; start from a checkpoint that speaks")  # fmt: skip
        return code2wav

    def _speaker(self) -> tuple[OmniModel, Voice]:
        """What a judge of waves listens to."""
        model = self.load("code2wav")
        return model, model.voices[DEFAULT]


def _tell(mined: Mined) -> None:
    print(f"pairs {mined.pairs} of {mined.tried} tasks  error {mined.error:.3f}  best {mined.best:.3f}", file=sys.stderr, flush=True)  # fmt: skip


def recipe() -> PreferenceRecipe:
    """The defaults."""
    return PreferenceRecipe()
