"""Segments: attention over runs equals attention over each segment alone."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from thinktalk.layers.audio_block import AudioBlock
from thinktalk.layers.segments import SegmentAttention, attend_segments, rotate

runs_drawn = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=4)


def one_by_one(q, k, v, runs):
    """Softmax attention written out, a segment at a time."""
    out, start = [], 0
    for size in (size for count, size in runs for _ in range(count)):
        a, b, c = (x[start : start + size].transpose(0, 1) for x in (q, k, v))
        weights = (a @ b.transpose(1, 2) / q.shape[2] ** 0.5).softmax(-1)
        out.append((weights @ c).transpose(0, 1).flatten(1))
        start += size
    return torch.cat(out)


@given(runs=runs_drawn, seed=st.integers(0, 99))
@settings(max_examples=20)
def test_runs_attend_as_segments_alone(runs, seed):
    tokens = sum(count * size for count, size in runs)
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, tokens, 2, 8, generator=generator, dtype=torch.float64)
    # float64 rounds at 1e-16; sums of at most 9 terms in another order
    torch.testing.assert_close(
        attend_segments(q, k, v, runs), one_by_one(q, k, v, runs), rtol=0, atol=1e-12
    )


def test_segments_that_see_each_other_are_noticed():
    """Planted fault: two segments of 3 attended as one of 6."""
    q, k, v = torch.randn(3, 6, 2, 8, dtype=torch.float64)
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(
            attend_segments(q, k, v, [(1, 6)]),
            one_by_one(q, k, v, [(2, 3)]),
            rtol=0,
            atol=1e-12,
        )


def test_runs_must_cover_all_tokens():
    x = torch.zeros(5, 1, 2)
    with pytest.raises(AssertionError, match="do not cover 5 tokens"):
        attend_segments(x, x, x, [(2, 2)])


def test_rotation_keeps_lengths_and_depends_on_distance_only():
    """q and k turned by places p and r meet at an angle of p - r: moving both changes nothing."""
    angles = torch.arange(6, dtype=torch.float64)[:, None] * torch.tensor(
        [1.0, 0.1], dtype=torch.float64
    )
    cos, sin = angles.cos().repeat(1, 2), angles.sin()
    rotary = cos[:, None], torch.cat([-sin, sin], 1)[:, None]
    q, k = torch.randn(2, 1, 1, 4, dtype=torch.float64).expand(2, 6, 1, 4)
    a, b = rotate(q, rotary)[:, 0], rotate(k, rotary)[:, 0]
    torch.testing.assert_close(a.norm(dim=1), q[:, 0].norm(dim=1))
    meet = a @ b.T
    for distance in range(-3, 4):
        diagonal = meet.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert (meet.diagonal(1)[0] - meet.diagonal(-1)[0]).abs() > 1e-3


def test_half_precision_is_rotated_in_float32():
    """bfloat16 angles would lose the place of far patches: the result is the float32 one, rounded once."""
    angles = torch.linspace(0, 60, 64)[:, None, None].expand(64, 1, 2)
    rotary = (
        torch.cat([angles.cos()] * 2, 2),
        torch.cat([-angles.sin(), angles.sin()], 2),
    )
    x = torch.randn(64, 3, 4).bfloat16()
    assert torch.equal(rotate(x, rotary), rotate(x.float(), rotary).bfloat16())


def test_key_bias_follows_the_tower():
    assert SegmentAttention(8, 2, key_bias=False).k.bias is None
    assert SegmentAttention(8, 2, key_bias=True).k.bias is not None


def test_half_precision_block_stays_finite():
    """Whisper's large layers overflow float16; the block clamps as the reference does."""
    block = AudioBlock(8, 2, 16).half()
    with torch.no_grad():
        block.mlp.down.weight.fill_(3e4)
        block.mlp.down.bias.fill_(6e4)
        y = block(torch.randn(4, 8).half(), [(2, 2)])
    assert y.isfinite().all()
    assert F.relu(y).max() == torch.finfo(torch.float16).max - 1000 - 4  # next float16 below 64504
