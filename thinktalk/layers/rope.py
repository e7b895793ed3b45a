"""Multimodal rotary positions (TMRoPE): ids (B, 3, T) -> cos, sin (B, T, 1, K), made once a step and shared by all layers.

Letters: B rows, T time steps, H heads, K head width. Frequency f of a head turns with the time, height or width id of its
token; `sections` says how many frequencies each axis gets. Halves are paired: value i with value i + K / 2.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Rotary", "rotary", "rotate"]


class Rotary(NamedTuple):
    """The turn of every token of a step."""

    cos: Tensor  # (B, T, 1, K)
    sin: Tensor  # (B, T, 1, K), negative in the first half: see rotate


@functools.lru_cache(maxsize=32)
def _frequencies(
    sections: tuple[int, int, int], theta: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(K,) signed frequencies (radians an id) and (K,) the axis each one reads."""
    with torch.inference_mode(False):  # constants outlive the call; training may use them next
        half = sum(sections)
        axis = torch.repeat_interleave(torch.arange(3), torch.tensor(sections))
        exponent = torch.arange(0, 2 * half, 2, dtype=torch.float32) / (2 * half)
        # Su et al. 2021, eq. 15, in float32 as the reference computes it (float64 only follows it for the law tests)
        frequency = (1.0 / theta**exponent).to(dtype)
        # cos(-a) = cos(a) and sin(-a) = -sin(a): the sign of the first half of sin costs nothing
        return torch.cat((-frequency, frequency)).to(device), axis.repeat(2).to(device)


def rotary(
    positions: Tensor, *, sections: tuple[int, int, int], theta: float, dtype: torch.dtype
) -> Rotary:
    """Turns of positions (B, 3, T) int64, computed in float32 (float64 for float64) and then cast to `dtype`."""
    precise = torch.promote_types(dtype, torch.float32)
    frequency_K, axis_K = _frequencies(sections, theta, positions.device, precise)
    ids_BTK = positions.transpose(1, 2).index_select(2, axis_K)
    angle_BT1K = (ids_BTK * frequency_K).unsqueeze(2)  # int64 x precise = precise
    cos, sin = angle_BT1K.cos(), angle_BT1K.sin()
    return Rotary(cos, sin) if precise is dtype else Rotary(cos.to(dtype), sin.to(dtype))


def rotate(x_BTHK: Tensor, turn: Rotary) -> Tensor:
    """Turn queries or keys: (x1 cos - x2 sin, x2 cos + x1 sin), halves paired."""
    half = x_BTHK.shape[-1] // 2
    return x_BTHK.roll(half, -1).mul_(turn.sin).addcmul_(x_BTHK, turn.cos)  # one new tensor only
