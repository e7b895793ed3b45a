"""The bricks of the decoder against their formulas, in every dtype, with gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.config import DecoderConfig
from thinktalk.layers.attention import attend
from thinktalk.layers.decoder import Decoder
from thinktalk.layers.direct import direct
from thinktalk.layers.mlp import SwiGLU
from thinktalk.layers.norm import RMSNorm
from thinktalk.layers.rope import rotary, rotate
from thinktalk.messages import Embedded

CLOSE = dict(rtol=0, atol=1e-12)  # float64 against another order of the same sums
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64
    ).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_rounds_as_the_reference(dtype: torch.dtype) -> None:
    norm = RMSNorm(96, 1e-6).to(dtype)
    norm.weight.data = 1 + 0.3 * drawn(96, dtype=dtype)
    x = 3 * drawn(2, 5, 96, dtype=dtype)
    x[0, 0] = 0  # padding
    precise = torch.promote_types(dtype, torch.float32)
    y = x.to(precise)
    y = (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).to(dtype)
    # half precision: the same bits but where float32 sums round to the other side; float32: its rounding
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(norm(x), norm.weight * y, rtol=4 * step, atol=0)
    assert norm(x).dtype == dtype


def test_rms_norm_has_gradients() -> None:
    norm = RMSNorm(8).double()
    assert torch.autograd.gradcheck(norm, drawn(3, 8).requires_grad_())
    assert torch.autograd.gradcheck(
        lambda w: torch.func.functional_call(norm, {"weight": w}, (drawn(3, 8),)),
        drawn(8).requires_grad_(),
    )


@pytest.mark.parametrize("bias", [False, True])
def test_swiglu(bias: bool) -> None:
    mlp, x = SwiGLU(6, 10, bias=bias).double(), drawn(2, 3, 6)
    gate, up = mlp.gate(x), mlp.up(x)
    expected = mlp.down(gate / (1 + (-gate).exp()) * up)
    torch.testing.assert_close(mlp(x), expected, **CLOSE)
    with torch.inference_mode():
        torch.testing.assert_close(mlp(x), expected, **CLOSE)
    assert (mlp.gate.bias is not None) == bias
    assert torch.autograd.gradcheck(mlp, drawn(2, 6).requires_grad_())


def test_rotary_turns_each_frequency_by_its_axis() -> None:
    sections, theta = (1, 2, 1), 100.0
    positions = torch.tensor([[[3, 50], [7, 60], [11, 70]]])
    turn = rotary(positions, sections=sections, theta=theta, dtype=torch.float64)
    x = drawn(1, 2, 3, 8)
    y = rotate(x, turn)
    for token in range(2):
        for f, axis in enumerate((0, 1, 1, 2)):
            # the exponent is float32 in the reference: 1e-7 of an angle of 70
            angle = torch.tensor(
                positions[0, axis, token].item() / theta ** (f / 4), dtype=torch.float64
            )
            pair = torch.complex(x[0, token, :, f], x[0, token, :, f + 4]) * torch.polar(
                torch.ones_like(angle), angle
            )
            found = torch.complex(y[0, token, :, f], y[0, token, :, f + 4])
            torch.testing.assert_close(found, pair, rtol=0, atol=1e-4)


def test_rotation_keeps_lengths_and_knows_only_distances() -> None:
    q, k = drawn(1, 1, 1, 16), drawn(1, 1, 1, 16).flip(-1)

    def score(a: int, b: int) -> Tensor:
        turns = [
            rotary(torch.full((1, 3, 1), n), sections=(2, 3, 3), theta=1e4, dtype=torch.float64)
            for n in (a, b)
        ]
        return (rotate(q, turns[0]) * rotate(k, turns[1])).sum()

    torch.testing.assert_close(score(5, 2), score(905, 902), rtol=0, atol=1e-9)
    assert (score(5, 2) - score(5, 3)).abs() > 1e-3
    turn = rotary(torch.full((1, 3, 1), 9), sections=(2, 3, 3), theta=1e4, dtype=torch.float64)
    torch.testing.assert_close(rotate(q, turn).norm(), q.norm(), **CLOSE)


def test_rotary_constants_made_in_inference_mode_serve_training() -> None:
    arguments = dict(sections=(1, 1, 2), theta=77.0, dtype=torch.float32)
    with torch.inference_mode():
        rotary(torch.zeros(1, 3, 1, dtype=torch.int64), **arguments)
    x = torch.ones(1, 1, 1, 8, requires_grad=True)
    rotate(x, rotary(torch.ones(1, 3, 1, dtype=torch.int64), **arguments)).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_attend_against_plain_softmax(heads: int, kv_heads: int, new: int, masked: bool) -> None:
    B, K = 2, 8
    past = 3 if masked or new == 1 else 0
    S = past + new
    q, k, v = drawn(B, new, heads, K), drawn(B, kv_heads, S, K), drawn(B, kv_heads, S, K).roll(1)
    seen = torch.ones(B, new, S, dtype=torch.bool).tril(past)
    if masked:
        seen[0, :, 1] = False  # a hole in one row
    mask = torch.zeros(B, 1, new, S, dtype=torch.float64).masked_fill(~seen[:, None], -torch.inf)
    y = attend(q, k, v, mask if masked else None)
    group = heads // kv_heads
    for b in range(B):
        for h in range(heads):
            scores = q[b, :, h] @ k[b, h // group].T / K**0.5
            expected = scores.masked_fill(~seen[b], -torch.inf).softmax(-1) @ v[b, h // group]
            torch.testing.assert_close(y[b, :, h * K : (h + 1) * K], expected, **CLOSE)


def test_direct_is_the_call() -> None:
    class Louder(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    x = drawn(2, 4)
    for module in (
        nn.Linear(4, 3),
        nn.Linear(4, 3, bias=False),
        Louder(4, 3),
        nn.Sequential(nn.Linear(4, 3)),
    ):
        module = module.double()
        assert torch.equal(direct(module, x), module(x))
    hooked = nn.Linear(4, 3).double()
    plain = hooked(x)
    for register in (hooked.register_forward_pre_hook, hooked.register_forward_hook):
        handle = register(
            lambda module, *given: (
                given[-1] * 3 if isinstance(given[-1], Tensor) else (given[-1][0] * 3,)
            )
        )
        assert torch.equal(direct(hooked, x), hooked(x))
        assert not torch.equal(direct(hooked, x), plain)
        handle.remove()
    assert torch.equal(direct(hooked, x), plain)


def test_the_decoder_trains() -> None:
    config = DecoderConfig(
        vocab_size=10, width=8, ffn_width=12, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=4, mrope_section=(1, 1, 0)
    )  # fmt: skip
    decoder = Decoder(config).double()
    embeds = drawn(1, 3, 8).requires_grad_()
    positions = torch.arange(3).expand(1, 3, 3)
    assert torch.autograd.gradcheck(
        lambda e: decoder(Embedded(e, positions)), embeds, fast_mode=True
    )
    decoder(Embedded(embeds, positions)).square().sum().backward()
    # a key's bias moves all scores of a query alike: softmax cancels it before rotation spreads it
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in decoder.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_streams(dtype: torch.dtype) -> None:
    config = DecoderConfig(
        vocab_size=10, width=16, ffn_width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, mrope_section=(2, 1, 1)
    )  # fmt: skip
    torch.manual_seed(0)
    decoder = Decoder(config).to(dtype).eval()
    x = Embedded(drawn(2, 9, 16, dtype=dtype), torch.arange(9).expand(2, 3, 9))
    state = decoder.init_state(2)
    assert state.layers[0].k.dtype == dtype
    joined = torch.cat(
        [
            decoder.step(x.narrow(0, 4), state),
            *(decoder.step(x.narrow(n, 1), state) for n in range(4, 9)),
        ],
        1,
    )
    whole = decoder(x).detach()
    # kernels for one token and for a prompt round half precision apart: a few of its steps over 2 layers
    assert (joined - whole).abs().max() <= 16 * torch.finfo(dtype).eps * whole.abs().max()


def test_long_prompts_go_in_pieces_of_bounded_memory() -> None:
    decoder = Decoder(
        DecoderConfig(vocab_size=10, width=8, ffn_width=12, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8, mrope_section=(2, 1, 1))
    )  # fmt: skip
    rows: list[int] = []
    decoder.layers[0].mlp.down.register_forward_hook(
        lambda m, given, out: rows.append(given[0].shape[1])
    )
    x = Embedded(torch.randn(1, 2500, 8), torch.arange(2500).expand(1, 3, 2500))
    whole = F.normalize(decoder(x).detach())
    rows.clear()
    stepped = F.normalize(decoder.step(x, decoder.init_state(1)))
    assert rows == [1024, 1024, 452]
    torch.testing.assert_close(stepped, whole, rtol=0, atol=1e-5)  # float32, unit vectors
