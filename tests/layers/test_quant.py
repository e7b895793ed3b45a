"""Int8 linear layers: near the float layer, each row on its own, the same bits packed, unpacked, copied and saved."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thinktalk.layers import quant
from thinktalk.layers.quant import Int8Linear, dequantize, quantize, quantize_, relative_error

# Round to nearest in 127 steps of the loudest value: for normal numbers the weight errs by about 0.8 % and the
# activation by about as much, together about 1.2 %; twice that is the bound.
RELATIVE = 0.025


@pytest.fixture
def linear():
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(96, 160)
    with torch.no_grad():
        linear.weight.copy_(
            torch.randn(160, 96, generator=generator) * torch.rand(160, 1, generator=generator)
        )
        linear.bias.copy_(torch.randn(160, generator=generator))
    return linear


def near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Every row within RELATIVE of the float layer's."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    error = (ours - theirs).float().norm(dim=-1) / theirs.float().norm(dim=-1)
    assert error.max() < RELATIVE, error.max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("packed", [True, False])
def test_near_the_float_layer(linear, dtype, packed):
    layer = Int8Linear.from_linear(linear)
    if not packed:
        layer.unpack()
    x = torch.randn(2, 5, 96).to(dtype)
    near(layer.to(dtype)(x), linear.to(dtype)(x))


def test_wrong_scales_are_seen(linear):
    """Planted fault: one channel takes the scale of another, and a step half as wide."""
    x = torch.randn(4, 96)
    layer = Int8Linear.from_linear(linear).unpack()
    quiet, loud = layer.scale.argmin(), layer.scale.argmax()
    layer.scale[quiet] = layer.scale[loud]
    with pytest.raises(AssertionError):
        near(layer.pack()(x), linear(x))
    layer = Int8Linear.from_linear(linear)
    if layer.packed is not None:
        layer.step /= 2
        with pytest.raises(AssertionError):
            near(layer(x), linear(x))


def test_seven_bits_where_eight_would_overflow(linear, monkeypatch):
    """Processors without VNNI get 7-bit activations: twice the activation's rounding."""
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    layer = Int8Linear.from_linear(linear)
    x = torch.randn(4, 96)
    error = ((layer(x) - linear(x)).norm() / linear(x).norm()).item()
    assert error < 2 * RELATIVE


@given(rows=st.integers(0, 5), loud=st.floats(1e-6, 1e6))
def test_a_row_does_not_know_its_neighbours(rows, loud):
    """A row's result is the same bits alone and beside a loud row: streaming and batching stay exact."""
    generator = torch.Generator().manual_seed(rows)
    layer = Int8Linear.from_linear(nn.Linear(32, 24))
    x = torch.randn(rows + 1, 32, generator=generator)
    neighbour = loud * torch.randn(1, 32, generator=generator)
    together = layer(torch.cat([x, neighbour]))[: rows + 1]
    assert torch.equal(together, torch.cat([layer(row[None]) for row in x]))


def test_silence_and_nothing(linear):
    layer = Int8Linear.from_linear(linear)
    assert torch.equal(layer(torch.zeros(3, 96)), linear.bias.expand(3, -1))
    assert layer(torch.zeros(0, 96)).shape == (0, 160)
    assert layer(torch.zeros(2, 0, 96)).shape == (2, 0, 160)


def test_channels_of_zeros():
    linear = nn.Linear(8, 4, bias=False)
    nn.init.zeros_(linear.weight)
    layer = Int8Linear.from_linear(linear)
    assert torch.equal(layer(torch.randn(3, 8)), torch.zeros(3, 4))


def test_quantisation_is_round_to_nearest():
    weight = torch.tensor([[1.0, -0.5, 0.25], [127.0, 1.4, -1.6]])
    quantized, scale = quantize(weight)
    assert quantized.tolist() == [[127, -64, 32], [127, 1, -2]]
    assert torch.allclose(scale, torch.tensor([1 / 127, 1.0]))
    half_step = scale[:, None] / 2
    assert ((dequantize(quantized, scale) - weight).abs() <= half_step * 1.000001).all()
    assert relative_error(weight, quantized, scale) < 0.01


def test_packing_copying_and_state_keep_the_bits(linear):
    layer = Int8Linear.from_linear(linear)
    x = torch.randn(3, 96)
    y, state = layer(x), layer.state_dict()
    assert {name: t.dtype for name, t in state.items()} == {
        "weight": torch.int8, "scale": torch.float32, "bias": torch.float32,
    }  # fmt: skip
    assert torch.equal(copy.deepcopy(layer)(x), y)
    fresh = Int8Linear(96, 160)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(x), y)
    layer.bias = None
    y = layer(x)
    assert torch.equal(
        layer.to(torch.bfloat16).to(torch.float32)(x), y
    )  # neither weight nor scale was rounded
    assert layer.scale.dtype == torch.float32


def test_quantize_swaps_every_linear_layer():
    model = nn.Sequential(
        nn.Linear(16, 32), nn.Sequential(nn.GELU(), nn.Linear(32, 4, bias=False)), nn.LayerNorm(4)
    )
    errors = quantize_(model)
    assert sorted(errors) == ["0", "1.1"]
    assert all(0 < error < 0.02 for error in errors.values())
    assert isinstance(model[0], Int8Linear) and isinstance(model[1][1], Int8Linear)
    assert not any(isinstance(m, nn.Linear) for m in model.modules())
    assert quantize_(nn.Sequential(nn.Linear(4, 4)), min_features=8) == {}


def test_the_fast_kernel_is_used_here():
    """On x86 the packed kernel must be there: without it int8 would be slower than float, silently."""
    if torch.backends.quantized.engine in ("x86", "fbgemm", "onednn"):
        assert Int8Linear.from_linear(nn.Linear(8, 8)).packed is not None
        assert quant._kernel_step() is not None
