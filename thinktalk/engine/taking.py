"""Taking: what a caller hands to a session -> what it can use, or an error that says what was expected.

samples of any kind --as_pcm--> float32 (S,)        options and some changes --changed--> Options
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinktalk.config import GenerationConfig
from thinktalk.errors import ConfigError, InputError
from thinktalk.pipeline import Options

__all__ = ["as_pcm", "changed"]


def changed(options: Options, changes: Mapping[str, Any]) -> Options:
    """Options with some replaced, those of generation too. Errors: ConfigError."""
    own = {f.name for f in fields(Options)} - {"generation"}
    inner = {f.name for f in fields(GenerationConfig)}
    unknown = sorted(set(changes) - own - inner - {"generation"})
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such option; have {', '.join(sorted(own | inner))}")
    generation = changes.get("generation", options.generation)
    generation = replace(generation, **{k: v for k, v in changes.items() if k in inner})
    if generation.max_text_tokens < 1 or generation.max_codes < 1:
        raise ConfigError("max_text_tokens and max_codes: expected 1 or more")
    return replace(options, generation=generation, **{k: v for k, v in changes.items() if k in own})


def as_pcm(pcm: Any) -> Tensor:
    """Mono float32 (S,) of our own, finite, of floats in -1..1 or integers. Errors: InputError."""
    array = np.asarray(pcm.detach().cpu() if isinstance(pcm, Tensor) else pcm)
    if array.ndim != 1 or array.dtype.kind not in "if":
        raise InputError(f"pcm: {array.dtype} of shape {array.shape}, expected mono samples (S,)")
    if array.dtype.kind == "i":
        array = array.astype(np.float64) / (1 << (8 * array.dtype.itemsize - 1))
    with np.errstate(over="ignore"):
        array = np.array(array, np.float32)
    if not np.isfinite(array).all():
        raise InputError("pcm: holds NaN or infinity, expected finite samples")
    if len(array) and float(np.abs(array).max()) > 1e4:
        raise InputError("pcm: samples far outside -1..1; give integers as integers or scale them")
    return torch.from_numpy(array)
