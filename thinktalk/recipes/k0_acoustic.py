"""k0_acoustic: phones to codes, from speech whose phones are timed; `thinktalk data distill` makes the Talker's sentences with it.

Leaves OUT/acoustic.safetensors; OUT/model is `start` as it was, so that stages can follow each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from thinktalk.data.answers import spoken_sources
from thinktalk.data.coding import fingerprint
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Source
from thinktalk.data.samples import FRAME_SECONDS, read_record
from thinktalk.errors import ConfigError
from thinktalk.recipes.codec_recipe import CodecRecipe
from thinktalk.training import speech_batches
from thinktalk.training.acoustic import (
    FILE,
    Acoustic,
    AcousticConfig,
    AcousticStage,
    collate,
    timed,
)
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World
from thinktalk.training.stage import Stage

__all__ = ["AcousticRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class AcousticRecipe(CodecRecipe):
    """The numbers of the run; `shards` have codes and timed phones, what has not is left out."""

    out: str = "out/k0_acoustic"
    steps: int = 1500
    batch_seconds: float = 100.0
    width: int = 320
    memory: int = 448
    dropout: float = 0.2
    misheard: float = 0.2
    """Share of the codes so far that are heard wrong."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1.5e-3, weight_decay=0.01, clip=1.0)
    )

    def sources(self, *, coded: bool = True) -> list[Source]:
        """Speech with codes and phones timed in frames of 25 ms."""

        def keep(record: dict[str, Any]) -> bool:
            phones, durations = record.get("phones"), record.get("durations") or ()
            whole = bool(phones) and len(durations) == len(phones) + 2
            usual = record.get("frame_seconds", FRAME_SECONDS) == FRAME_SECONDS
            return whole and usual and bool(record.get("codes")) and 0 < record.get("seconds", 0.0) <= self.longest  # fmt: skip

        return spoken_sources([path for path in self.shards.split(",") if path], keep=keep)

    def sizes(self, sources: Iterable[Source]) -> AcousticConfig:
        """The voices of the shards, the codes of `start`. ConfigError where it has no speech tokenizer."""
        config = self.config().wav2code
        if config is None:
            raise ConfigError(f"{self.start}: has no speech tokenizer, expected the one whose codes are learned; take another start")  # fmt: skip
        voices = {read_record(entry).get("voice") for source in sources for entry in source.entries}
        return AcousticConfig(
            voices=tuple(sorted(filter(None, voices))), num_codes=config.first_code + config.num_codes,
            codes_per_second=float(self.code2wav().codes_per_second), width=self.width, memory=self.memory, dropout=self.dropout,
        )  # fmt: skip

    def stage(self) -> AcousticStage:
        """Both models, from nothing."""
        torch.manual_seed(self.seed)
        return AcousticStage(Acoustic(self.sizes(self.sources())), misheard=self.misheard)

    def data(self, world: World) -> Loader:
        """This rank's recordings."""
        sources = self.sources()
        make = partial(timed, config=self.sizes(sources), codes_by=fingerprint(self.wav2code()))
        return speech_batches.load(sources, make, collate, **self.reading(world))

    def export(self, stage: Stage, directory: str | Path) -> None:
        """`start` as it was, and beside it what has been learnt."""
        assert isinstance(stage, AcousticStage)
        super().export(stage, directory)
        stage.model.save(Path(directory).parent / FILE, codes_by=fingerprint(self.wav2code()))


def recipe() -> AcousticRecipe:
    """The defaults."""
    return AcousticRecipe()
