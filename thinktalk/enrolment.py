"""Enrolment: a clip of somebody speaking -> a Voice of this model, named and ready to speak.

    clip --24 kHz--> speech mel --> ref_mel, and the nearest own voice's bos_token      code2wav/enrol.py
         --16 kHz--> speech tokenizer, where the checkpoint has one -> codes --> cond is fitted, where own voices have one

A model whose own voices have no `cond` (nano) hears a voice at once. For official checkpoints it is fitted, which is an
experiment. Their speech tokenizer was not published either: without one (training/c1_inverse.py finds one) the fit hears the
null code. There guidance's free half stands, which knows no voice, so the fit learns less from a frame than it could.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinktalk.code2wav.enrol import STEPS, Fit, fit_cond, has_cond, nearest
from thinktalk.code2wav.speaker import Voice
from thinktalk.errors import ConfigError, InputError
from thinktalk.layers.mel import log_mel, speech_mel
from thinktalk.layers.resample import resampler
from thinktalk.media.audio import load_audio
from thinktalk.weights.model import OmniModel
from thinktalk.weights.voices import check_voice
from thinktalk.weights.wav2code import load_tokenizer

__all__ = ["LEAST_S", "MOST_S", "Enrolment", "codes_of", "enrol"]

LEAST_S, MOST_S = 3.0, 60.0
"""Seconds that a clip must have, and may."""
QUIET = 1e-3  # the loudest sample of a clip that holds nothing: 60 dB below full scale
HEARD_HZ = 16_000


@dataclass(frozen=True)
class Enrolment:
    """A new voice, and how it was made."""

    voice: Voice
    near: str
    """The own voice whose token it borrows."""
    fit: Fit | None
    """How its `cond` was fitted; None: it was not."""
    coded: bool
    """Whether the fit knew what was said."""
    experimental: bool
    """Whether own voices have a `cond`, so that this one's is no more than a guess."""


def enrol(
    model: OmniModel,
    name: str,
    clip: Any,
    *,
    directory: Path | None = None,
    voices: Mapping[str, Voice] | None = None,
    fit: bool | None = None,
    steps: int = STEPS,
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> Enrolment:
    """A voice made of a clip (a path, bytes, or (samples, rate)) of 3 to 60 seconds of one person speaking.

    `directory` is the checkpoint's, for its speech tokenizer; None fits without codes. `voices` are the model's own (default: all it has). `fit` says
    whether `cond` is fitted or borrowed from the nearest own voice; None fits where own voices have one. `on_step` as
    fit_cond. Nothing is stored. Errors: InputError (too short, too long, silent, no sound), WeightsError (a name that cannot be), ConfigError.
    """
    config = model.config.code2wav
    if model.dit is None or config is None:
        raise ConfigError(f"voice {name!r:.60}: the model was loaded without code2wav, expected it; load it too")  # fmt: skip
    own = voices or model.voices
    pcm = _heard(clip, config.sample_rate)
    ref_mel = speech_mel(pcm[None], config.mel).transpose(1, 2).contiguous()
    near = nearest(model.dit, ref_mel, own)
    cond, vector = near.cond, has_cond(own)
    # before the work: a name or a size that no voice can have
    check_voice(name, cond.cpu(), ref_mel, near.bos_token, config=model.config)
    fitted, codes = None, None
    if vector if fit is None else fit:
        if directory is not None and model.config.wav2code is not None:
            codes = codes_of(pcm, config.sample_rate, directory)
        fitted = fit_cond(model.dit, ref_mel[0], cond, codes=codes, steps=steps, seed=seed, on_step=on_step)  # fmt: skip
        cond = fitted.cond
    voice = Voice(name, cond.detach().cpu().float(), ref_mel, near.bos_token)
    return Enrolment(voice, near.name, fitted, codes is not None, vector or fitted is not None)


def codes_of(pcm: Tensor, rate: int, directory: Path) -> Tensor:
    """The codes (n,) of a wave (S,), by the speech tokenizer of a checkpoint. Errors: WeightsError."""
    tokenizer = load_tokenizer(directory, dtype=torch.float32)
    with torch.inference_mode():
        heard = resampler(rate, HEARD_HZ)(pcm[None])
        (codes,) = tokenizer.encode([log_mel(heard)[0]])
    return codes.clone()  # what was made in inference mode cannot be learnt from


def _heard(clip: Any, rate: int) -> Tensor:
    """The clip at the model's own rate."""
    name = "clip" if isinstance(clip, tuple | np.ndarray | bytes) else None
    pcm = load_audio(clip, sample_rate=rate, max_seconds=MOST_S, name=name)
    seconds = len(pcm) / rate
    if seconds < LEAST_S:
        raise InputError(f"clip: has {seconds:.1f} s of sound, expected {LEAST_S:g} to {MOST_S:g} s of one person speaking; record a longer one")  # fmt: skip
    if float(np.abs(pcm).max()) < QUIET:
        raise InputError("clip: is silent, expected one person speaking; record it again, nearer to the microphone")  # fmt: skip
    return torch.from_numpy(pcm)
