"""Random checkpoints: a configuration and a seed to a complete directory in the official layout.

Its words are noise, but every input matters: each layer keeps the size of what it gets, norms and biases are not trivial,
and the vocoder's gain is near one, so a changed sound, picture, video, code, voice or noise is a changed output. Each
tensor is drawn from its own name and the seed: parts and orders of building do not change the others.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from thinktalk.code2wav.speaker import Voice
from thinktalk.config import OmniConfig
from thinktalk.weights.config_write import write_config
from thinktalk.weights.hf import OmniModel, build, planned
from thinktalk.weights.store import atomic_directory, write_tensors
from thinktalk.weights.tokenizer import build_tokenizer
from thinktalk.weights.voices import save_voices

__all__ = ["random_checkpoint", "random_model", "random_voices"]

_FLOW_GAIN = 3.0  # the flow's velocity must move a mel of unit noise to speech's range within one unit of time
_WAVE_GAIN = 0.015  # AMP blocks add up; this keeps the wave inside the final clamp


def random_checkpoint(
    config: OmniConfig, directory: str | Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, overwrite: bool = False
) -> Path:  # fmt: skip
    """Write a random checkpoint with tokenizer and voices; the same seed gives the same bytes of weights.

    >>> random_checkpoint(tiny(), "tiny-random")
    """
    model = random_model(config, seed=seed)
    with atomic_directory(directory, overwrite=overwrite) as fresh:
        plan = [
            t
            for stage, module in model.stages().items()
            for t in planned(stage, module, config, dtype)
        ]
        write_tensors(fresh, plan)
        write_config(config, fresh, dtype=str(dtype).removeprefix("torch."))
        build_tokenizer(config, fresh)
        if model.voices:
            save_voices(model.voices, fresh)
    return Path(directory)


@torch.no_grad()
def random_model(
    config: OmniConfig, *, seed: int = 0, parts: tuple[str, ...] | None = None
) -> OmniModel:
    """The modules with random float32 weights, and voices when the model speaks."""
    model = build(config, parts)
    for stage, module in model.stages().items():
        for path, child in module.named_modules():
            for key, parameter in child.named_parameters(recurse=False):
                value = _draw(child, key, parameter, _generator(seed, f"{stage}.{path}.{key}"))
                setattr(child, key, nn.Parameter(value, requires_grad=False))
    if model.dit is not None:
        model.dit.output.weight.mul_(_FLOW_GAIN)
    if model.vocoder is not None:
        model.vocoder.conv_post.weight.mul_(_WAVE_GAIN)
    if config.talker is not None and config.code2wav is not None:
        model.voices = random_voices(config, seed=seed)
    return model


def random_voices(config: OmniConfig, *, seed: int = 0) -> dict[str, Voice]:
    """Two made-up voices with the official names and tokens."""
    assert config.code2wav is not None
    dit, ids = config.code2wav.dit, config.thinker.ids
    voices = {}
    # officially Ethan is 151870 and Chelsie 151872, 227 and 229 after <|endoftext|>
    for name, offset, frames in (("Chelsie", 229, 170), ("Ethan", 227, 150)):
        generator = _generator(seed, f"voices.{name}")
        cond = torch.randn(1, dit.speaker_width, generator=generator)
        ref_mel = (
            torch.randn(1, frames, dit.num_mels, generator=generator) - 4.0
        )  # log mels of speech lie around -4
        voices[name] = Voice(name=name, cond=cond, ref_mel=ref_mel, bos_token=ids.pad + offset)
    return voices


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _draw(owner: nn.Module, key: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Matrices of unit gain, norms around one, biases and snake exponents around zero."""
    noise = torch.randn(like.shape, generator=generator)
    if like.ndim == 1:
        centre = 1.0 if "norm" in type(owner).__name__.lower() and key == "weight" else 0.0
        return centre + 0.1 * noise
    if isinstance(owner, nn.Embedding):
        return noise
    if isinstance(owner, nn.ConvTranspose1d):
        return noise / (like.shape[0] * like.shape[-1] / 2) ** 0.5
    return noise / like[0].numel() ** 0.5
