"""Resampler: pcm (B, S) at one rate -> pcm (B, ceil(S * out / in)) at another, piece by piece, to the sample.

    rates in : out = M : L in lowest terms;  every M input samples give L output samples
    output l of a group stands at l * M / L input samples:  y_l = sum_k x_k h(l M / L - k),  h a Kaiser-windowed sinc

L filters side by side are one strided convolution. soxr, which reads files, keeps its state in a library: it can be neither
copied nor saved nor compared with itself, so live sound has its own filter; their distance is in docs/conversation.md.

B rows, S samples, L outputs and M inputs a group.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from thinktalk.errors import InputError
from thinktalk.stream import State, StreamModule

__all__ = ["Resampler", "ResamplerState", "resampler"]

ZERO_CROSSINGS = 64  # of the sinc on each side
ROLL_OFF = 0.945  # pass band over Nyquist; stop band from about 1 on
KAISER_BETA = 14.77  # side lobes 140 dB down
MIN_RATE, MAX_RATE = 1000, 768_000
MAX_FILTER = (
    8_000_000  # numbers in the L filters: rates without a common measure would need gigabytes
)


@dataclass
class ResamplerState(State):
    """The recent input, from `context` samples before the group under way; zeros before the start."""

    pcm: Tensor  # (B, context .. context + M + half - 1)


class Resampler(StreamModule):
    """Any usual rate to any other; equal rates pass through.

    >>> Resampler(48_000, 16_000)(torch.zeros(1, 4800)).shape
    torch.Size([1, 1600])
    """

    def __init__(self, rate: int, to: int = 16_000):
        super().__init__()
        if not all(isinstance(r, int) and MIN_RATE <= r <= MAX_RATE for r in (rate, to)):
            raise InputError(
                f"rate {rate}: expected whole samples a second, {MIN_RATE} to {MAX_RATE}"
            )
        self.ratio = Fraction(to, rate)
        self.L, self.M = self.ratio.numerator, self.ratio.denominator
        cutoff = ROLL_OFF * min(1.0, self.L / self.M)  # of the input's Nyquist
        self.half = 0 if self.L == self.M else math.ceil(ZERO_CROSSINGS / cutoff)
        self.context = (
            -(-self.half // self.M) * self.M
        )  # whole groups, so that lengths tell the phase
        self.cutoff = cutoff
        if self.L * (self.context + self.M + self.half) > MAX_FILTER:
            raise InputError(
                f"rate {rate}: has no usual ratio to {to}; resample it first, for example to {to}"
            )

    @property
    def lookahead(self) -> int:  # type: ignore[override]
        """A group leaves when the filter of its last output has all it hears."""
        return self.M - 1 + self.half

    def init_state(self, batch: int, *, device=None, dtype=None, allocator=None) -> ResamplerState:
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
        return ResamplerState(torch.zeros(batch, self.context, device=device, dtype=dtype))

    def step(self, x: Tensor, state: ResamplerState, *, last: bool = False) -> Tensor:
        if self.half == 0:
            return x.to(state.pcm.dtype)
        pcm = torch.cat([state.pcm, x.to(state.pcm.dtype)], 1)
        fresh = pcm.shape[1] - self.context  # inputs of groups not given out yet
        if last:
            outputs = math.ceil(fresh * self.ratio)
            groups = -(-outputs // self.L)
            pcm = F.pad(pcm, (0, self.M + self.half))
        else:
            groups = max(0, (fresh - self.half) // self.M)
            outputs = groups * self.L
        if not groups:
            state.pcm = pcm[:, : self.context + fresh]
            return pcm[:, :0]
        filters_L1K = _filters(self, pcm.device, pcm.dtype)
        heard = pcm[:, : (groups - 1) * self.M + filters_L1K.shape[2]]
        y_BLG = F.conv1d(heard[:, None], filters_L1K, stride=self.M)
        state.pcm = pcm[:, groups * self.M :].clone()
        return y_BLG.transpose(1, 2).reshape(len(x), -1)[:, :outputs]


@functools.lru_cache(maxsize=16)
def resampler(rate: int, to: int = 16_000) -> Resampler:
    """The Resampler of these rates; it has no weights and no memory, so one serves all."""
    return Resampler(rate, to)


def _filters(module: Resampler, device: torch.device, dtype: torch.dtype) -> Tensor:
    return _design(module.L, module.M, module.half, module.context, module.cutoff, device, dtype)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def _design(
    L: int, M: int, half: int, context: int, cutoff: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """The filters (L, 1, K) of the L outputs of a group, over K inputs from `context` before its first."""
    K = context + M + half
    steps = torch.arange(L, dtype=torch.float64)[:, None] * M / L + context
    t_LK = steps - torch.arange(K, dtype=torch.float64)  # input samples from the output's place
    inside = (1 - (t_LK / half).square()).clamp(min=0)
    kaiser = torch.special.i0(KAISER_BETA * inside.sqrt()) / torch.special.i0(
        torch.tensor(KAISER_BETA, dtype=torch.float64)
    )
    h_LK = torch.sinc(cutoff * t_LK) * kaiser * (t_LK.abs() <= half)
    h_LK = h_LK / h_LK.sum(1, keepdim=True)  # silence stays silence, a constant stays itself
    return h_LK[:, None].to(device, dtype).contiguous()
