"""SnakeBeta (Lee et al. 2023, BigVGAN): x + sin^2(a x) / b at twice the rate, so that it does not alias; and its way back.

    u = U x                       twice the rate, times b: the rest needs no division
    y = D (u + sin^2(r u)),       r = a / b; D filters, keeps every second sample and divides by b

A Kaiser-windowed sinc does both, and each is the other's transpose but for the ends, where samples are repeated.
So the gradient is one more U and one more D:

    dh = D' dy,  du = dh (1 + r sin(2 r u)),  dx = U' du,  d alpha = sum dh r u sin(2 r u),  d beta = -sum dh sin^2(r u)

Only x and y are kept for it, which the layers around keep anyway, and the taps, which do not learn, cost nothing.

Letters: B rows, C channels, L time steps, P the two phases of the doubled rate.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["REACH", "SnakeBeta"]

TAPS = 12  # of the anti-aliasing filter, for a factor of 2
REACH = TAPS // 2 - 1  # samples to each side that an anti-aliased activation hears: 5
TILE_NUMBERS = 1 << 18  # an activation's working set: 1 MB, 2 MB at twice the rate


class SnakeBeta(nn.Module):
    """(B, C, 1, L) -> the same shape; a = e^alpha and b = e^beta a channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BC1L: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return _Snake.apply(x_BC1L, self.alpha, self.beta)
        return _forward(x_BC1L, self.alpha, self.beta)


def _forward(x_BC1L: Tensor, alpha_C: Tensor, beta_C: Tensor) -> Tensor:
    rate_1C11, b_C111 = _scales(alpha_C, beta_C)
    taps = _filter(x_BC1L.device, x_BC1L.dtype)
    up, down = _phases(2 * b_C111, taps), taps / b_C111
    tiles = _tiles(x_BC1L)
    if len(tiles) == 1:
        return _snake(x_BC1L, up, rate_1C11, down)
    return torch.cat([
        _snake(x_BC1L[..., first:end], up, rate_1C11, down)[..., start - first : stop - first]
        for first, start, stop, end in tiles
    ], 3)  # fmt: skip


