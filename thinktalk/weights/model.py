"""OmniModel: the stages of one checkpoint, built without memory until weights are assigned.

    OmniConfig, parts -> audio, vision, thinker | talker | dit, vocoder

A part ("thinker", "talker", "code2wav") is what a user asks for; a stage is a module.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.speaker import Voice
from thinktalk.config import OmniConfig
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.encoders.vision import VisionEncoder
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.talker.model import Talker
from thinktalk.thinker.model import Thinker

__all__ = ["PARTS", "OmniModel", "build", "resolve_parts"]

PARTS = {
    "thinker": ("audio", "vision", "thinker"),
    "talker": ("talker",),
    "code2wav": ("dit", "vocoder"),
}
"""What a user asks for -> the stages it holds."""

_BUILDERS = {
    "audio": lambda c: AudioEncoder(c.thinker.audio),
    "vision": lambda c: VisionEncoder(c.thinker.vision),
    "thinker": lambda c: Thinker(c.thinker.text),
    "talker": lambda c: Talker(c.talker),
    "dit": lambda c: DiT(c.code2wav.dit),
    "vocoder": lambda c: BigVGAN(c.code2wav.vocoder),
}


class OmniModel(nn.Module):
    """The stages of one checkpoint; a stage that was not loaded is None."""

    audio: AudioEncoder | None
    vision: VisionEncoder | None
    thinker: Thinker | None
    talker: Talker | None
    dit: DiT | None
    vocoder: BigVGAN | None

    def __init__(self, config: OmniConfig, parts: Iterable[str] | None = None):
        super().__init__()
        self.config = config
        self.parts = resolve_parts(config, parts)
        self.voices: dict[str, Voice] = {}
        stages = {stage for part in self.parts for stage in PARTS[part]}
        for stage, builder in _BUILDERS.items():
            self.add_module(stage, builder(config) if stage in stages else None)

    def stages(self) -> dict[str, nn.Module]:
        """The stages that are there, by name."""
        return {name: module for name, module in self.named_children() if module is not None}


def resolve_parts(config: OmniConfig, parts: Iterable[str] | None) -> tuple[str, ...]:
    """The parts to load, in order; None means all that the configuration has."""
    have = {
        "thinker": True,
        "talker": config.talker is not None,
        "code2wav": config.code2wav is not None,
    }
    if parts is None:
        return tuple(part for part in PARTS if have[part])
    asked = {parts} if isinstance(parts, str) else set(parts)
    for part in asked:
        if part not in PARTS:
            raise ConfigError(f"part {part!r} is unknown; have {', '.join(PARTS)}")
        if not have[part]:
            raise WeightsError(
                f"this checkpoint has no {part}; its configuration has {', '.join(p for p in have if have[p])}"
            )
    return tuple(part for part in PARTS if part in asked)


def build(
    config: OmniConfig, parts: Iterable[str] | None = None, *, device: str | torch.device = "meta"
) -> OmniModel:
    """The modules of some parts; on "meta" they take no memory until weights are assigned."""
    drawing = _NothingDrawn() if torch.device(device).type == "meta" else nullcontext()
    with torch.device(device), drawing:
        return OmniModel(config, parts).eval()


class _NothingDrawn(TorchFunctionMode):
    """What stands on "meta" has no memory to draw weights into; torch would go through its compiler to do nothing, whose import
    is a second of every start."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in ("kaiming_uniform_", "normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))
