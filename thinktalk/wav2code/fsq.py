"""FSQ (Mentzer et al. 2023): x (..., D) -> a few numbers, each rounded to a few levels -> one code; no codebook is learnt.

    z = down(x)                     (..., d)          d numbers, d = len(levels)
    b = tanh(z + shift) * half - offset               number i stays within levels[i] whole numbers
    r = round(b)                                      straight through: d r / d b = 1
    code = sum_i (r_i + levels[i] // 2) * basis[i]    mixed radix, number 0 the fastest
    up(r / (levels // 2))           (..., D)          what layers above hear

Nothing can collapse: every code is a point of the grid, used as soon as encodings spread. Numbers are float32 at least,
else half precision would round before the rounding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thinktalk.layers.linear import Linear

__all__ = ["FSQ", "Quantised"]

MARGIN = 1e-3  # tanh never reaches 1: the outer levels must be reachable


@dataclass(frozen=True)
class Quantised:
    """What a quantiser made of x (..., D)."""

    embedding: Tensor  # (..., D) for the layers above; gradients pass the rounding
    indices: Tensor  # (...) int64, 0 to num_codes - 1
    bounded: Tensor  # (..., d) before the rounding, in levels
    rounded: Tensor  # (..., d) whole numbers, gradients pass straight through


class FSQ(nn.Module):
    """Finite scalar quantiser with its projections down and up."""

    def __init__(self, width: int, levels: Sequence[int]):
        super().__init__()
        self.levels = tuple(levels)
        self.down = Linear(width, len(self.levels))
        self.up = Linear(len(self.levels), width)

    @property
    def num_codes(self) -> int:
        return math.prod(self.levels)

    def forward(self, x: Tensor) -> Quantised:
        """Quantise x (..., D).

        >>> FSQ(16, (8, 5, 5, 5))(torch.randn(2, 7, 16)).indices.shape
        torch.Size([2, 7])
        """
        z = self.down(x)
        bounded = self.bound(z.to(torch.promote_types(z.dtype, torch.float32)))
        rounded = bounded - bounded.detach() + bounded.detach().round()  # exactly whole numbers
        return Quantised(self._lift(rounded), self.index(rounded.detach()), bounded, rounded)

    def bound(self, z: Tensor) -> Tensor:
        """Numbers (..., d) of any size -> between the outer levels of each."""
        half, offset, shift = _bounds(self.levels, z.device, z.dtype)
        return torch.tanh(z + shift) * half - offset

    def index(self, rounded: Tensor) -> Tensor:
        """Whole numbers (..., d) -> indices (...)."""
        lowest, basis, _ = _radix(self.levels, rounded.device)
        return ((rounded.long() - lowest) * basis).sum(-1)

    def grid(self, indices: Tensor) -> Tensor:
        """Indices (...) -> whole numbers (..., d), the inverse of `index`, float32."""
        lowest, basis, sizes = _radix(self.levels, indices.device)
        return (indices[..., None] // basis % sizes + lowest).float()

    def embed(self, indices: Tensor) -> Tensor:
        """What the layers above hear of indices (...): (..., D), as `forward` gave it when it made them."""
        return self._lift(self.grid(indices))

    def _lift(self, rounded: Tensor) -> Tensor:
        lowest, _, _ = _radix(self.levels, rounded.device)
        return self.up((rounded / -lowest).to(self.up.weight.dtype))


@functools.cache
@torch.inference_mode(False)  # kept for every caller, those that train among them
def _bounds(
    levels: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """half, offset, shift (d,): an even number of levels has no middle, so it is moved by half a level, and 0 stays 0."""
    count = torch.tensor(levels, dtype=torch.float64)
    half = (count - 1) * (1 + MARGIN) / 2
    offset = torch.where(count % 2 == 0, 0.5, 0.0).double()
    shift = torch.atanh(offset / half)
    return tuple(t.to(dtype).to(device) for t in (half, offset, shift))  # type: ignore[return-value]


@functools.cache
@torch.inference_mode(False)
def _radix(levels: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of each number its lowest value, what one step of it is worth, and how many values it has, (d,) int64."""
    sizes = torch.tensor(levels, device=device)
    basis = [math.prod(levels[:i]) for i in range(len(levels))]
    return -(sizes // 2), torch.tensor(basis, device=device), sizes
