"""p3: long sound and video, 32768 tokens a row; p2 with its memory in hand.

A row of 32768 needs no mask (layers/spans.py), the Thinker's layers are computed again in the backward pass
(`recompute`), and so is each clip in its encoder, one at a time: half an hour of sound holds one clip's activations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from thinktalk.training.p2_joint import JointStage

__all__ = ["LongStage"]


class LongStage(JointStage):
    """Batches are Packed; encoders and Thinker learn, each clip on its own."""

    def encode(self, part: str, items: Sequence[Any], run: Callable) -> list[Tensor]:
        """Features of each clip, whose inner values are made anew when its gradient comes."""
        if not torch.is_grad_enabled():
            return run(items)
        return [checkpoint(lambda item=item: run([item])[0], use_reentrant=False) for item in items]
