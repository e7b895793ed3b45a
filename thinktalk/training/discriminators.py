"""Discriminators: waves (B, S) -> scores and inner features; two families that listen differently.

    PeriodDiscriminator   every p-th sample side by side, so that (S / p, p) is a picture: pitch and its faults (Kong 2020)
    ScaleDiscriminator    the magnitude spectrogram at one window length: hiss, blur, metal (Jang 2021, UnivNet)

They exist in training only and are never shipped. Letters: B rows, S samples, p period, C channels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["Discriminators", "Heard", "PeriodDiscriminator", "ScaleDiscriminator"]

SLOPE = 0.1  # of leaky ReLU below zero

Heard = tuple[Tensor, list[Tensor]]
"""Scores (B, ...), one for each patch of the wave, and the features of every layer."""


class _Stack(nn.Module):
    """Convolutions with leaky ReLUs, and a last one that scores."""

    def __init__(self, convs: Sequence[nn.Conv2d], score: nn.Conv2d):
        super().__init__()
        self.convs = nn.ModuleList(weight_norm(conv) for conv in convs)
        self.score = weight_norm(score)

    def listen(self, x_BCHW: Tensor) -> Heard:
        features = []
        for conv in self.convs:
            x_BCHW = F.leaky_relu(conv(x_BCHW), SLOPE)
            features.append(x_BCHW)
        score = self.score(x_BCHW)
        return score.flatten(1), [*features, score]


class PeriodDiscriminator(_Stack):
    """Judges waves (B, S) by what repeats with one period."""

    def __init__(self, period: int, channels: Sequence[int] = (16, 64, 128, 256)):
        widths = [1, *channels]
        convs = [
            nn.Conv2d(narrow, wide, (5, 1), (3, 1), padding=(2, 0))
            for narrow, wide in pairwise(widths)
        ]
        convs.append(nn.Conv2d(widths[-1], widths[-1], (5, 1), padding=(2, 0)))
        super().__init__(convs, nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))
        self.period = period

    def forward(self, wave_BS: Tensor) -> Heard:
        wave_BS = F.pad(wave_BS[:, None], (0, -wave_BS.shape[1] % self.period), mode="reflect")[:, 0]  # fmt: skip
        return self.listen(wave_BS.unflatten(1, (-1, self.period))[:, None])


class ScaleDiscriminator(_Stack):
    """Judges waves (B, S) by their magnitudes in windows of n_fft samples."""

    def __init__(self, n_fft: int, channels: int = 32):
        convs = [nn.Conv2d(1, channels, (3, 9), padding=(1, 4))]
        convs += [nn.Conv2d(channels, channels, (3, 9), (1, 2), padding=(1, 4)) for _ in range(3)]
        convs.append(nn.Conv2d(channels, channels, 3, padding=1))
        super().__init__(convs, nn.Conv2d(channels, 1, 3, padding=1))
        self.n_fft = n_fft

    def forward(self, wave_BS: Tensor) -> Heard:
        hop = self.n_fft // 4
        edge = (self.n_fft - hop) // 2
        wave_BS = F.pad(wave_BS[:, None], (edge, edge), mode="reflect")[:, 0]
        window = _hann(self.n_fft, wave_BS.device, wave_BS.dtype)
        spectrum_BFT = torch.stft(
            wave_BS, self.n_fft, hop, window=window, center=False, return_complex=True
        )
        power = spectrum_BFT.real.square() + spectrum_BFT.imag.square()
        return self.listen((power + 1e-9).sqrt().transpose(1, 2)[:, None])


class Discriminators(nn.Module):
    """All of them; each hears every wave."""

    def __init__(
        self,
        *,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        period_channels: Sequence[int] = (16, 64, 128, 256),
        windows: Sequence[int] = (2048, 1024, 512),
        scale_channels: int = 32,
    ):
        super().__init__()
        self.judges = nn.ModuleList(
            [*(PeriodDiscriminator(p, period_channels) for p in periods),
             *(ScaleDiscriminator(n, scale_channels) for n in windows)]
        )  # fmt: skip

    def forward(self, wave_BS: Tensor) -> list[Heard]:
        return [judge(wave_BS) for judge in self.judges]


@functools.cache
@torch.inference_mode(False)
def _hann(n_fft: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.hann_window(n_fft, dtype=torch.float64).to(dtype).to(device)
