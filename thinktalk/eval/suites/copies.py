"""Copies: codes and a voice -> mel and wave, in one of many ways: windows, blocks, streamed, at another rate.

    Way("")                       the whole utterance at once, as trained
    codes (n,) --spoken, way--> mel (M, F), wave (S,)          the same noise in every way

The two ends of a comparison last equally long, frame by frame, so that their mels can be held against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import log
from typing import Any

import torch
from torch import Tensor

from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.flow import draw_noise, sample_many
from thinktalk.code2wav.model import Code2Wav
from thinktalk.code2wav.speaker import Voice
from thinktalk.code2wav.streaming import Speech, Windows
from thinktalk.eval.bench import Bench
from thinktalk.eval.switches import codes_every, speaks_in
from thinktalk.wav2code.encoder import SpeechTokenizer

__all__ = ["HEARD_DB", "WHOLE", "Way", "at_rate", "distance_db", "spoken"]

DB = 20 / log(10)  # of a natural logarithm of amplitude
HEARD_DB = 60.0
"""What is softer than the loudest moment by more is silence, of both that are compared."""


@dataclass(frozen=True)
class Way:
    """How codes become sound."""

    name: str
    windows: Windows | None = None
    """Streamed so; None is the whole utterance at once."""
    block_codes: int | None = None
    """Codes a block; 0 is all of them in one, None as trained."""
    back: bool | None = None
    """Whether layers hear the block before: all, none, or None as trained."""
    ahead: bool | None = None
    """The same of the block after."""
    pool: int | None = None
    """Encoder frames a code; None as trained."""


WHOLE = Way("")


def at_rate(tokenizer: SpeechTokenizer, dit: DiT, way: Way) -> AbstractContextManager[None]:
    """Tokenizer and DiT at the way's rate of codes."""
    return nullcontext() if way.pool is None else codes_every(tokenizer, dit, way.pool)


@torch.inference_mode()
def spoken(
    bench: Bench, codes: Sequence[int], voice: Voice, way: Way, *, aloud: bool = True
) -> tuple[Tensor, Tensor]:
    """The mel (M, F) of codes (n,), and its wave (S,), which is none unless `aloud`."""
    model, config = bench.omni.model, bench.omni.config.code2wav
    assert model.dit is not None and model.vocoder is not None and config is not None
    dit, generation = model.dit, bench.omni.config.generation
    flow = dict(
        points=bench.options.get("flow_points", generation.flow_points), guidance=generation.flow_guidance,
        sway=generation.flow_sway, method=bench.options.get("flow_method", generation.flow_method),
    )  # fmt: skip
    frames = len(codes) * dit.config.repeats
    noise = draw_noise(frames, dit.config.num_mels, generator=torch.Generator().manual_seed(bench.seed))  # fmt: skip
    row = torch.tensor(list(codes), dtype=torch.long)
    if way.windows is None:
        with _blocks(way, dit, len(codes)):
            (mel_MF,) = sample_many(dit, [row], [voice], noise=[noise], **flow)
        whole = Code2Wav(dit, model.vocoder, config)
        return mel_MF, whole.vocode(mel_MF[None])[0] if aloud else torch.zeros(0)
    speech = Speech(dit, model.vocoder, config, windows=replace(way.windows, **flow))
    with _overheard(speech) as mels:
        wave = speech(row[None], voice=voice, noise=noise)[0]
    return torch.cat(mels, 2)[0], wave.float().cpu()


def distance_db(mel_MF: Tensor, true_MF: Tensor) -> float:
    """Mean distance of two natural-log mels, as far as both last; what is 60 dB below the loudest of `true_MF` is one."""
    F = min(mel_MF.shape[1], true_MF.shape[1])
    true, made = true_MF[:, :F].float().cpu(), mel_MF[:, :F].float().cpu()
    floor = float(true.max()) - HEARD_DB / DB
    return DB * float((made.clamp(min=floor) - true.clamp(min=floor)).abs().mean())


def _blocks(way: Way, dit: DiT, codes: int) -> AbstractContextManager[None]:
    """The DiT with the way's blocks, for an utterance of so many codes."""
    size = codes if way.block_codes == 0 else way.block_codes
    frames = None if size is None else size * dit.config.repeats
    return speaks_in(dit, block_frames=frames, back=way.back, ahead=way.ahead)


@contextmanager
def _overheard(speech: Speech) -> Iterator[list[Tensor]]:
    """The mels (1, M, F) that a stream hands to its vocoder."""
    mels: list[Tensor] = []
    vocode: Callable[..., list[Tensor]] = speech.vocoder.step_many

    def noted(made: Sequence[Tensor], *rest: Any) -> list[Tensor]:
        mels.extend(made)
        return vocode(made, *rest)

    vars(speech.vocoder)["step_many"] = noted
    try:
        yield mels
    finally:
        del vars(speech.vocoder)["step_many"]
