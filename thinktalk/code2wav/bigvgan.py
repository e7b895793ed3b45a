"""BigVGAN (Lee et al. 2023): natural-log mel (B, 80, T) -> wave (B, 240 T) in [-1, 1]; streams with a few frames of context.

Letters: B rows, C channels, T mel frames, L time steps of an inner scale.
"""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.code2wav.snake import REACH, SnakeBeta
from thinktalk.config import BigVGANConfig
from thinktalk.errors import ConfigError
from thinktalk.stream import Windowed

__all__ = ["BigVGAN", "receptive_field"]

MIN_DB, REFERENCE_DB = -115.0, 20.0
EDGE_KERNEL = 7  # width of the first and the last convolution


class Conv(nn.Conv1d):
    """Convolution along time of (B, C, 1, L): channels last in memory is a 2-D privilege in torch."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:  # there is nothing to fill, and a vocoder has a hundred of them
            super().reset_parameters()

    def forward(self, x_BC1L: Tensor) -> Tensor:
        padding, dilation = (0, self.padding[0]), (1, self.dilation[0])
        x, weight = _same_layout(x_BC1L, self.weight)
        y = F.conv2d(x, weight, self.bias, padding=padding, dilation=dilation)
        return _like(y, x_BC1L)


class Upsample(nn.ConvTranspose1d):
    """Transposed convolution along time of (B, C, 1, L)."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:  # there is nothing to fill, and a vocoder has a hundred of them
            super().reset_parameters()

    def forward(self, x_BC1L: Tensor) -> Tensor:
        padding, stride = (0, self.padding[0]), (1, self.stride[0])
        x, weight = _same_layout(x_BC1L, self.weight)
        y = F.conv_transpose2d(x, weight, self.bias, stride=stride, padding=padding)
        return _like(y, x_BC1L)


def _same_layout(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Input and 2-D weight in one memory order; torch would rearrange the weight, so the smaller one is rearranged."""
    return x.contiguous() if weight.numel() > 2 * x.numel() else x, weight.unsqueeze(2)


def _like(y: Tensor, x: Tensor) -> Tensor:
    """y channels last where x is."""
    last = torch.channels_last
    return y.contiguous(memory_format=last) if x.is_contiguous(memory_format=last) else y


class AMPBlock(nn.Module):
    """Dilated residual convolutions with anti-aliased periodic activations before each."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()

        def conv(dilation: int) -> Conv:
            padding = dilation * (kernel - 1) // 2
            return Conv(channels, channels, kernel, dilation=dilation, padding=padding)

        self.convs1 = nn.ModuleList(conv(d) for d in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
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
        self.conv_pre = Conv(config.num_mels, widths[0], EDGE_KERNEL, padding=EDGE_KERNEL // 2)
        self.ups = nn.ModuleList(
            Upsample(wide, narrow, k, r, padding=(k - r) // 2)
            for wide, narrow, k, r in zip(widths, widths[1:], kernels, rates, strict=False)
        )
        self.resblocks = nn.ModuleList(
            AMPBlock(width, k, d)
            for width in widths[1:]
            for k, d in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
        )
        self.activation_post = SnakeBeta(widths[-1])
        self.conv_post = Conv(widths[-1], 1, EDGE_KERNEL, padding=EDGE_KERNEL // 2, bias=False)
        self.ratio = Fraction(config.hop)
        self.left, self.lookahead = receptive_field(config)

    def compute(self, window: Tensor) -> Tensor:
        bands = window.shape[1]
        assert bands == self.config.num_mels, (
            f"expected {self.config.num_mels} mel bands, got {bands}"
        )
        x = _decibels(window).unsqueeze(2)
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.conv_pre(x)
        per_scale = len(self.config.resblock_kernels)
        for i, up in enumerate(self.ups):
            x = up(x)
            blocks = self.resblocks[i * per_scale : (i + 1) * per_scale]
            x = sum(block(x) for block in blocks) / per_scale
        return self.conv_post(self.activation_post(x))[:, 0, 0].clamp(-1, 1)

    def empty_input(self, batch: int, *, device=None, dtype=None) -> Tensor:
        return torch.zeros(batch, self.config.num_mels, 0, device=device, dtype=dtype)

    def empty_output(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 0)


def receptive_field(config: BigVGANConfig, *, snake_reach: int = REACH) -> tuple[int, int]:
    """Mel frames before and after frame i that its samples depend on: (34, 34) officially.

    `snake_reach` is how far an anti-aliased activation is taken to hear, in samples; 0 counts the convolutions alone.
    """

    def reach(lo: int, hi: int) -> tuple[int, int]:
        """Of samples lo..hi, walk back through the network to the frames lo..hi they hear."""
        edge = EDGE_KERNEL // 2
        lo, hi = lo - edge - snake_reach, hi + edge + snake_reach
        for rate, kernel in zip(reversed(config.upsample_rates), reversed(config.upsample_kernels), strict=True):  # fmt: skip
            width = max(
                sum(2 * snake_reach + (k - 1) // 2 * (d + 1) for d in dilations)
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
