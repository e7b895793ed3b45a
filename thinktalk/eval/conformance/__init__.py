"""Conformance kit: what every implementation of Qwen2.5-Omni must keep, asked of ours and of others.

    layouts.json   a public table: prompts of every kind, the ids their tokens must have (layouts.py reads it, making.py wrote it)
    invariant.py   Implementation (what is asked), Invariant (a law and how it is examined), Finding (what came out)
    positions.py  rotating.py  blocks.py  speaking.py    the laws
    ours.py  upstream.py (and overhearing.py)    thinktalk and transformers, as Implementations; each can be spoiled
    on purpose (PLANTS)

Nothing here needs a checkpoint: the laws are about wiring, so small random weights show them.
"""

from __future__ import annotations

from thinktalk.eval.conformance.invariant import (
    PLANTS,
    Finding,
    Implementation,
    Invariant,
    examine,
)
from thinktalk.eval.conformance.laws import INVARIANTS
from thinktalk.eval.conformance.layouts import Layout, load_layouts

__all__ = [
    "INVARIANTS", "PLANTS", "Finding", "Implementation", "Invariant", "Layout", "examine", "load_layouts",
]  # fmt: skip
