"""What the stages say to each other; nothing else passes between them.

    media, encoders -> Embedded -> Thinker -> ThinkerChunk -> Talker -> Codes -> code2wav -> Pcm

Letters: B rows, T time steps, D model width, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

__all__ = ["Codes", "Embedded", "Message", "Pcm", "ThinkerChunk"]


@dataclass
class Message:
    """Tensors that share rows (dimension 0) and time; `time_dims` says where each field's time is."""

    time_dims: ClassVar[dict[str, int]]

    @property
    def length(self) -> int:
        """Time steps in this chunk."""
        name, dim = next(iter(self.time_dims.items()))
        return getattr(self, name).shape[dim]

    @property
    def batch(self) -> int:
        """Rows in this chunk."""
        return getattr(self, next(iter(self.time_dims))).shape[0]

    def narrow(self, start: int, length: int) -> Self:
        """`length` time steps from `start`; views."""
        return replace(
            self,
            **{n: getattr(self, n).narrow(d, start, length) for n, d in self.time_dims.items()},
        )

    def row(self, index: int) -> Self:
        """One row, kept as a batch of one; views."""
        return replace(self, **{n: getattr(self, n)[index : index + 1] for n in self.time_dims})

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Chunks joined along time; fields without time are the first chunk's."""
        joined = {n: torch.cat([getattr(p, n) for p in parts], d) for n, d in cls.time_dims.items()}
        return replace(parts[0], **joined)

    def to(self, device: torch.device | str) -> Self:
        """The same message on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self, **{n: v.to(device) if isinstance(v, Tensor) else v for n, v in moved.items()}
        )


@dataclass
class Embedded(Message):
    """What the Thinker (or the Talker) reads: embeddings with their TMRoPE positions."""

    embeds: Tensor  # (B, T, D)
    positions: Tensor  # (B, 3, T) int64: time, height, width (the reference keeps (3, B, T))

    time_dims = {"embeds": 1, "positions": 2}


@dataclass
class ThinkerChunk(Message):
    """What the Talker hears of the Thinker, one entry per token that the Thinker has READ."""

    token_ids: Tensor  # (B, T) int64
    embeds: Tensor  # (B, T, D) input embeddings, zero where a medium stands
    hidden: Tensor  # (B, T, D) last hidden states, after the final norm
    positions: Tensor  # (B, 3, T) int64

    time_dims = {"token_ids": 1, "embeds": 1, "hidden": 1, "positions": 2}


@dataclass
class Codes(Message):
    """Speech codes, neither start, pad nor end among them."""

    ids: Tensor  # (B, T) int64

    time_dims = {"ids": 1}


@dataclass
class Pcm(Message):
    """Sound."""

    samples: Tensor  # (B, S) float32 in [-1, 1]
    sample_rate: int = 24_000  # samples a second

    time_dims = {"samples": 1}
