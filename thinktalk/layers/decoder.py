"""The decoder of Thinker and Talker (Qwen2): Embedded (B, T, D) -> hidden (B, T, D) after the final norm.

    step      a chunk of any length over what is remembered: prompts in pieces, one token at a time, rows of unequal length
    forward   a whole text at once and no memory: training and scoring

Letters: B rows, T time steps, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from thinktalk.config import DecoderConfig
from thinktalk.layers.attention import Attention
from thinktalk.layers.kv_cache import Allocator, DecoderState, KVCache, Reach
from thinktalk.layers.mlp import SwiGLU
from thinktalk.layers.norm import RMSNorm
from thinktalk.layers.rope import Rotary, rotary
from thinktalk.messages import Embedded
from thinktalk.stream import StreamModule

__all__ = ["Decoder", "DecoderLayer", "join_rows", "last_of"]


class DecoderLayer(nn.Module):
    """Pre-norm attention, pre-norm SwiGLU."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.norm1 = RMSNorm(config.width, config.norm_eps)
        self.attn = Attention(
            config.width, num_heads=config.num_heads, num_kv_heads=config.num_kv_heads, head_dim=config.head_dim
        )  # fmt: skip
        self.norm2 = RMSNorm(config.width, config.norm_eps)
        self.mlp = SwiGLU(config.width, config.ffn_width)

    def forward(
        self, x: Tensor, turn: Rotary, cache: KVCache | None = None, reach: Reach | None = None
    ) -> Tensor:
        parts = self._modules  # our own bricks are entered by forward, not by call: see direct.py
        norm1, attn, norm2, mlp = parts["norm1"], parts["attn"], parts["norm2"], parts["mlp"]
        x = x + attn.forward(norm1.forward(x), turn, cache, reach)
        return x + mlp.forward(norm2.forward(x))


class Decoder(StreamModule):
    """Layers and final norm; the input is at model width (subclasses embed and project)."""

    prefill_chunk = 1024
    """Longer chunks are read in pieces of this many tokens: the widest activations stay bounded."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.width, config.norm_eps)

    def enter(self, embeds: Tensor) -> Tensor:
        """What the message carries, at model width."""
        return embeds

    def init_state(
        self,
        batch: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        allocator: Allocator | None = None,
        capacity: int = 0,
    ) -> DecoderState:
        """Nothing remembered; `capacity` tokens a row are allocated now (memory grows when it must)."""
        return DecoderState.empty(
            batch, num_layers=self.config.num_layers, num_kv_heads=self.config.num_kv_heads,
            head_dim=self.config.head_dim, device=device or self.norm.weight.device,
            dtype=dtype or self.norm.weight.dtype, capacity=capacity, allocator=allocator,
        )  # fmt: skip

    def step(
        self,
        x: Embedded,
        state: DecoderState,
        *,
        last: bool = False,
        valid: Sequence[int] | Tensor | None = None,
    ) -> Tensor:
        """Read a chunk (B, T, D) and give its hidden states (B, T, D); `state` is updated in place, no gradient flows.

        `valid`: tokens that count in each row, from the left (a list is best: a tensor on a device must be waited for).
        What stands to their right may be anything; hidden states there mean nothing.
        """
        if torch.is_grad_enabled():
            with torch.no_grad():
                return self.step(x, state, last=last, valid=valid)
        T = x.length
        if isinstance(valid, Tensor):
            valid = valid.tolist()
        if valid is not None and all(v == T for v in valid):
            valid = None
        if self.prefill_chunk < T:
            pieces = []
            for start in range(0, T, self.prefill_chunk):
                length = min(self.prefill_chunk, T - start)
                left = None if valid is None else [min(max(v - start, 0), length) for v in valid]
                pieces.append(self.step(x.narrow(start, length), state, valid=left))
            return torch.cat(pieces, 1)
        if T == 0:
            return self.norm(self.enter(x.embeds))
        if valid is not None:
            x = replace(x, embeds=_blank(x.embeds, valid))
        hidden = self.enter(x.embeds)
        reach = state.reach(T, hidden.dtype)
        turn = self.turn(x.positions, hidden.dtype)
        for layer, cache in zip(self.layers, state.layers, strict=True):
            hidden = layer.forward(hidden, turn, cache, reach)
        state.advance(T, valid)
        return self.norm.forward(hidden)

    def forward(self, x: Embedded) -> Tensor:
        """Hidden states (B, T, D) of whole texts, without memory and with gradients; padding belongs at the right."""
        hidden = self.enter(x.embeds)
        if x.length:
            turn = self.turn(x.positions, hidden.dtype)
            for layer in self.layers:
                hidden = layer(hidden, turn)
        return self.norm.forward(hidden)

    def turn(self, positions: Tensor, dtype: torch.dtype) -> Rotary:
        """Rotary turns of positions (B, 3, T)."""
        return rotary(
            positions, sections=self.config.mrope_section, theta=self.config.rope_theta, dtype=dtype
        )


def _blank(embeds: Tensor, valid: Sequence[int]) -> Tensor:
    """Zeros where a row has ended: finite keys for any padding."""
    ends = torch.tensor(valid, device=embeds.device)[:, None, None]
    steps = torch.arange(embeds.shape[1], device=embeds.device)[None, :, None]
    return embeds.masked_fill(steps >= ends, 0)


def last_of(hidden: Tensor, valid: Sequence[int] | None = None) -> Tensor:
    """The hidden state (B, D) of the last token of each row: all that logits are ever computed from."""
    if valid is None:
        return hidden[:, -1]
    rows = torch.arange(hidden.shape[0], device=hidden.device)
    return hidden[rows, torch.tensor(valid, device=hidden.device) - 1]


def join_rows(rows: Sequence[Embedded]) -> tuple[Embedded, list[int]]:
    """Single-row chunks of unequal length as one batch padded at the right, and the valid length of each row."""
    lengths = [row.length for row in rows]
    longest = max(lengths)

    def padded(x: Tensor, dim: int) -> Tensor:
        missing = [0, 0] * (x.ndim - 1 - dim) + [0, longest - x.shape[dim]]
        return nn.functional.pad(x, missing)

    return Embedded(
        embeds=torch.cat([padded(row.embeds, 1) for row in rows]),
        positions=torch.cat([padded(row.positions, 2) for row in rows]),
    ), lengths
