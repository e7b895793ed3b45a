"""Laws of rotary positions and of the DiT's windows, each as its formula in float64.

rope.sections   frequency f of a head (pairs f and f + K / 2) turns by the time, height or width id: 16, 24, 24 of 64
dit.window      a head of the DiT hears the blocks that its layer may hear, and of positions nothing
dit.rope        but head 0, which turns interleaved pairs (2f, 2f + 1) by frame x 10000^(-2f / K)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thinktalk.eval.conformance.invariant import DiTAttention, Implementation, Invariant

__all__ = ["DIT_TURNS", "INVARIANTS"]

CLOSE = 1e-4  # of the largest value: float32 of another order of sums is 100 times nearer
THETA_THINKER, THETA_DIT = 1e6, 1e4
SECTIONS = (16, 24, 24)
CODES = 29  # 58 frames: two blocks and a third that is cut

Turn = Callable[[Tensor], Tensor]


def _far(got: Tensor, want: Tensor) -> float:
    return ((got.double() - want).abs().max() / want.abs().max()).item()


# -------------------------------------------------------------------------------------------------------------- Thinker


def _turned_by_section(x_THK: Tensor, positions_3T: Tensor, axes: Tensor) -> Tensor:
    """Halves paired; frequency f reads the ids of axis axes[f]."""
    half = x_THK.shape[-1] // 2
    frequency = THETA_THINKER ** -(torch.arange(half, dtype=torch.float64) / half)
    angle = (positions_3T.double()[axes].T * frequency)[:, None]
    a, b = x_THK.double().split(half, -1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)


def _sections(implementation: Implementation) -> str | None:
    generator = torch.Generator().manual_seed(3)
    x_THK = torch.randn(9, 2, 2 * sum(SECTIONS), generator=generator)
    positions = torch.randint(0, 500, (3, 9), generator=generator)
    axes = torch.arange(3).repeat_interleave(torch.tensor(SECTIONS))
    got = implementation.rotate(x_THK, positions, SECTIONS, THETA_THINKER)
    if (far := _far(got, _turned_by_section(x_THK, positions, axes))) <= CLOSE:
        return None
    others = {
        "the time id on every axis (no TMRoPE)": torch.zeros_like(axes),
        "axes that take turns, frequency by frequency (as in Qwen3-Omni)": torch.arange(len(axes)) % 3,
        "height and width exchanged": torch.tensor([0, 2, 1])[axes],
    }  # fmt: skip
    alike = [name for name, a in others.items() if _far(got, _turned_by_section(x_THK, positions, a)) <= CLOSE]  # fmt: skip
    return f"queries of 64 frequencies are {far:.1e} off" + (f"; as with {alike[0]}" if alike else "")  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------ DiT


def _angles(frames: int, width: int) -> Tensor:
    """(F, K / 2) float64."""
    frequency = THETA_DIT ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.arange(frames, dtype=torch.float64)[:, None] * frequency


def _pairs(x_FK: Tensor, cos_FK: Tensor, sin_FK: Tensor) -> Tensor:
    """x cos + (-odd, even) sin: a rotation only where both of a pair have one angle."""
    even, odd = x_FK.unflatten(-1, (-1, 2)).unbind(-1)
    return x_FK * cos_FK + torch.stack((-odd, even), -1).flatten(-2) * sin_FK


def _interleaved(x_FK: Tensor) -> Tensor:
    angle = _angles(*x_FK.shape).repeat_interleave(2, -1)
    return _pairs(x_FK, angle.cos(), angle.sin())


def _half_order(x_FK: Tensor) -> Tensor:
    angle = _angles(*x_FK.shape).repeat(1, 2)
    return _pairs(x_FK, angle.cos(), angle.sin())


def _halves(x_FK: Tensor) -> Tensor:
    angle, (a, b) = _angles(*x_FK.shape), x_FK.chunk(2, -1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)


DIT_TURNS: dict[str, Turn] = {
    "angles in half order under interleaved pairs (transformers from October 2025 to July 2026)": _half_order,
    "halves paired (as in a Llama)": _halves,
    "no rotation at all": lambda x: x,
}  # fmt: skip
"""Other ways to turn head 0, by what shipped them."""


def _heard(seen: DiTAttention, head: int, turn: Turn) -> Tensor:
    """Attention of one head, (F, K) float64: softmax over the blocks its layer may hear."""
    F, H, K = seen.heads_FHK.shape
    x = seen.x_FD.double()
    q, k, v = (
        (x @ w.double().T + b.double()).view(F, H, K)[:, head] for w, b in (seen.q, seen.k, seen.v)
    )
    block = torch.arange(F) // seen.block_frames
    distance = block[None] - block[:, None]
    allowed = (distance >= -int(seen.back)) & (distance <= int(seen.ahead))
    scores = (turn(q) @ turn(k).T / K**0.5).masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ v


def _window(implementation: Implementation) -> str | None:
    for seen in implementation.dit_attention(CODES):
        for head in range(1, seen.heads_FHK.shape[1]):
            want = _heard(seen, head, lambda x: x)
            if (far := _far(seen.heads_FHK[:, head], want)) > CLOSE:
                turned = _far(seen.heads_FHK[:, head], _heard(seen, head, _interleaved)) <= CLOSE
                return (
                    f"layer {seen.layer}, head {head}: {far:.1e} off its own block"
                    f"{', the one before' if seen.back else ''}{', the one after' if seen.ahead else ''}"
                    f"{'; it is turned, only head 0 may be' if turned else ''}"
                )
    return None


def _rope(implementation: Implementation) -> str | None:
    for seen in implementation.dit_attention(CODES):
        got = seen.heads_FHK[:, 0]
        if (far := _far(got, _heard(seen, 0, _interleaved))) > CLOSE:
            alike = [name for name, turn in DIT_TURNS.items() if _far(got, _heard(seen, 0, turn)) <= CLOSE]  # fmt: skip
            return f"layer {seen.layer}, head 0: {far:.1e} off" + (f"; as with {alike[0]}" if alike else "")  # fmt: skip
    return None


INVARIANTS = (
    Invariant("rope.sections", "Thinker and Talker: halves paired, 16 frequencies read the time id, 24 the row, 24 the column", _sections),
    Invariant("dit.window", "DiT: blocks of 24 frames, each layer with the neighbours its configuration gives it; heads but 0 know no positions", _window),
    Invariant("dit.rope", "DiT: head 0 alone is turned, in interleaved pairs, by the frame's index in the utterance", _rope),
)  # fmt: skip
