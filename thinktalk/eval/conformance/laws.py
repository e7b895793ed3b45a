"""All invariants, in the order in which a prompt meets them: ids, ears and eyes, Thinker, Talker, code2wav."""

from __future__ import annotations

from thinktalk.eval.conformance import blocks, positions, rotating, speaking
from thinktalk.eval.conformance.invariant import Invariant

__all__ = ["INVARIANTS"]

INVARIANTS: tuple[Invariant, ...] = (
    *positions.INVARIANTS,
    *blocks.INVARIANTS,
    *rotating.INVARIANTS,
    *speaking.INVARIANTS,
)
