"""What the codec's recipes share: speech on disk, a checkpoint to begin with, and whether a part begins anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thinktalk.config import Code2WavConfig
from thinktalk.data.answers import spoken_sources
from thinktalk.data.mixture import Source
from thinktalk.errors import ConfigError
from thinktalk.recipes.recipe import ModelRecipe
from thinktalk.training.parallel import World

__all__ = ["CodecRecipe"]


@dataclass(frozen=True, kw_only=True)
class CodecRecipe(ModelRecipe):
    """A run on speech: every recording in the shards that tells its text, and the spoken answers of dialogues."""

    shards: str = "corpus/train-*.tar"
    """Shards of speech, a pattern, or several with commas between."""
    batch_seconds: float = 60.0
    """Sound in a batch."""
    longest: float = 20.0
    """Recordings that last longer (seconds) are left out."""
    workers: int = 0
    """Processes that read; 0 reads in this one."""
    fresh: bool = True
    """What is trained begins anew, with nothing of `start` but its sizes; false: it goes on from `start`."""

    def sources(self, *, coded: bool = False) -> list[Source]:
        """The speech; `coded`: only what has codes."""

        def keep(record: dict[str, Any]) -> bool:
            fits = 0 < record.get("seconds", 0.0) <= self.longest
            return fits and (bool(record.get("codes")) or not coded)

        return spoken_sources([path for path in self.shards.split(",") if path], keep=keep)

    def reading(self, world: World) -> dict[str, Any]:
        """How batches are read (speech_batches.load)."""
        return dict(batch_seconds=self.batch_seconds, seed=self.seed, world=world, workers=self.workers)  # fmt: skip

    def code2wav(self) -> Code2WavConfig:
        """The sizes of `start`'s decoder. ConfigError where it has none."""
        config = self.config().code2wav
        if config is None:
            raise ConfigError(f"{self.start}: has no code2wav, expected a checkpoint that speaks; take another start")  # fmt: skip
        return config
