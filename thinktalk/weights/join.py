"""Join: a base checkpoint + {stage: another checkpoint} -> a checkpoint with those stages of the others; the base's files stay.

    join("omni", "new", {"talker": "tuned", "dit": "other"})      the voices come with the dit, whose mels they are

Stages of one model are trained in lines that run side by side (ears and Thinker; codes, flow and Talker): here they meet.
A Talker after another Thinker wants to be aligned again (recipe k0_realign), and codes mean nothing to a flow that was
trained with another tokenizer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from thinktalk.config import OmniConfig
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.weights import hf
from thinktalk.weights.config_read import read_config
from thinktalk.weights.model import PARTS, build
from thinktalk.weights.update import STAGES, WAV2CODE, update_checkpoint
from thinktalk.weights.voices import own_voices
from thinktalk.weights.wav2code import load_tokenizer

__all__ = ["join", "joined_config"]


def join(
    base: str | Path,
    directory: str | Path,
    take: Mapping[str, str | Path],
    *,
    overwrite: bool = False,
) -> None:
    """Write `directory`: `base` with each stage of `take` from the checkpoint named there, and their sizes.

    Tensors are stored in the precision that the stage has in `base`. ConfigError for a stage that is unknown, or that its
    checkpoint lacks; WeightsError lists what does not fit.
    """
    config, parts, voices = read_config(base), {}, None
    for stage, source in take.items():
        if stage not in STAGES:
            raise ConfigError(f"stage {stage!r} is unknown; have {', '.join(STAGES)}")
        config = joined_config(config, read_config(source), (stage,))
        parts[stage] = _stage(stage, source)
        if stage == "dit":
            voices = own_voices(Path(source), config)
    update_checkpoint(base, directory, parts, config=config, voices=voices, overwrite=overwrite)


def joined_config(old: OmniConfig, new: OmniConfig, chosen: Collection[str]) -> OmniConfig:
    """The configuration of `old` with what describes the chosen stages from `new`."""

    def of(stage: str) -> OmniConfig:
        return new if stage in chosen else old

    words = of("thinker").thinker
    thinker = replace(words, audio=of("audio").thinker.audio, vision=of("vision").thinker.vision)
    voice = of("dit").code2wav or of("vocoder").code2wav
    if voice is not None:
        dit, vocoder = of("dit").code2wav or voice, of("vocoder").code2wav or voice
        voice = replace(voice, dit=dit.dit, vocoder=vocoder.vocoder)
    return OmniConfig(
        thinker=thinker, talker=of("talker").talker, code2wav=voice, wav2code=of(WAV2CODE).wav2code,
        mel=of("audio").mel, visual=of("vision").visual, generation=of("thinker").generation,
    )  # fmt: skip


def _stage(stage: str, source: str | Path) -> nn.Module:
    if stage == WAV2CODE:
        return load_tokenizer(source)
    owner = next(part for part, stages in PARTS.items() if stage in stages)
    if stage not in build(read_config(source)).stages():
        raise WeightsError(f"{source}: has no {stage}, expected one to take; name another checkpoint")  # fmt: skip
    return hf.load(source, parts=[owner], dtype={owner: "float32"}).stages()[stage]
