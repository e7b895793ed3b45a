"""The streaming law of the vocoder: windows of mel give the wave of the whole, sample for sample."""

from __future__ import annotations

import pytest
import torch
from law import check_law
from torch import Tensor, nn

from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.config import BigVGANConfig

SMALL = BigVGANConfig(
    num_mels=16, initial_channels=16, upsample_rates=(3, 2), upsample_kernels=(7, 4),
    resblock_kernels=(3, 5), resblock_dilations=((1, 3), (1, 2)),
)  # fmt: skip


def make_vocoder(config: BigVGANConfig) -> BigVGAN:
    """Weights of gain 1, or the output would not hear the input; the last layer keeps the wave inside [-1, 1]."""
    torch.manual_seed(0)
    vocoder = BigVGAN(config)
    with torch.no_grad():
        for name, p in vocoder.named_parameters():
            fan_in = p.shape[0] * p.shape[-1] // 2 if "ups." in name else p[0].numel()
            nn.init.normal_(p, std=0.1 if p.ndim == 1 else fan_in**-0.5)
        vocoder.conv_post.weight.mul_(0.02)
    return vocoder


def mel(bands: int):
    def make_input(batch: int, length: int, generator: torch.Generator) -> Tensor:
        return torch.randn(batch, bands, length, generator=generator, dtype=torch.float64) - 3

    return make_input


def test_vocoder_streams() -> None:
    """Left and look-ahead contexts derived from the configuration are enough for any chunking."""
    vocoder = make_vocoder(SMALL)
    check_law(vocoder, mel(16), max_length=3 * (vocoder.left + vocoder.lookahead), examples=8)


@pytest.mark.parametrize("side", ["left", "lookahead"])
def test_planted_short_context(side: str) -> None:
    """Half of either context is not enough, and the law says so."""
    vocoder = make_vocoder(SMALL)
    setattr(vocoder, side, getattr(vocoder, side) // 2)
    with pytest.raises(AssertionError, match="law"):
        check_law(vocoder, mel(16), max_length=60, examples=0)


def test_official_kernels_stream() -> None:
    """The same with the official kernels and rates, on narrow channels."""
    vocoder = make_vocoder(BigVGANConfig(num_mels=16, initial_channels=64)).double()
    x = mel(16)(1, 150, torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = vocoder(x)
        state = vocoder.init_state(1, dtype=torch.float64)
        sizes = [24, 1, 60, 0, 65]
        parts = [
            vocoder.step(chunk, state, last=i == len(sizes) - 1)
            for i, chunk in enumerate(x.split(sizes, 2))
        ]
    assert parts[0].shape[1] == 0  # 24 frames are less than the look-ahead
    joined = torch.cat(parts, 1)
    assert joined.shape == (1, 150 * 240)
    assert (
        joined - whole
    ).abs().max() <= 1e-10  # float64 rounds at 1e-16, sums in another order at 1e-13
