"""k3_speaker: the Talker for chosen voices, which the checkpoint has from then on.

A voice that the checkpoint has keeps its token and its sample; a new one gets a token, and of its recordings a sample for
code2wav. Voices must be asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from thinktalk.code2wav.speaker import Voice
from thinktalk.data.answers import spoken_sources
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Source
from thinktalk.errors import ConfigError, InputError
from thinktalk.recipes.talker_recipe import Keep, TalkerRecipe, has_codes
from thinktalk.training.k1_icl import Context, InContext, Sentences
from thinktalk.training.k3_speaker import SpeakerStage
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World
from thinktalk.training.speech_batches import Mels
from thinktalk.training.stage import Stage
from thinktalk.weights.update import update_checkpoint
from thinktalk.weights.voices import next_voice_token, own_voices

__all__ = ["SpeakerRecipe", "recipe"]

SAMPLE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class SpeakerRecipe(TalkerRecipe):
    """The numbers of the run."""

    out: str = "out/k3_speaker"
    steps: int = 2000
    voices: tuple[str, ...] = ()
    """Who is learned, by names in the shards; none: the voices that the checkpoint has."""
    tokens_learn: bool = True
    """Whether the Thinker's embeddings of the voices' tokens learn, too."""
    context: Context = field(default_factory=lambda: Context(lead=0.0))
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4))

    def stage(self) -> SpeakerStage:
        """The Talker of `start`, and what tells it the voices."""
        known = self.voices_known()
        tokens = sorted({known[name].bos_token for name in self.names()}) if self.tokens_learn else []  # fmt: skip
        return SpeakerStage(self.model(), tokens, eos_weight=self.eos_weight, cache=self.states or None)  # fmt: skip

    def names(self) -> list[str]:
        """Who is learned. ConfigError where that is nobody."""
        names = list(self.voices) or sorted(own_voices(self.directory(), self.config()))
        if not names:
            raise ConfigError(f"{self.start}: has no voice, expected some to tune; name them with --set 'voices=[\"NAME\"]'")  # fmt: skip
        return names

    def voices_known(self) -> dict[str, Voice]:
        """The checkpoint's voices and the new ones, which have a token but no sample yet."""
        config = self.config()
        assert config.code2wav is not None
        known = own_voices(self.directory(), config)
        for name in self.voices:
            if name not in known:
                dit = config.code2wav.dit
                cond, empty = torch.zeros(1, dit.speaker_width), torch.zeros(1, 0, dit.num_mels)
                known[name] = Voice(name, cond, empty, next_voice_token(config, known))
        return known

    def data(self, world: World) -> Loader:
        """This rank's lines, of these voices only."""
        names = set(self.names())

        def ours(record: Mapping[str, Any]) -> bool:
            voice = record.get("answer_voice") if record.get("messages") else record.get("voice")
            return has_codes(record) and voice in names

        sources = self._sources(ours)
        make = InContext(self.kit(), Sentences.of(sources), self.context, fixed=bool(self.states))
        return self.loaded(sources, make, world)

    def _sources(self, keep: Keep) -> list[Source]:
        """Those of the sources that have something; a voice need not be in each. Errors: InputError (in none)."""
        found, lacks = [], None
        for part in (replace(self, dialogues=""), replace(self, shards="")):
            try:
                found += part.sources(keep)
            except InputError as error:
                lacks = error
        if not found and lacks is not None:
            raise lacks
        return found

    def export(self, stage: Stage, directory: str | Path) -> None:
        """The checkpoint, with the new voices among its own."""
        update_checkpoint(self.directory(), directory, stage.parts(), voices=self.sampled(), overwrite=True)  # fmt: skip

    def sampled(self) -> dict[str, Voice]:
        """Every voice, new ones with a sample of theirs. ConfigError where there is no recording to take it from."""
        config, known = self.config(), self.voices_known()
        assert config.code2wav is not None
        new = [name for name, voice in known.items() if not voice.ref_mel.shape[1]]
        if not new:
            return known
        paths = [p.strip() for p in f"{self.shards},{self.dialogues}".split(",") if p.strip()]
        sources = spoken_sources(paths, keep=lambda record: record.get("voice") in new)
        mels = Mels(sources, config.code2wav.mel)
        for name in new:
            if name not in mels.of_voice:
                raise ConfigError(f"voice {name!r}: no recording of it in {self.shards or self.dialogues}, expected one to take its sample from; add one")  # fmt: skip
            frames = round(SAMPLE_SECONDS * float(config.code2wav.mel.frames_per_second))
            mel = mels.typical(name, frames)
            known[name] = replace(known[name], ref_mel=mel.T[None].contiguous())
        return known


def recipe() -> SpeakerRecipe:
    """The defaults."""
    return SpeakerRecipe()
