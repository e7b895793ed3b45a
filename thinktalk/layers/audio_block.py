"""AudioBlock: segments of sound x (N, D) -> (N, D), one pre-LN transformer layer as in Whisper; and Whisper's positions.

Letters: N tokens of all segments, D width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.layers.linear import Linear
from thinktalk.layers.segments import Run, SegmentAttention

__all__ = ["AudioBlock", "GeluMLP", "sinusoids"]


class GeluMLP(nn.Module):
    """down(gelu(up(x))) with the exact (erf) GELU."""

    def __init__(self, width: int, ffn_width: int):
        super().__init__()
        self.up = Linear(width, ffn_width)
        self.down = Linear(ffn_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.down(F.gelu(self.up(x)))


class AudioBlock(nn.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x)); attention inside each segment only."""

    def __init__(self, width: int, num_heads: int, ffn_width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = SegmentAttention(width, num_heads, key_bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = GeluMLP(width, ffn_width)

    def forward(self, x_ND: Tensor, runs: Sequence[Run]) -> Tensor:
        """(N, D) -> (N, D); `runs` says which tokens are one segment (layers/segments.py)."""
        x_ND = x_ND + self.attn(self.norm1(x_ND), runs)
        x_ND = x_ND + self.mlp(self.norm2(x_ND))
        if x_ND.dtype == torch.float16:  # Whisper's large layers overflow half precision
            limit = torch.finfo(torch.float16).max - 1000
            x_ND = x_ND.clamp(-limit, limit)
        return x_ND


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)  # cached: a tensor born in inference mode can never be trained with
def sinusoids(length: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Whisper's positions (length, width): sines, then cosines, of frequencies from 1 down to 1 / 10000."""
    half = width // 2
    frequencies = torch.exp(
        -math.log(10_000) / (half - 1) * torch.arange(half, device="cpu", dtype=torch.float32)
    )
    angles = torch.arange(length, device="cpu", dtype=torch.float32)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1).to(device, dtype)
