"""Voices: a reference mel (B, T, 80) -> who speaks (B, 128), by ECAPA-TDNN (Desplanques 2020).

Letters: B rows, C channels, T mel frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.config import SpeakerEncoderConfig

__all__ = ["SpeakerEncoder", "Voice"]

MIN_STD_SQUARED = 1e-12  # the reference clamps the variance, not the deviation


@dataclass(frozen=True)
class Voice:
    """Who speaks: what code2wav hears of a voice, and the token that tells the Talker."""

    name: str
    cond: Tensor  # (1, 192) speaker vector
    ref_mel: Tensor  # (1, T, 80) natural-log mel of a sample of the voice
    bos_token: int  # Thinker token that opens the Talker's input

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None = None) -> Self:
        """The same voice on another device or in another precision."""
        return replace(
            self, cond=self.cond.to(device, dtype), ref_mel=self.ref_mel.to(device, dtype)
        )


class TDNN(nn.Module):
    """Convolution over time that keeps the length (mirrored edges), then ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, dilation: int):
        super().__init__()
        self.conv = nn.Conv1d(
            channels_in, channels_out, kernel, dilation=dilation, padding="same", padding_mode="reflect"
        )  # fmt: skip

    def forward(self, x_BCT: Tensor) -> Tensor:
        return F.relu(self.conv(x_BCT))


class SqueezeExcitation(nn.Module):
    """Each channel scaled by what the clip's mean says of it."""

    def __init__(self, channels: int, bottleneck: int):
        super().__init__()
        self.conv1 = nn.Conv1d(channels, bottleneck, 1)
        self.conv2 = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, x_BCT: Tensor) -> Tensor:
        mean_BC1 = x_BCT.mean(2, keepdim=True)
        return x_BCT * torch.sigmoid(self.conv2(F.relu(self.conv1(mean_BC1))))


class SERes2Net(nn.Module):
    """1x1, a ladder of narrow convolutions (each group hears the one before), 1x1, squeeze-excitation, residual."""

    def __init__(
        self, channels_in: int, channels: int, kernel: int, dilation: int, scale: int, bottleneck: int
    ):  # fmt: skip
        super().__init__()
        self.tdnn1 = TDNN(channels_in, channels, 1, 1)
        narrow = channels // scale
        self.res2net = nn.ModuleList(
            TDNN(narrow, narrow, kernel, dilation) for _ in range(scale - 1)
        )
        self.tdnn2 = TDNN(channels, channels, 1, 1)
        self.se = SqueezeExcitation(channels, bottleneck)
        self.scale = scale

    def forward(self, x_BCT: Tensor) -> Tensor:
        first, *groups = self.tdnn1(x_BCT).chunk(self.scale, 1)
        outputs = [first]
        for i, (tdnn, group) in enumerate(zip(self.res2net, groups, strict=True)):
            outputs.append(tdnn(group if i == 0 else group + outputs[-1]))
        return x_BCT + self.se(self.tdnn2(torch.cat(outputs, 1)))


class AttentivePooling(nn.Module):
    """Mean and deviation over time, weighted by attention that also hears the plain mean and deviation."""

    def __init__(self, channels: int, bottleneck: int):
        super().__init__()
        self.tdnn = TDNN(3 * channels, bottleneck, 1, 1)
        self.conv = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, x_BCT: Tensor) -> Tensor:
        T = x_BCT.shape[2]
        even = torch.full_like(x_BCT[:, :1], 1 / T)
        context = [s.unsqueeze(2).expand(-1, -1, T) for s in _mean_and_std(x_BCT, even)]
        scores_BCT = self.conv(torch.tanh(self.tdnn(torch.cat([x_BCT, *context], 1))))
        return torch.cat(_mean_and_std(x_BCT, scores_BCT.softmax(2)), 1).unsqueeze(2)


def _mean_and_std(x_BCT: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    mean_BC = (weight * x_BCT).sum(2)
    variance_BC = (weight * (x_BCT - mean_BC.unsqueeze(2)).square()).sum(2)
    return mean_BC, variance_BC.clamp(MIN_STD_SQUARED).sqrt()


class SpeakerEncoder(nn.Module):
    """ECAPA-TDNN: reference mel (B, T, num_mels) -> speaker vector (B, out_width)."""

    def __init__(self, config: SpeakerEncoderConfig, num_mels: int = 80):
        super().__init__()
        c, k, d = config.channels, config.kernels, config.dilations
        self.blocks = nn.ModuleList([TDNN(num_mels, c[0], k[0], d[0])])
        for i in range(1, len(c) - 1):
            self.blocks.append(
                SERes2Net(c[i - 1], c[i], k[i], d[i], config.res2net_scale, config.se_channels)
            )
        self.mfa = TDNN(c[-1], c[-1], k[-1], d[-1])
        self.pool = AttentivePooling(c[-1], config.attention_channels)
        self.fc = nn.Conv1d(2 * c[-1], config.out_width, 1)
        self.min_frames = 1 + max(d * (k - 1) // 2 for k, d in zip(k, d, strict=True))
        """Fewest frames that the mirrored edges need."""

    def forward(self, mel_BTC: Tensor) -> Tensor:
        x = self.blocks[0](mel_BTC.transpose(1, 2))
        levels = []
        for block in self.blocks[1:]:
            x = block(x)
            levels.append(x)
        return self.fc(self.pool(self.mfa(torch.cat(levels, 1)))).squeeze(2)
