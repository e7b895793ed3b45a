"""The finite-scalar quantiser: its codes are a bijection, its gradients pass, every code can be reached."""

from __future__ import annotations

import pytest
import torch

from thinktalk.wav2code.fsq import FSQ

LEVELS = (8, 5, 5, 5)


def make(levels=LEVELS, width=16, seed=0) -> FSQ:
    torch.manual_seed(seed)
    return FSQ(width, levels)


@pytest.mark.parametrize("levels", [LEVELS, (2,), (3, 2), (4, 4, 4), (8, 8, 8, 6, 5)])
def test_codes_and_numbers_are_one_to_one(levels):
    fsq = make(levels)
    every = torch.arange(fsq.num_codes)
    grid = fsq.grid(every)
    assert torch.equal(fsq.index(grid), every)
    assert len(grid.unique(dim=0)) == fsq.num_codes
    assert torch.equal(grid.amin(0), -torch.tensor(levels).div(2, rounding_mode="floor").float())


def test_every_number_is_reached_and_none_beyond():
    """Even counts of levels have no middle; the shift keeps z = 0 at 0, and both outer levels within reach."""
    fsq = make()
    bounded = fsq.bound(torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None].expand(-1, 4))
    for i, count in enumerate(LEVELS):
        values = bounded[:, i].round().unique()
        assert values.tolist() == list(range(-(count // 2), count - count // 2)), i
    # atanh and tanh cancel up to rounding in float64
    assert fsq.bound(torch.zeros(1, 4, dtype=torch.float64)).abs().max() < 1e-12


def test_forward_tells_what_embed_gives():
    """Layers above hear the same of a code when it is made and when it is read: nothing leaks past the rounding."""
    fsq = make()
    x = 3 * torch.randn(50, 16)
    made = fsq(x)
    assert len(made.indices.unique()) > 20
    assert torch.equal(made.embedding, fsq.embed(made.indices))
    assert torch.equal(made.rounded, fsq.grid(made.indices))


def test_a_leak_past_the_rounding_is_found(monkeypatch):
    """Planted fault: the layers above hear the number before it was rounded."""
    fsq = make()
    lift = fsq._lift
    made = fsq(3 * torch.randn(50, 16))
    monkeypatch.setattr(fsq, "_lift", lambda _: lift(made.bounded))
    with pytest.raises(AssertionError):
        assert torch.equal(fsq._lift(made.rounded), lift(fsq.grid(made.indices)))


def test_gradients_pass_straight_through():
    fsq = make()
    x = torch.randn(6, 16, requires_grad=True)
    made = fsq(x)
    weights = torch.randn_like(made.rounded)
    (straight,) = torch.autograd.grad((made.rounded * weights).sum(), x, retain_graph=True)
    (smooth,) = torch.autograd.grad((made.bounded * weights).sum(), x, retain_graph=True)
    assert torch.equal(straight, smooth)
    assert smooth.abs().amax() > 0
    made.embedding.square().sum().backward()
    assert fsq.down.weight.grad.abs().max() > 0 and fsq.up.weight.grad.abs().max() > 0


def test_half_precision_rounds_in_full():
    """bfloat16 holds 3.5 as it is but not 3.499: the bounds and the rounding are float32."""
    fsq = make().bfloat16()
    made = fsq(torch.randn(9, 16, dtype=torch.bfloat16))
    assert made.bounded.dtype == torch.float32 and made.embedding.dtype == torch.bfloat16
    assert made.indices.amax() < fsq.num_codes and made.indices.amin() >= 0
