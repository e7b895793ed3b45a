"""Packing: examples -> rows (B, T) of many conversations that cannot see each other.

    row       | conversation 1 | conversation 2 | padding |
    segments    1 1 1 1 1 1 1 1  2 2 2 2 2 2 2 2  0 0 0 0      attention stays inside equal numbers, and causal
    positions   0 1 2 3 ...      0 1 2 3 ...      0 0 0 0      restart: TMRoPE as if each stood alone

A row gives the hidden states that its conversations give alone, to rounding. Letters: B rows, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from thinktalk.data.examples import IGNORED, Example
from thinktalk.errors import InputError
from thinktalk.layers.decoder import Decoder
from thinktalk.layers.kv_cache import KVCache, Reach
from thinktalk.layers.spans import Spans
from thinktalk.messages import Embedded
from thinktalk.prompt import Grid

__all__ = ["Packed", "pack", "packed_hidden"]


@dataclass
class Packed:
    """Rows of examples; media in the order in which their placeholders stand, row after row."""

    token_ids: Tensor  # (B, T) int64
    positions: Tensor  # (B, 3, T) int64
    labels: Tensor  # (B, T) int64
    segments: Tensor  # (B, T) int64: 1, 2, ... in each row, 0 is padding
    audio: list[Tensor] = field(default_factory=list)  # log-mel (128, L)
    images: list[tuple[Tensor, Grid]] = field(default_factory=list)
    videos: list[tuple[Tensor, Grid, float]] = field(default_factory=list)
    heard: Tensor | None = None  # (B, T, 2) int64: slots of the row as in Example, None without any
    names: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens that are no padding."""
        return int((self.segments > 0).sum())

    @property
    def fill(self) -> float:
        """The part of the rows that is no padding."""
        return self.tokens / max(1, self.segments.numel())

    def to(self, device: torch.device | str) -> Packed:
        """The same on another device."""
        return replace(
            self,
            token_ids=self.token_ids.to(device), positions=self.positions.to(device),
            labels=self.labels.to(device), segments=self.segments.to(device),
            audio=[x.to(device) for x in self.audio],
            images=[(x.to(device), grid) for x, grid in self.images],
            videos=[(x.to(device), grid, s) for x, grid, s in self.videos],
            heard=None if self.heard is None else self.heard.to(device),
        )  # fmt: skip


def pack(examples: Sequence[Example], *, pad_id: int, capacity: int | None = None) -> Packed:
    """Examples one after the other into rows of `capacity` tokens, as few rows as their order allows.

    Without `capacity` one row holds all. Errors: InputError for an example longer than a row.
    """
    assert examples, "nothing to pack"
    width = sum(e.length for e in examples) if capacity is None else capacity
    rows: list[list[Example]] = [[]]
    for example in examples:
        if example.length > width:
            raise InputError(f"{example.name or 'example'}: {example.length} tokens, a row has {width}; give max_tokens={width} where it is encoded")  # fmt: skip
        if sum(e.length for e in rows[-1]) + example.length > width:
            rows.append([])
        rows[-1].append(example)
    B = len(rows)
    packed = Packed(
        token_ids=torch.full((B, width), pad_id, dtype=torch.long),
        positions=torch.zeros(B, 3, width, dtype=torch.long),
        labels=torch.full((B, width), IGNORED, dtype=torch.long),
        segments=torch.zeros(B, width, dtype=torch.long),
    )
    for b, row in enumerate(rows):
        start = 0
        for number, example in enumerate(row, 1):
            here = slice(start, start + example.length)
            packed.token_ids[b, here] = example.token_ids
            packed.positions[b, :, here] = example.positions
            packed.labels[b, here] = example.labels
            packed.labels[b, start] = IGNORED  # nothing before it predicts it
            packed.segments[b, here] = number
            packed.audio += example.audio
            packed.images += example.images
            packed.videos += example.videos
            if example.heard is not None:
                if packed.heard is None:
                    packed.heard = torch.full((B, width, 2), IGNORED)
                known = example.heard != IGNORED
                packed.heard[b, here] = torch.where(known, example.heard + start, IGNORED)
            packed.names.append(example.name)
            start = here.stop
    return packed


class _NoMemory(KVCache):
    """Keys and values pass through, with their gradients: a packed row remembers nothing."""

    def write(self, k: Tensor, v: Tensor, reach: Reach) -> tuple[Tensor, Tensor]:
        return k, v


def packed_hidden(decoder: Decoder, x: Embedded, segments: Tensor | Spans) -> Tensor:
    """Hidden states (B, T, D) of packed rows, with gradients: `decoder.forward`, but segments cannot see each other.

    `segments` (B, T), or the Spans made of them: on a GPU, making them from a tensor there waits for it.
    """
    hidden = decoder.enter(x.embeds)
    turn = decoder.turn(x.positions, hidden.dtype)
    spans = segments if isinstance(segments, Spans) else Spans.of(segments)
    reach = Reach(0, x.length, spans if x.length > 1 else None, None)
    empty = hidden.new_empty(0)
    memory = _NoMemory(empty, empty)
    for layer in decoder.layers:
        hidden = layer(hidden, turn, memory, reach)
    return decoder.norm(hidden)
