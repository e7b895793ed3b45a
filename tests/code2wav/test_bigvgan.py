"""BigVGAN: what a sample hears, tiles, lengths, layouts."""

from __future__ import annotations

import pytest
import torch

from thinktalk.code2wav import bigvgan
from thinktalk.code2wav import snake as snakes
from thinktalk.code2wav.bigvgan import BigVGAN, receptive_field
from thinktalk.code2wav.snake import SnakeBeta
from thinktalk.config import BigVGANConfig, nano
from thinktalk.errors import ConfigError

TINY = BigVGANConfig(num_mels=8, initial_channels=64)


def test_receptive_field_is_exact_by_construction() -> None:
    """With positive weights and no cancellation the derived field is tight: its edge moves a sample, beyond it none.

    Activations are made linear maps that hear all of their reach, so that no kernel tap is lost in rounding.
    """
    config = BigVGANConfig(
        num_mels=1, initial_channels=4, upsample_rates=(3, 2), upsample_kernels=(7, 4),
        resblock_kernels=(3,), resblock_dilations=((1, 2),),
    )  # fmt: skip
    vocoder = BigVGAN(config).double()
    left, ahead = vocoder.left, vocoder.lookahead
    spread = torch.ones(2 * bigvgan.REACH + 1, dtype=torch.float64) / (2 * bigvgan.REACH + 1)

    def smear(self: SnakeBeta, x: torch.Tensor) -> torch.Tensor:
        kernel = spread.expand(x.shape[1], 1, 1, -1)
        return torch.nn.functional.conv2d(x, kernel, padding=(0, bigvgan.REACH), groups=x.shape[1])

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(SnakeBeta, "forward", smear)
        patch.setattr(torch.Tensor, "clamp", lambda self, *a, **k: self)
        for p in vocoder.parameters():
            p.fill_(1.0)
        here = left + 3
        base = torch.zeros(1, 1, here + ahead + 4, dtype=torch.float64)
        hop = config.hop
        quiet = vocoder(base)[0, here * hop : (here + 1) * hop]
        for frame, heard in ((here - left, True), (here - left - 1, False), (here + ahead, True), (here + ahead + 1, False)):  # fmt: skip
            mel = base.clone()
            mel[..., frame] = 1.0
            loud = vocoder(mel)[0, here * hop : (here + 1) * hop]
            assert bool((loud - quiet).abs().max() > 0) == heard, f"frame {frame - here}"


def test_receptive_field_of_presets() -> None:
    """34 frames to each side officially; of these the outer 9 move a random model's wave by less than 1e-15."""
    assert receptive_field(BigVGANConfig()) == (34, 34)
    config = nano().code2wav
    assert config is not None
    left, ahead = receptive_field(config.vocoder)
    assert 0 < left <= 34
    assert 0 < ahead <= 34


@pytest.mark.parametrize("frames", [0, 1, 2, 30])
def test_lengths(frames: int) -> None:
    wave = BigVGAN(TINY)(torch.zeros(2, 8, frames))
    assert wave.shape == (2, 240 * frames)


def test_tiles_change_nothing(monkeypatch) -> None:
    """An activation cut in tiles is the activation: tiles overlap by what it hears."""
    torch.manual_seed(0)
    snake, x = SnakeBeta(4).double(), torch.randn(2, 4, 1, 100, dtype=torch.float64)
    with torch.no_grad():
        snake.alpha.normal_(), snake.beta.normal_()
        whole = snake(x)
        monkeypatch.setattr(snakes, "TILE_NUMBERS", 8 * 7)
        assert (snake(x) - whole).abs().max() <= 1e-12  # the same sums in float64
        monkeypatch.setattr(
            snakes, "REACH", snakes.REACH - 1
        )  # planted: one sample less of overlap
        assert (snake(x) - whole).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("length", "tile"), [(1, 1 << 18), (2, 9), (37, 60), (100, 1 << 18), (100, 56)]
)
def test_gradients_are_the_formulas(monkeypatch, length: int, tile: int) -> None:
    """The way back that is written by hand against torch's own through the same formula, ends and tiles included."""
    torch.manual_seed(length)
    monkeypatch.setattr(snakes, "TILE_NUMBERS", tile)
    snake = SnakeBeta(3).double()
    x, grad = torch.randn(2, 2, 3, 1, length, dtype=torch.float64)
    with torch.no_grad():
        snake.alpha.normal_(), snake.beta.normal_()
    inputs = (x.requires_grad_(), snake.alpha, snake.beta)
    ours = torch.autograd.grad(snake(x), inputs, grad)
    theirs = torch.autograd.grad(_plainly(x, snake.alpha, snake.beta), inputs, grad)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-6 * b.abs().max()  # b = e^beta + 1e-9 counts as e^beta
    monkeypatch.setattr(
        snakes, "_fold", lambda x, width: x[..., width:-width].clone()
    )  # planted: the ends are cut off
    wrong = torch.autograd.grad(snake(x), inputs, grad)
    assert (wrong[0] - theirs[0]).abs().max() > 1e-3 * theirs[0].abs().max()


def _plainly(x: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """The published code's way: zeros between samples, a whole filter, the function, a whole filter, every second one."""
    taps = snakes._filter(x.device, x.dtype).expand(x.shape[1], 1, 1, -1)
    a, b = (p.exp()[:, None, None] for p in (alpha, beta))
    up = torch.nn.functional.pad(x, (5, 5, 0, 0), mode="replicate")
    u = (
        2
        * torch.nn.functional.conv_transpose2d(up, taps, stride=(1, 2), groups=x.shape[1])[
            ..., 15:-15
        ]
    )
    h = u + (a * u).sin().square() / (b + 1e-9)
    return torch.nn.functional.conv2d(
        torch.nn.functional.pad(h, (5, 6, 0, 0), mode="replicate"),
        taps,
        stride=(1, 2),
        groups=x.shape[1],
    )


def test_memory_layout_changes_nothing() -> None:
    """Accelerators keep torch's default order of memory; both orders give the same numbers."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 1, 40, dtype=torch.float64)
    last = x.contiguous(memory_format=torch.channels_last)
    for module in (SnakeBeta(6), bigvgan.Conv(6, 4, 5, padding=2), bigvgan.Upsample(6, 3, 4, 2)):
        module.double()
        with torch.no_grad():
            assert (module(x) - module(last)).abs().max() <= 1e-12


def test_gradients_reach_every_parameter() -> None:
    """What training needs: no operation of the fast path cuts the graph."""
    torch.manual_seed(0)
    vocoder = BigVGAN(BigVGANConfig(num_mels=8, initial_channels=8, upsample_rates=(2, 2), upsample_kernels=(4, 4)))  # fmt: skip
    vocoder(torch.randn(1, 8, 5)).square().sum().backward()
    missing = [n for n, p in vocoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing


def test_training_after_inference() -> None:
    """The filter was kept as an inference tensor when speech was made first, and training then failed."""
    snakes._filter.cache_clear()
    vocoder, mel = BigVGAN(BigVGANConfig(num_mels=8, initial_channels=8, upsample_rates=(2, 2), upsample_kernels=(4, 4))), torch.randn(1, 8, 5)  # fmt: skip
    with torch.inference_mode():
        vocoder(mel)
    vocoder(mel).sum().backward()


def test_kernels_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="even"):
        BigVGAN(BigVGANConfig(upsample_rates=(2,), upsample_kernels=(5,)))