class _Snake(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_BC1L: Tensor, alpha_C: Tensor, beta_C: Tensor) -> Tensor:
        y_BC1L = _forward(x_BC1L, alpha_C, beta_C)
        ctx.save_for_backward(x_BC1L, y_BC1L, alpha_C, beta_C)
        return y_BC1L

    @staticmethod
    def backward(ctx, grad_BC1L: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_BC1L, y_BC1L, alpha_C, beta_C = ctx.saved_tensors
        rate_1C11, b_C111 = _scales(alpha_C, beta_C)
        taps = _filter(x_BC1L.device, x_BC1L.dtype)
        up = _phases(2 * b_C111, taps)
        back_down, back_up = _phases(1 / b_C111, taps), (2 * b_C111) * taps
        grad_BC1L = grad_BC1L.to(x_BC1L.dtype)
        dx_BC1L = torch.zeros_like(x_BC1L)
        dalpha_C, dbeta_C = torch.zeros_like(alpha_C), -(grad_BC1L * y_BC1L).sum((0, 2, 3))
        for first, start, stop, end in _tiles(x_BC1L):
            grad = F.pad(grad_BC1L[..., start:stop], (start - first, end - stop))
            dx, dalpha, dbeta = _back(
                x_BC1L[..., first:end], grad, up, rate_1C11, back_down, back_up
            )
            dx_BC1L[..., first:end] += dx
            dalpha_C += dalpha
            dbeta_C += dbeta
        return dx_BC1L, dalpha_C, dbeta_C


def _scales(alpha_C: Tensor, beta_C: Tensor) -> tuple[Tensor, Tensor]:
    """r (1, C, 1, 1) and b (C, 1, 1, 1)."""
    b_C = beta_C.exp() + 1e-9
    return (alpha_C.exp() / b_C)[:, None, None], b_C[:, None, None, None]


def _tiles(x_BC1L: Tensor) -> list[tuple[int, int, int, int]]:
    """(first heard, first, last + 1, last heard + 1) of each tile: on a CPU the chain of operations stays in the cache."""
    L = x_BC1L.shape[3]
    tile = max(1, TILE_NUMBERS // max(1, x_BC1L[..., 0].numel()))
    if x_BC1L.device.type != "cpu" or 2 * tile >= L:
        return [(0, 0, L, L)]
    starts = range(0, L, tile)
    ends = [min(start + tile, L) for start in starts]
    return [(max(a - REACH, 0), a, b, min(b + REACH, L)) for a, b in zip(starts, ends, strict=True)]


def _phases(gain_C111: Tensor, taps: Tensor) -> Tensor:
    """Taps (2 C, 1, 1, 6) of the even and of the odd samples at twice the rate."""
    return torch.cat([gain_C111 * taps[start::2].flip(0) for start in (1, 0)])


def _double(x_BC1L: Tensor, up: Tensor) -> Tensor:
    """y[2m] = sum_j h[2j+1] x[m+2-j], y[2m+1] = sum_j h[2j] x[m+3-j]: (B, C, 1, L + 6) -> (B, C, 1, 2 L).

    Both phases of a channel come out of one depthwise convolution as neighbours in memory: no zeros are multiplied and
    nothing is interleaved.
    """
    B, C, _, L = x_BC1L.shape
    x = torch.cat([x_BC1L[..., :-1], x_BC1L[..., 1:]], 1)
    # the even phase hears x[m-3 .. m+2], the odd x[m-2 .. m+3]
    y_B2C1L = F.conv2d(x, up, groups=2 * C)
    y_BLPC = y_B2C1L.permute(0, 3, 2, 1).reshape(B, 2 * (L - 6), 1, C)
    return y_BLPC.permute(0, 3, 2, 1)


def _snake(x_BC1L: Tensor, up: Tensor, rate: Tensor, down: Tensor) -> Tensor:
    u = _double(F.pad(x_BC1L, (3, 3, 0, 0), mode="replicate"), up)
    wave = (u * rate).sin_()
    u = F.pad(torch.addcmul(u, wave, wave), (5, 6, 0, 0), mode="replicate")
    return F.conv2d(u, down, stride=(1, 2), groups=x_BC1L.shape[1])


def _back(
    x_BC1L: Tensor, grad_BC1L: Tensor, up: Tensor, rate: Tensor, back_down: Tensor, back_up: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, alpha and beta."""
    C = x_BC1L.shape[1]
    u = _double(F.pad(x_BC1L, (3, 3, 0, 0), mode="replicate"), up)
    dh = _fold(_double(F.pad(grad_BC1L, (6, 6)), back_down), 6)
    angle = u * (2 * rate)
    tilt = angle.sin_().mul_(dh).mul_(rate)  # dh r sin(2 r u)
    dalpha_C, dbeta_C = (tilt * u).sum((0, 2, 3)), (dh * u).sum((0, 2, 3))
    du = dh.add_(tilt)
    dx = F.conv2d(F.pad(du, (11, 11)), back_up, stride=(1, 2), groups=C)
    return _fold(dx, 3), dalpha_C, dbeta_C


def _fold(x_BC1L: Tensor, width: int) -> Tensor:
    """The transpose of repeating the first and the last sample `width` times."""
    body = x_BC1L[..., width:-width].clone()
    body[..., 0] += x_BC1L[..., :width].sum(3)
    body[..., -1] += x_BC1L[..., -width:].sum(3)
    return body


@functools.cache
def _filter(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Kaiser-windowed sinc, half the band, gain 1: (12,)."""
    half, cutoff, half_width = TAPS // 2, 0.25, 0.3
    attenuation = 2.285 * (half - 1) * math.pi * 4 * half_width + 7.95  # 51 dB
    beta = 0.1102 * (attenuation - 8.7)  # Kaiser's rule above 50 dB
    with torch.inference_mode(False):  # kept for every caller, those that train among them
        window = torch.kaiser_window(TAPS, periodic=False, beta=beta, dtype=torch.float32)
        taps = 2 * cutoff * window * torch.sinc(2 * cutoff * (torch.arange(-half, half) + 0.5))
        return (taps / taps.sum()).to(device, dtype)
