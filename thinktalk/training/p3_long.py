"""p3: long sound and video, 32768 tokens a row; p2 with its memory in hand.

A row of 32768 needs no mask (layers/spans.py), the Thinker's layers are computed again in the backward pass
(`recompute`), and so are the encoders, half a minute of sound or 4096 patches at a time: blocks of sound and frames of a
video do not see each other, so an hour of them holds the activations of one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from thinktalk.encoders.audio import PASS_BLOCKS
from thinktalk.encoders.vision import PASS_PATCHES, Grid
from thinktalk.training.p2_joint import JointStage

__all__ = ["LongStage"]


class LongStage(JointStage):
    """Batches are Packed; encoders and Thinker learn, each medium piece by piece."""

    def encode(self, part: str, items: Sequence[Any], run: Callable) -> list[Tensor]:
        """Features of each medium, whose inner values are made anew when its gradient comes."""
        if not torch.is_grad_enabled():
            return run(items)
        features = []
        for item in items:
            pieces = self._sounds(item) if part == "audio" else self._frames(*item)
            each = [
                checkpoint(lambda piece=p: run([piece])[0], use_reentrant=False) for p in pieces
            ]
            features.append(torch.cat(each))
        return features

    def _sounds(self, mel: Tensor) -> Sequence[Tensor]:
        """Whole blocks, and the rest of the clip."""
        return mel.split(PASS_BLOCKS * self.audio.block, 1)

    def _frames(self, patches: Tensor, grid: Grid) -> list[tuple[Tensor, Grid]]:
        """Some frames at a time."""
        _, h, w = grid
        most = max(1, PASS_PATCHES // (h * w))
        return [(part, (len(part) // (h * w), h, w)) for part in patches.split(most * h * w)]
