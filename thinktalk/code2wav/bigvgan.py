"""BigVGAN (Lee et al. 2023): natural-log mel (B, 80, T) -> wave (B, 240 T) in [-1, 1]; streams with a few frames of context.

Letters: B rows, C channels, T mel frames, L time steps of an inner scale.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.config import BigVGANConfig, ConfigError
from thinktalk.stream import Windowed

__all__ = ["BigVGAN", "receptive_field"]

MIN_DB, REFERENCE_DB = -115.0, 20.0
TAPS = 12  # of the anti-aliasing filter, for a factor of 2
EDGE_KERNEL = 7  # width of the first and the last convolution


class SnakeBeta(nn.Module):
    """x + sin^2(a x) / b with a = e^alpha, b = e^beta a channel, computed at twice the rate so that it does not alias."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCL: Tensor) -> Tensor:
        C = x_BCL.shape[1]
        taps = _filter(x_BCL.device, x_BCL.dtype).expand(C, 1, TAPS)
        x = F.pad(x_BCL, (5, 5), mode="replicate")
        x = F.conv_transpose1d(x, 2 * taps, stride=2, groups=C)[..., 15:-15]
        a, b = self.alpha.exp()[:, None], self.beta.exp()[:, None] + 1e-9
        x = x + (x * a).sin().square() / b
        return F.conv1d(F.pad(x, (5, 6), mode="replicate"), taps, stride=2, groups=C)


class AMPBlock(nn.Module):
    """Dilated residual convolutions with anti-aliased periodic activations before each."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()
        conv = functools.partial(nn.Conv1d, channels, channels, kernel, padding="same")
        self.convs1 = nn.ModuleList(conv(dilation=d) for d in dilations)
        self.convs2 = nn.ModuleList(conv() for _ in dilations)
        self.activations = nn.ModuleList(SnakeBeta(channels) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        acts1, acts2 = self.activations[::2], self.activations[1::2]
        for act1, conv1, act2, conv2 in zip(acts1, self.convs1, acts2, self.convs2, strict=True):
            x = x + conv2(act2(conv1(act1(x))))
        return x


class BigVGAN(Windowed):
    """Mel to wave; `left` and `lookahead` frames are the exact receptive field, derived from the config."""

    time_dim, out_time_dim = 2, 1

    def __init__(self, config: BigVGANConfig):
        super().__init__()
        self.config = config
        rates, kernels = config.upsample_rates, config.upsample_kernels
        if any((k - r) % 2 or k < r for k, r in zip(kernels, rates, strict=True)):
            raise ConfigError(f"vocoder upsample_kernels {kernels} must exceed upsample_rates {rates} by even numbers")  # fmt: skip
        widths = [config.initial_channels >> i for i in range(len(rates) + 1)]
        self.conv_pre = nn.Conv1d(config.num_mels, widths[0], EDGE_KERNEL, padding=EDGE_KERNEL // 2)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(wide, narrow, k, r, padding=(k - r) // 2)
            for wide, narrow, k, r in zip(widths, widths[1:], kernels, rates, strict=False)
        )
        self.resblocks = nn.ModuleList(
            AMPBlock(width, k, d)
            for width in widths[1:]
            for k, d in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
        )
        self.activation_post = SnakeBeta(widths[-1])
        self.conv_post = nn.Conv1d(widths[-1], 1, EDGE_KERNEL, padding=EDGE_KERNEL // 2, bias=False)
        self.ratio = Fraction(config.hop)
        self.left, self.lookahead = receptive_field(config)

    def compute(self, window: Tensor) -> Tensor:
        _, C, _ = window.shape
        assert C == self.config.num_mels, f"expected {self.config.num_mels} mel bands, got {C}"
        x = self.conv_pre(_decibels(window))
        per_scale = len(self.config.resblock_kernels)
        for i, up in enumerate(self.ups):
            x = up(x)
            blocks = self.resblocks[i * per_scale : (i + 1) * per_scale]
            x = sum(block(x) for block in blocks) / per_scale
        return self.conv_post(self.activation_post(x)).squeeze(1).clamp(-1, 1)

    def empty_input(self, batch: int, *, device=None, dtype=None) -> Tensor:
        return torch.zeros(batch, self.config.num_mels, 0, device=device, dtype=dtype)

    def empty_output(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 0)


def receptive_field(config: BigVGANConfig) -> tuple[int, int]:
    """Mel frames before and after frame i that its samples depend on: (23, 25) officially."""

    def reach(lo: int, hi: int) -> tuple[int, int]:
        """Of samples lo..hi, walk back through the network to the frames lo..hi they hear."""
        snake, edge = (
            TAPS // 2 - 1,
            EDGE_KERNEL // 2,
        )  # z hears z - 5 .. z + 5 through up, snake and down
        lo, hi = lo - edge - snake, hi + edge + snake
        for rate, kernel in zip(reversed(config.upsample_rates), reversed(config.upsample_kernels), strict=True):  # fmt: skip
            width = max(
                sum(2 * snake + (k - 1) // 2 * (d + 1) for d in dilations)
                for k, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
            )  # fmt: skip
            pad = (kernel - rate) // 2
            lo, hi = -((kernel - 1 - pad - lo + width) // rate), (hi + width + pad) // rate
        return lo - edge, hi + edge

    lo, hi = reach(0, config.hop - 1)
    return -lo, hi


def _decibels(mel: Tensor) -> Tensor:
    """Natural-log mel to [-1, 1]: -115 dB to 0 dB after a shift of 20 dB."""
    floor = 10 ** (MIN_DB / 20)
    db = 20 * mel.exp().clamp(min=floor).log10() - REFERENCE_DB
    return (2 * (db - MIN_DB) / -MIN_DB - 1).clamp(-1, 1)


@functools.cache
def _filter(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Kaiser-windowed sinc, half the band, gain 1: (12,)."""
    half, cutoff, half_width = TAPS // 2, 0.25, 0.3
    attenuation = 2.285 * (half - 1) * math.pi * 4 * half_width + 7.95
    beta = 0.1102 * (attenuation - 8.7) if attenuation > 50 else 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)  # fmt: skip
    window = torch.kaiser_window(TAPS, periodic=False, beta=beta, dtype=torch.float32)
    taps = 2 * cutoff * window * torch.sinc(2 * cutoff * (torch.arange(-half, half) + 0.5))
    return (taps / taps.sum()).to(device, dtype)
