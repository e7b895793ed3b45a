"""p3: long sound and video, 32768 tokens a row; p2 with its memory in hand.

A row of 32768 needs no mask (layers/spans.py), the Thinker's layers are computed again in the backward pass
(`recompute`), and so are the encoders, half a minute of sound or 4096 patches at a time: blocks of sound and frames of a
video do not see each other, so an hour of them holds the activations of one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from thinktalk.encoders.audio import PASS_BLOCKS
from thinktalk.encoders.vision import PASS_PATCHES, Grid
from thinktalk.training.p2_joint import JointStage

__all__ = ["LongStage"]


class LongStage(JointStage):
    """Batches are Packed; encoders and Thinker learn, media piece by piece."""

    def encode(self, part: str, items: Sequence[Any], run: Callable) -> list[Tensor]:
        """Features of each medium, whose inner values are made anew when its gradient comes."""
        if not torch.is_grad_enabled():
            return run(items)
        cut = self._sounds if part == "audio" else self._frames
        pieces = [(size, number, piece) for number, item in enumerate(items) for size, piece in cut(item)]  # fmt: skip
        features: list[list[Tensor]] = [[] for _ in items]
        room = PASS_BLOCKS * self.audio.block if part == "audio" else PASS_PATCHES
        for group in _together(pieces, room):
            alike = [piece for _, _, piece in group]
            found = checkpoint(lambda alike=alike: tuple(run(alike)), use_reentrant=False)
            for (_, number, _), tokens in zip(group, found, strict=True):
                features[number].append(tokens)
        return [torch.cat(parts) for parts in features]

    def _sounds(self, mel: Tensor) -> list[tuple[int, Tensor]]:
        """Whole blocks, and the rest of the clip; frames of each."""
        return [(part.shape[1], part) for part in mel.split(PASS_BLOCKS * self.audio.block, 1)]

    def _frames(self, medium: tuple[Tensor, Grid]) -> list[tuple[int, tuple[Tensor, Grid]]]:
        """Some frames of a picture or video at a time; patches of each."""
        patches, (_, h, w) = medium
        most = max(1, PASS_PATCHES // (h * w))
        return [(len(p), (p, (len(p) // (h * w), h, w))) for p in patches.split(most * h * w)]


def _together(pieces: Sequence[tuple[int, int, Any]], room: int) -> Iterator[list[tuple[int, int, Any]]]:  # fmt: skip
    """Neighbours that fit into one pass; what is larger has its own."""
    group: list[tuple[int, int, Any]] = []
    used = 0
    for piece in pieces:
        if group and used + piece[0] > room:
            yield group
            group, used = [], 0
        group.append(piece)
        used += piece[0]
    if group:
        yield group
