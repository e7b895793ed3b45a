"""States: what fork, stack, select and unstack mean when a State holds States with rules of their own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from thinktalk.layers.kv_cache import DecoderState
from thinktalk.stream import State, fork, stack, unstack


@dataclass
class Conversation(State):
    memory: DecoderState
    latest: Tensor  # (B,)
    parts: list[Tensor]  # (B, 1) each
    name: str


def conversation(tokens: int, capacity: int) -> Conversation:
    memory = DecoderState.empty(
        1, num_layers=1, num_kv_heads=1, head_dim=2, device="cpu", dtype=torch.float64, capacity=capacity
    )  # fmt: skip
    for layer in memory.layers:
        layer.k.fill_(tokens)
        layer.v.fill_(-tokens)
    memory.advance(tokens)
    return Conversation(memory, torch.tensor([tokens]), [torch.full((1, 1), tokens)], "same")


def test_nested_states_of_unequal_capacity_stack_and_part():
    """A generic join of the caches' tensors fails here: 64 slots do not fit beside 128."""
    short, long = conversation(3, 10), conversation(70, 100)
    assert short.memory.capacity != long.memory.capacity
    both = stack([short, long])
    assert both.memory.rows == (3, 70)
    assert both.latest.tolist() == [3, 70]
    for row, original in zip(unstack(both), (short, long), strict=True):
        used = original.memory.extent
        assert row.memory.rows == original.memory.rows
        assert torch.equal(
            row.memory.layers[0].k[:, :, :used], original.memory.layers[0].k[:, :, :used]
        )
        assert torch.equal(row.parts[0], original.parts[0])


def test_a_fork_shares_nothing():
    original = conversation(3, 10)
    copy = fork(original)
    copy.memory.advance(1)
    copy.latest += 1
    copy.parts[0] += 1
    assert original.memory.rows == (3,)
    assert (original.latest.tolist(), original.parts[0].tolist()) == ([3], [[3]])


def test_constants_must_agree():
    other = conversation(3, 10)
    other.name = "other"
    with pytest.raises(AssertionError, match="disagree"):
        stack([conversation(3, 10), other])
