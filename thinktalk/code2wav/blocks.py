"""Utterances of any lengths as one list of blocks of F mel frames: who hears whom, and where in the utterance a frame is.

Letters: N blocks in all (`halves` times over: with guidance the conditioned ones, then the free ones), P blocks of one half,
F frames a block, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from thinktalk.config import DiTConfig

__all__ = ["Blocks", "lay_out"]


@dataclass(frozen=True)
class Blocks:
    """The layout of a batch; the same at every time of the flow."""

    frames: tuple[int, ...]  # of each utterance
    size: int  # F
    cos: Tensor  # (N, F, K/2) rotary table of the frame's index in its utterance
    sin: Tensor
    own: Tensor | None  # (N, 1, 1, F) which frames of a block exist; None when all do
    back: Tensor  # (N, 1, 1, 2F) ... of [block before, own block]
    ahead: Tensor  # (N, 1, 1, 2F) ... of [own block, block after]
    around: Tensor  # (N, 1, 1, 3F) ... of [block before, own block, block after]
    previous: (
        Tensor | None
    )  # (N,) number of the block before among N blocks and U past ones a half; None without past
    past_cos: Tensor  # (1, F, K/2) rotary table of the block before the first
    past_sin: Tensor

    def pack(self, parts: Sequence[Tensor]) -> Tensor:
        """Frames (n, ...) of each utterance -> (P, F, ...), zeros after the end of an utterance."""
        padded = [F.pad(x, (0, 0) * (x.ndim - 1) + (0, -len(x) % self.size)) for x in parts]
        return torch.cat(padded).unflatten(0, (-1, self.size))

    def unpack(self, x_PF: Tensor) -> list[Tensor]:
        """(P, F, ...) -> frames (n, ...) of each utterance."""
        whole = [-(-n // self.size) * self.size for n in self.frames]
        parts = x_PF.flatten(0, 1).split(whole)
        return [part[:n] for part, n in zip(parts, self.frames, strict=True)]

    def spread(self, rows: Tensor) -> Tensor:
        """One row an utterance (B, ...) -> one row a block (P, 1, ...)."""
        counts = torch.tensor([-(-n // self.size) for n in self.frames], device=rows.device)
        return rows.repeat_interleave(counts, 0).unsqueeze(1)


def lay_out(
    frames: Sequence[int],
    config: DiTConfig,
    *,
    halves: int = 1,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    past: Sequence[bool] | None = None,
) -> Blocks:
    """The layout of U utterances of so many frames each; `past` says which go on from a block that is remembered."""
    size = config.block_frames
    counts = [-(-n // size) for n in frames]
    index_N = torch.cat([torch.arange(count) for count in counts]).repeat(halves)
    total_N = torch.tensor(frames).repeat_interleave(torch.tensor(counts)).repeat(halves)
    own = _exists(total_N - index_N * size, size)
    after = _exists(total_N - (index_N + 1) * size, size)
    before = index_N > 0
    previous = None
    if past is not None:
        first = (index_N == 0).nonzero()[:, 0]
        previous = torch.arange(len(index_N)) - 1
        previous[first] = len(index_N) + torch.arange(len(first))
        before[first] = torch.tensor(past).repeat(halves)
    before = before[:, None].expand_as(own)
    cos, sin = _rotary(index_N, config, dtype)
    past_cos, past_sin = _rotary(torch.tensor([-1]), config, dtype)

    def mask(*parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)[:, None, None].to(device)

    return Blocks(
        frames=tuple(frames),
        size=size,
        cos=cos.to(device),
        sin=sin.to(device),
        own=None if own.all() else mask(own),
        back=mask(before, own),
        ahead=mask(own, after),
        around=mask(before, own, after),
        previous=None if previous is None else previous.to(device),
        past_cos=past_cos.to(device),
        past_sin=past_sin.to(device),
    )


def _exists(left_N: Tensor, frames: int) -> Tensor:
    """(N, frames) bool: the first left_N frames of each row."""
    return torch.arange(frames) < left_N[:, None]


def _rotary(index_N: Tensor, config: DiTConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin (N, F, K/2), computed in float32 at least and given in the model's dtype."""
    wide = torch.promote_types(dtype, torch.float32)
    frame_NF = index_N[:, None] * config.block_frames + torch.arange(config.block_frames)
    exponent = torch.arange(0, config.head_dim, 2).to(wide) / config.head_dim
    angle_NFK = frame_NF[..., None].to(wide) * (1.0 / config.rope_theta**exponent)
    return angle_NFK.cos().to(dtype), angle_NFK.sin().to(dtype)
