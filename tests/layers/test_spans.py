"""Spans: attention of conversations side by side is attention of each alone, whatever their lengths; gradients too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thinktalk.layers.attention import attend
from thinktalk.layers.spans import Spans

TOLERANCE = 1e-12  # float64; the same sums, in batches of another size


def drawn(seed: int, B: int, T: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(B, T, 4, 8, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, B, 2, T, 8, generator=generator, dtype=torch.float64)
    return [x.requires_grad_() for x in (q, k, v)]


def segments_of(rows: list[list[int]]) -> torch.Tensor:
    """Lengths of the conversations of each row; what is missing at the right is padding."""
    T = max(max(map(sum, rows)), 2)
    out = torch.zeros(len(rows), T, dtype=torch.long)
    for row, lengths in zip(out, rows, strict=True):
        start = 0
        for number, length in enumerate(lengths, 1):
            row[start : start + length] = number
            start += length
    return out


def plain(q, k, v, segments) -> torch.Tensor:
    """A mask of every pair."""
    T = segments.shape[1]
    seen = (segments[:, :, None] == segments[:, None]) & torch.ones(T, T, dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape, dtype=q.dtype).masked_fill(~seen, -torch.inf)[:, None]
    return attend(q, k, v, mask)


def both(rows: list[list[int]], *, fault: bool = False) -> float:
    """The largest difference of outputs and gradients of real tokens."""
    segments = segments_of(rows)
    B, T = segments.shape
    spans = Spans.of(segments)
    if fault:  # the gradient of padding is counted
        spans = Spans(spans.shapes, spans.tokens_M, spans.slots_N, torch.ones_like(spans.real_M1))
    weight = torch.randn(B, T, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    weight = weight * (segments > 0)[:, :, None]
    found = []
    for how in (lambda *x: attend(*x, spans), lambda *x: plain(*x, segments)):
        parts = drawn(1, B, T)
        y = how(*parts) * (segments > 0)[:, :, None]
        found.append([y.detach(), *torch.autograd.grad((y * weight).sum(), parts)])
    return max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))


@given(st.lists(st.lists(st.integers(1, 40), max_size=5), min_size=1, max_size=3))
def test_spans_are_a_mask(rows):
    assert both(rows) < TOLERANCE


def test_gradient_of_padding_is_found():
    """Planted fault: a slot of padding gives its gradient to the token it repeats."""
    assert both([[9, 3, 2]]) < TOLERANCE
    assert both([[9, 3, 2]], fault=True) > 1e4 * TOLERANCE


@pytest.mark.parametrize("lengths", [[40], [40, 41, 39], [1, 2, 3, 4, 5], [4096, 40, 3]])
def test_groups_waste_little(lengths):
    spans = Spans.of(segments_of([lengths]))
    slots = sum(S * L for S, L in spans.shapes)
    assert slots <= 1.34 * sum(lengths) + 8 * len(lengths)
    assert sum(S for S, _ in spans.shapes) == len(lengths)
    assert int(spans.real_M1.sum()) == sum(lengths)


def test_like_lengths_share_a_call():
    spans = Spans.of(segments_of([[30, 31, 33, 35, 32], [100, 90, 34]]))
    assert spans.shapes[0] == (2, 100)
    assert (6, 35) in spans.shapes
