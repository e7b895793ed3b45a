"""Key-value memory of a decoder: keys and values (B, Hkv, T, K) in, all that is remembered (B, Hkv, S, K) out.

    state = DecoderState.empty(...)            one KVCache a layer, lengths shared by the layers
    reach = state.reach(T, valid)              where this step writes and what it sees: built once, used by every layer
    k, v  = state.layers[i].write(k, v, reach)
    state.advance(T, valid)

Letters: B rows, Hkv key heads, T new time steps, S slots seen, K head width.

Rows may differ in length ("ragged"). A prompt is padded at its right; a row's next key always goes to the slot after its
last one. A slot is visible to the query at absolute index n when slot <= n, which hides padding and unwritten slots at once.
No slot below `stop` is ever left unwritten, so a cache full of NaN never leaks. The host knows all lengths: no step waits for the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thinktalk.layers.spans import Spans
from thinktalk.stream import State

__all__ = ["Allocator", "DecoderState", "KVCache", "Reach"]

Allocator = Callable[..., Tensor]
"""allocator((B, Hkv, slots, K), dtype=, device=) -> an uninitialised tensor; torch.empty when nobody owns the memory."""

SLOT_ROUNDING = 64  # capacities are multiples of this


class Reach(NamedTuple):
    """Where a step writes its T keys and which slots it sees."""

    start: int  # first slot written for all rows
    stop: int  # slots 0 .. stop - 1 are seen
    mask: (
        Tensor | Spans | None
    )  # (1 or B, 1, T, S) added to the scores; None: plain causal, or everything when T = 1
    slots: tuple[Tensor, Tensor] | None  # ragged rows: (B, 1) row and (B, T) slot of every key


@dataclass
class KVCache(State):
    """Keys and values of one layer."""

    k: Tensor  # (B, Hkv, capacity, K), unwritten slots hold anything
    v: Tensor  # (B, Hkv, capacity, K)

    def write(self, k: Tensor, v: Tensor, reach: Reach) -> tuple[Tensor, Tensor]:
        """Remember keys and values (B, Hkv, T, K); returns views of all that the step sees, (B, Hkv, S, K)."""
        new = k.shape[2]
        self.k.narrow(2, reach.start, new).copy_(
            k
        )  # short rows: a placeholder, hidden until overwritten
        self.v.narrow(2, reach.start, new).copy_(v)
        if reach.slots is not None:
            rows, slots = reach.slots
            self.k[rows, :, slots] = k.transpose(1, 2)
            self.v[rows, :, slots] = v.transpose(1, 2)
        return self.k.narrow(2, 0, reach.stop), self.v.narrow(2, 0, reach.stop)


def _lasting(method: Callable) -> Callable:
    """Memory is made of ordinary tensors even when made inside inference mode, so that it may be stepped outside."""

    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            return method(*args, **kwargs)

    return run


@dataclass
class DecoderState(State):
    """All that a decoder remembers of B conversations."""

    layers: list[KVCache]
    length: Tensor  # (B,) int64 tokens remembered in each row
    rows: tuple[int, ...]  # the host's copy of `length`
    allocator: Allocator | None = None

    @classmethod
    @_lasting
    def empty(
        cls,
        batch: int,
        *,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        device: torch.device | str,
        dtype: torch.dtype,
        capacity: int = 0,
        allocator: Allocator | None = None,
    ) -> DecoderState:
        """No tokens yet; room for `capacity` tokens, more as they come."""
        make = functools.partial(allocator or torch.empty, dtype=dtype, device=device)
        shape = (batch, num_kv_heads, _rounded(capacity), head_dim)
        return cls(
            layers=[KVCache(make(shape), make(shape)) for _ in range(num_layers)],
            length=torch.zeros(batch, dtype=torch.int64, device=device),
            rows=(0,) * batch,
            allocator=allocator,
        )

    @property
    def extent(self) -> int:
        """Tokens of the longest row."""
        return max(self.rows, default=0)

    @property
    def capacity(self) -> int:
        """Tokens there is room for before memory must grow."""
        return self.layers[0].k.shape[2]

    @property
    def num_bytes(self) -> int:
        """Bytes of keys and values held."""
        return sum(tensor.nbytes for tensor in self._memory())

    # ---------------------------------------------------------------------------------------------------------- a step

    def reach(self, new: int, dtype: torch.dtype) -> Reach:
        """Make room for `new` tokens in each row and say where they go; `dtype` is the mask's."""
        start, rows = self.extent, self.rows
        stop = start + new
        self.reserve(stop)
        ragged = min(rows, default=0) != start
        if not ragged and (new == 1 or start == 0):
            return Reach(start, stop, None, None)
        device = self.length.device
        index_BT = self.length.unsqueeze(1) + torch.arange(new, device=device)  # absolute indices
        row_B1 = torch.arange(len(rows), device=device).unsqueeze(1)
        queries = index_BT if ragged else index_BT[:1]  # rows of one length share a mask
        hidden_BTS = torch.arange(stop, device=device) > queries.unsqueeze(2)
        mask = torch.zeros(hidden_BTS.shape, dtype=dtype, device=device)
        mask.masked_fill_(hidden_BTS, -torch.inf)
        return Reach(start, stop, mask.unsqueeze(1), (row_B1, index_BT) if ragged else None)

    def advance(self, new: int, valid: Sequence[int] | None = None) -> None:
        """Count the tokens just written: `new` in each row, or valid[b] <= new in row b."""
        if valid is None:
            self.rows = tuple([n + new for n in self.rows])
            self.length += new
        else:
            self.rows = tuple([n + v for n, v in zip(self.rows, valid, strict=True)])
            self.length += torch.tensor(valid, device=self.length.device)

    # ---------------------------------------------------------------------------------------------------------- memory

    def reserve(self, slots: int) -> None:
        """Room for `slots` tokens a row; grows by half at least, so that n tokens cost O(n) copies."""
        if slots > (capacity := self.capacity):
            self._grow(max(slots, capacity + capacity // 2))

    def trim(self, length: int | Sequence[int]) -> None:
        """Forget all tokens of each row after the first `length` (an int, or one a row)."""
        wanted = [length] * len(self.rows) if isinstance(length, int) else list(length)
        self._set_rows(min(n, w) for n, w in zip(self.rows, wanted, strict=True))

    @_lasting
    def select(self, rows: Sequence[int]) -> DecoderState:
        """An independent state of the chosen rows, in that order."""
        out = self._like([self.rows[row] for row in rows])
        index, used = torch.tensor(rows, dtype=torch.int64, device=self.length.device), out.extent
        for to, of in zip(out._memory(), self._memory(), strict=True):
            to[:, :, :used] = of[:, :, :used].index_select(0, index)
        return out

    def fork(self) -> DecoderState:
        """An independent copy; only what is used is copied."""
        return self.select(range(len(self.rows)))

    def unstack(self) -> list[DecoderState]:
        """One state of batch 1 per row, each as long as its row."""
        return [self.select([row]) for row in range(len(self.rows))]

    @_lasting
    def stack(self, others: Sequence[DecoderState]) -> DecoderState:
        """Rows of all the states; they may differ in length."""
        states = [self, *others]
        out = self._like([length for state in states for length in state.rows])
        first = 0
        for state in states:
            last, used = first + len(state.rows), state.extent
            for to, of in zip(out._memory(), state._memory(), strict=True):
                to[first:last, :, :used] = of[:, :, :used]
                to[first:last, :, used : out.extent] = 0  # hidden by the mask, but NaN * 0 is NaN
            first = last
        return out

    def _memory(self) -> list[Tensor]:
        return [tensor for layer in self.layers for tensor in (layer.k, layer.v)]

    def _like(self, lengths: Sequence[int]) -> DecoderState:
        """Rows of these lengths, their slots unwritten."""
        _, Hkv, _, K = self.layers[0].k.shape
        out = DecoderState.empty(
            len(lengths), num_layers=len(self.layers), num_kv_heads=Hkv, head_dim=K, device=self.length.device,
            dtype=self.layers[0].k.dtype, capacity=max(lengths, default=0) + 1, allocator=self.allocator,
        )  # fmt: skip
        out._set_rows(lengths)
        return out

    @_lasting
    def _grow(self, capacity: int) -> None:
        used = self.extent
        for layer in self.layers:  # one tensor at a time: the peak is one tensor above what is held
            layer.k = self._moved(layer.k, used, capacity)
            layer.v = self._moved(layer.v, used, capacity)

    def _moved(self, old: Tensor, used: int, capacity: int) -> Tensor:
        B, Hkv, _, K = old.shape
        make = self.allocator or torch.empty
        new = make((B, Hkv, _rounded(capacity), K), dtype=old.dtype, device=old.device)
        new[:, :, :used] = old[:, :, :used]
        return new

    def _set_rows(self, lengths: Iterable[int]) -> None:
        self.rows = tuple(lengths)
        self.length.copy_(torch.tensor(self.rows, dtype=torch.int64))


def _rounded(slots: int) -> int:
    return -(-slots // SLOT_ROUNDING) * SLOT_ROUNDING
