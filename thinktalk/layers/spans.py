"""Spans: rows (B, T) of many conversations -> groups of like length, so that attention never meets a T x T mask.

    row     | conversation 1 | 2 | conversation 3 |        tokens, side by side
    groups  (2, L): 1 and 3, padded at the right           plain causal attention in each: padding is never seen
            (1, l): 2

What is token-wise stays on rows without padding. A conversation of 40 tokens in a row of 4096 costs 40 x 40 scores, not
40 x 4096, and one of 32768 needs no mask of 4 GB. Letters: B rows, T tokens, N = B x T, S conversations, L slots, M = sum(S x L).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Spans"]

SLACK = 8  # slots; conversations that differ by no more share a group, however short they are


@dataclass(frozen=True)
class Spans:
    """Where the conversations of a batch stand; made once, used by every layer."""

    shapes: tuple[tuple[int, int], ...]
    """(S, L) of each group."""
    tokens_M: Tensor
    """Slot -> token; slots of padding repeat their conversation's last token."""
    slots_N: Tensor
    """Token -> its slot."""
    real_M1: Tensor
    """Whether a slot is no padding."""

    @classmethod
    def of(cls, segments: Tensor) -> Spans:
        """The stretches of equal number in each row of segments (B, T), padding among them; on its device."""
        plain = segments.detach().cpu().numpy()
        B, T = plain.shape
        begins = np.ones((B, T), bool)
        begins[:, 1:] = plain[:, 1:] != plain[:, :-1]
        starts = np.flatnonzero(begins)
        lengths = np.diff(np.append(starts, B * T))
        tokens, real, shapes = [], [], []
        for members in _groups(lengths):
            size = lengths[members]
            steps = np.arange(size[0])  # the longest is first
            tokens.append(starts[members, None] + np.minimum(steps, size[:, None] - 1))
            real.append(steps < size[:, None])
            shapes.append((len(members), int(size[0])))
        tokens_M = np.concatenate([x.ravel() for x in tokens])
        real_M = np.concatenate([x.ravel() for x in real])
        slots_N = np.empty(B * T, np.int64)
        slots_N[tokens_M[real_M]] = np.flatnonzero(real_M)
        put = lambda x: torch.from_numpy(x).to(segments.device)  # noqa: E731
        return cls(tuple(shapes), put(tokens_M), put(slots_N), put(real_M[:, None]))

    def to(self, device: torch.device | str) -> Spans:
        """The same on another device."""
        move = lambda x: x.to(device, non_blocking=True)  # noqa: E731
        return Spans(self.shapes, move(self.tokens_M), move(self.slots_N), move(self.real_M1))

    def part(self, *rows: Tensor) -> Iterator[list[Tensor]]:
        """Tensors (B, T, ...) -> for each group the same as (S, L, ...)."""
        sizes = [S * L for S, L in self.shapes]
        slots = (
            _Move.apply(x.flatten(0, 1), self.tokens_M, self.slots_N, None).split(sizes)
            for x in rows
        )
        for shape, *parts in zip(self.shapes, *slots, strict=True):
            yield [x.unflatten(0, shape) for x in parts]

    def join(self, groups: Sequence[Tensor], batch: int) -> Tensor:
        """What the groups gave, (S, L, D) each -> (B, T, D)."""
        x_MD = torch.cat([x.flatten(0, 1) for x in groups])
        return _Move.apply(x_MD, self.slots_N, self.tokens_M, self.real_M1).unflatten(
            0, (batch, -1)
        )


def _groups(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Conversations by falling length, cut where padding would exceed a quarter."""
    order = np.argsort(-lengths, kind="stable")
    first = 0
    for n in range(1, len(order) + 1):
        longest = lengths[order[first]]
        if n == len(order) or longest - lengths[order[n]] > max(SLACK, longest // 4):
            yield order[first:n]
            first = n


class _Move(torch.autograd.Function):
    """x.index_select(0, there), whose derivative is a selection, too: adding up by index is slow on a CPU and random on a GPU.

    `back` says from where each row of x gets its gradient; rows that are not `real` get none.
    """

    @staticmethod
    def forward(ctx, x, there, back, real):  # type: ignore[override]
        ctx.save_for_backward(back, real)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        back, real = ctx.saved_tensors
        grad = grad.index_select(0, back)
        return (grad if real is None else grad * real), None, None, None
