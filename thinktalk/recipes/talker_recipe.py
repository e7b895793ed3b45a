"""What the recipes of the Talker share: a checkpoint, shards of speech whose codes are known, a Thinker that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from thinktalk.code2wav.speaker import Voice
from thinktalk.data.coding import fingerprint
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Source, weighted
from thinktalk.errors import ConfigError
from thinktalk.recipes.recipe import ModelRecipe
from thinktalk.training import talker_batches
from thinktalk.training.k1_icl import Context, InContext, Sentences
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World
from thinktalk.training.talker_batches import Kit, talker_cost
from thinktalk.training.talker_stage import TalkerStage
from thinktalk.weights.model import OmniModel
from thinktalk.weights.voices import own_voices

__all__ = ["TalkerRecipe", "has_codes", "has_words", "source"]

Keep = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, kw_only=True)
class TalkerRecipe(ModelRecipe):
    """A run of the Talker."""

    shards: str = "corpus/train-*.tar"
    """Spoken sentences with codes (thinktalk data codes): a pattern, or several with commas between them. Those with @NUMBER
    behind them are drawn by this weight, the others together have weight 1."""
    dialogues: str = ""
    """Spoken dialogues with answer_codes, likewise; may be none."""
    dialogue_weight: float = 1.0
    """How much of them is drawn for as much of the sentences."""
    batch_tokens: float = 6000.0
    """Tokens of the Talker in a batch, padding included."""
    max_codes: int = 1000
    """Longer speech is passed by, leads included."""
    eos_weight: float = 3.0
    """How much the end of speech counts; a code counts 1."""
    guide: float = 0.0
    """Weight of guided attention (training/guide.py), where phones and durations are known; 0, as the report has it, for none."""
    phones: float = 0.0
    """Weight of naming the phone of each next code where durations are known, by a head that is not exported."""
    misheard: float = 0.0
    """Share of its own codes that the Talker hears wrong while it learns (word dropout, Bowman 2016): it reads instead of
    going on by heart, and one wrong code does not lead astray."""
    states: str = ""
    """Directory for what the Thinker tells, so that it is asked once: draws are then the same in every epoch. None if empty."""
    workers: int = 0
    """Processes that read; 0 reads in this one."""
    context: Context = field(default_factory=Context)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.misheard < 1:
            raise ConfigError(f"misheard is {self.misheard}, expected a share from 0 to below 1")

    def model(self) -> OmniModel:
        """Thinker, senses and Talker of `start`."""
        return self.load("thinker", "talker")

    def stage(self) -> TalkerStage:
        """The Talker of `start`, after its Thinker."""
        return TalkerStage(
            self.model(), eos_weight=self.eos_weight, guide=self.guide, misheard=self.misheard, phones=self.phones,
            cache=self.states or None,
        )  # fmt: skip

    def kit(self) -> Kit:
        """What turns samples into lines: tokenizer, configuration and the tokens of the checkpoint's voices."""
        config = self.config()
        by = fingerprint(self.wav2code()) if config.wav2code is not None else None
        return Kit.of(
            config, self.voices_known(), self.tokenizer(), max_codes=self.max_codes, codes_by=by,
            labels=self.guide > 0 or self.phones > 0,
        )  # fmt: skip

    def voices_known(self) -> dict[str, Voice]:
        """The voices that have a token."""
        return own_voices(self.directory(), self.config())

    def sources(self, keep: Keep | None = None) -> list[Source]:
        """Sentences, and dialogues where there are any; what has codes, where `keep` does not say otherwise."""
        found = []
        for shards, together in ((self.shards, 1.0), (self.dialogues, self.dialogue_weight)):
            items = weighted(shards) if shards else []
            pairs = [(paths, weight * together) for paths, weight in items if weight is not None]
            if pooled := ",".join(paths for paths, weight in items if weight is None):
                pairs.append((pooled, together))
            found += [source(paths, weight, keep or has_codes) for paths, weight in pairs]
        return found

    def data(self, world: World) -> Loader:
        """This rank's lines."""
        sources = self.sources()
        make = InContext(self.kit(), Sentences.of(sources), self.context, fixed=bool(self.states))
        return self.loaded(sources, make, world)

    def loaded(self, sources: list[Source], make: object, world: World) -> Loader:
        """Batches of what `make` gives."""
        return talker_batches.load(
            sources, make, batch_tokens=self.batch_tokens, seed=self.seed, world=world, workers=self.workers
        )  # fmt: skip


def source(paths: str, weight: float = 1.0, keep: Keep | None = None) -> Source:
    """Shards by their patterns, planned by the Talker's tokens."""
    return Source([p.strip() for p in paths.split(",") if p.strip()], weight=weight, measure=talker_cost, keep=keep)  # fmt: skip


def has_codes(record: Mapping[str, Any]) -> bool:
    """Whether there is speech to be learned."""
    return bool(record.get("answer_codes") if record.get("messages") else record.get("codes"))


def has_words(record: Mapping[str, Any]) -> bool:
    """Whether there is something to be said."""
    return bool(record.get("messages") or record.get("text"))
