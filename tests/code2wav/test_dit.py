"""DiT: batches of unequal utterances, one time or many, what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.flow import plan, sample_many
from thinktalk.code2wav.speaker import Voice
from thinktalk.config import DiTConfig, SpeakerEncoderConfig
from thinktalk.errors import InputError

CONFIG = DiTConfig(
    width=32, num_layers=3, num_heads=2, head_dim=16, code_width=8, num_codes=50, block_frames=8, num_mels=16,
    look_ahead_layers=(1,), look_backward_layers=(0,), speaker_width=4, max_positions=64,
    speaker=SpeakerEncoderConfig(
        out_width=6, channels=(8, 8, 8, 16), kernels=(5, 3, 3, 1), dilations=(1, 2, 3, 1), attention_channels=4, se_channels=4
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def dit() -> DiT:
    torch.manual_seed(0)
    model = DiT(CONFIG).double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3 if p.ndim == 1 else 1.0 if p is model.codes.weight else p[0].numel() ** -0.5)  # fmt: skip
    return model


def voice(seed: int, frames: int = 20) -> Voice:
    g = torch.Generator().manual_seed(seed)
    cond = torch.randn(1, 4, generator=g, dtype=torch.float64)
    return Voice(f"v{seed}", cond, torch.randn(1, frames, 16, generator=g, dtype=torch.float64), 0)


def codes(n: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 51, (n,), generator=torch.Generator().manual_seed(seed))


def noise(n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2 * n, 16, generator=g, dtype=torch.float64)


def test_batch_of_unequal_utterances_is_each_alone(dit: DiT) -> None:
    lengths = [1, 4, 11, 3]  # within a block, a whole block, several, and cut
    said, voices = [codes(n, n) for n in lengths], [voice(1), voice(2, 31), voice(1), voice(3)]
    noises = [noise(n, n) for n in lengths]
    together = sample_many(dit, said, voices, noise=noises, points=3)
    for i, n in enumerate(lengths):
        alone = sample_many(dit, said[i : i + 1], voices[i : i + 1], noise=noises[i : i + 1], points=3)[0]  # fmt: skip
        assert alone.shape == (16, 2 * n)
        assert (together[i] - alone).abs().max() <= 1e-12  # float64, sums in another order
        other = sample_many(dit, said[i : i + 1], [voice(9)], noise=noises[i : i + 1], points=3)[0]
        assert (other - alone).abs().max() > 1e-3  # planted: another voice is noticed


def test_blocks_see_what_they_should(dit: DiT) -> None:
    """One evaluation: block i hears i - 1 (layer 0), i + 1 (layer 1) and nothing else, directly or through layers."""
    c = dit.condition([codes(20)], [voice(1)], guided=False)
    m = dit.modulate(torch.tensor([0.3], dtype=torch.float64)).at(0)
    x = noise(20).unflatten(0, (-1, 8))
    with torch.no_grad():
        base = dit(x, m, c)
        changed = x.clone()
        changed[2] += 1
        moved = (dit(changed, m, c) - base).abs().amax((1, 2))
    assert (moved > 1e-6).tolist() == [False, True, True, True, False]


def test_a_time_for_each_block(dit: DiT) -> None:
    """Training draws a time for each utterance: the modulation of each block may differ."""
    c = dit.condition([codes(20)], [voice(1)], guided=False)
    table = dit.modulate(torch.tensor([0.3, 0.8], dtype=torch.float64))
    x = noise(20).unflatten(0, (-1, 8))
    with torch.no_grad():
        same = dit(x, table.at(torch.tensor([1] * 5)), c)
        assert (same - dit(x, table.at(1), c)).abs().max() <= 1e-12  # float64 rounding
        mixed = dit(x, table.at(torch.tensor([1, 0, 0, 0, 0])), c)
        assert (mixed - same).abs().max() > 1e-3


def test_gradients_reach_every_parameter(dit: DiT) -> None:
    c = dit.condition([codes(20), codes(3)], [voice(1), voice(2)])
    m = dit.modulate(torch.tensor([0.3], dtype=torch.float64)).at(0)
    x = torch.cat([noise(20), noise(4)]).unflatten(0, (-1, 8))
    dit(x, m, c).square().sum().backward()
    assert not [n for n, p in dit.named_parameters() if p.grad is None or not p.grad.any()]
    dit.zero_grad(set_to_none=True)


def test_refusals(dit: DiT) -> None:
    good = voice(1)
    for said, who, match in (
        (codes(3).fill_(51), good, "got 51, expected 0 to 50"),
        (codes(3).fill_(-1), good, "got -1"),
        (codes(33), good, "at most 32 at once"),
        (codes(0), good, "one or more"),
        (codes(3)[None], good, "one or more"),
        (codes(3), dataclasses.replace(good, cond=torch.zeros(4)), "voice v1: cond"),
        (codes(3), dataclasses.replace(good, ref_mel=torch.zeros(1, 9, 7)), "another model"),
        (codes(3), voice(1, 3), "longer sample"),
    ):
        with pytest.raises(InputError, match=match):
            dit.condition([said], [who])
    with pytest.raises(InputError, match="noise"):
        sample_many(dit, [codes(3)], [good], noise=[noise(4)])
    assert sample_many(dit, [codes(32)], [good], noise=[noise(32)], points=2)[0].shape == (16, 64)


def test_a_walk_serves_many_utterances(dit: DiT) -> None:
    walk = plan(dit, points=3, dtype=torch.float64)
    for n in (2, 7):
        args = [codes(n)], [voice(1)]
        given = sample_many(dit, *args, noise=[noise(n)], walk=walk)[0]
        made = sample_many(dit, *args, noise=[noise(n)], points=3)[0]
        assert torch.equal(given, made)


def test_bfloat16_is_near(dit: DiT) -> None:
    """Half precision weights under a float32 flow: 3 % of the mel's range, its rounding (2^-8) through 3 layers."""
    exact = sample_many(dit, [codes(9)], [voice(1)], noise=[noise(9)], points=4)[0]
    half = DiT(CONFIG)
    half.load_state_dict(dit.state_dict())
    mel = sample_many(half.bfloat16(), [codes(9)], [voice(1)], noise=[noise(9).float()], points=4)[0]  # fmt: skip
    assert mel.dtype == torch.float32
    assert 0 < (mel - exact).abs().max() / exact.abs().max() <= 0.03
