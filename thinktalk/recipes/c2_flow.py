"""c2_flow: a model's codes to mel, from shards of speech with codes (thinktalk data codes); and the voices it ends with."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch

from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.speaker import Voice
from thinktalk.data.coding import fingerprint
from thinktalk.data.loader import Loader
from thinktalk.errors import ConfigError
from thinktalk.recipes.codec_recipe import CodecRecipe
from thinktalk.training import speech_batches
from thinktalk.training.c2_flow import FlowConfig, FlowStage, begin
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import Precision, World
from thinktalk.training.stage import Stage
from thinktalk.weights.update import update_checkpoint
from thinktalk.weights.voices import next_voice_token, own_voices

__all__ = ["FlowRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class FlowRecipe(CodecRecipe):
    """The numbers of the run."""

    out: str = "out/c2_flow"
    steps: int = 40_000
    precision: Precision = "bf16"
    """Half as long on a CPU that knows bfloat16; the flow's state and its loss stay float32."""
    voices: tuple[str, ...] = ()
    """Speakers of the shards that the checkpoint ends with as voices, the first one its default; none: it keeps its own, and
    those of them that the shards have are shown by what is there."""
    flow: FlowConfig = field(default_factory=FlowConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3, ema=0.999))

    def stage(self) -> FlowStage:
        """The DiT."""
        torch.manual_seed(self.seed)
        if not self.fresh:
            dit = copy.deepcopy(self.load("dit").dit)
            assert dit is not None
            return FlowStage(dit.requires_grad_(), self.flow)
        config = self.code2wav()
        stage = FlowStage(DiT(config.dit), self.flow)
        tokenizer = self.wav2code() if self.config().wav2code is not None else None
        mean = speech_batches.Mels(self.sources(coded=True), config.mel).mean()
        begin(stage.modules, tokenizer=tokenizer, mean_mel=mean)
        return stage

    def data(self, world: World) -> Loader:
        """This rank's utterances, each voice shown by another recording of it."""
        config, sources = self.code2wav(), self.sources(coded=True)
        by = fingerprint(self.wav2code()) if self.config().wav2code is not None else None
        return speech_batches.utterances(
            sources, speech_batches.Mels(sources, config.mel), repeats=config.dit.repeats, codes_by=by,
            **self.reading(world),
        )  # fmt: skip

    def export(self, stage: Stage, directory: str | Path) -> None:
        """The checkpoint with its voices."""
        voices = self.spoken_voices()
        update_checkpoint(self.directory(), directory, stage.parts(), voices=voices, overwrite=True)

    def spoken_voices(self) -> dict[str, Voice]:
        """The voices that the checkpoint ends with: a speaker of the shards is shown by a mel of his, and has nobody's `cond`
        and a token of his own for the Talker. ConfigError for a name of `voices` that is in no shard.
        """
        config = self.code2wav()
        mels = speech_batches.Mels(self.sources(coded=True), config.mel)
        had = own_voices(self.directory(), self.config())
        for name in self.voices:
            if name not in mels.of_voice:
                raise ConfigError(f"voices: {name!r} is in no shard of {self.shards}; have {', '.join(sorted(mels.of_voice))[:200]}")  # fmt: skip
        made: dict[str, Voice] = {name: had[name] for name in self.voices or had if name in had}
        for name in self.voices or had:
            token = made[name].bos_token if name in made else next_voice_token(self.config(), made)
            if name in mels.of_voice:
                mel = mels.typical(name, self.flow.reference_frames[1])
                cond = torch.zeros(1, config.dit.speaker_width)
                made[name] = Voice(name=name, cond=cond, ref_mel=mel.T[None].contiguous(), bos_token=token)  # fmt: skip
        return {name: made[name] for name in self.voices or had}


def recipe() -> FlowRecipe:
    """The defaults."""
    return FlowRecipe()
