"""RowPool: decode rows of one Decoder side by side. Embedded (R, 1, D) of R conversations -> hidden (R, 1, D).

    row = pool.join(state)                   a conversation's own memory (1 row) moves into the pool
    hidden = pool.step([row, ...], x)        one token for some of the rows; the others do not notice
    state = pool.leave(row, keep=n)          its first n tokens move out again

Rows live in lanes, one block of keys and values a layer each. A lane holds conversations of similar length, so that one long
document neither makes everybody's memory as long as its own nor their attention as slow. Rows in use are always the first
ones of their block: a step reads it as it is, nothing is gathered. The only row of a lane keeps the memory it came with.

Letters: R rows in use, N key heads, S slots, K head width, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinktalk.layers.decoder import Decoder
from thinktalk.layers.kv_cache import DecoderState, KVCache, Reach
from thinktalk.messages import Embedded

__all__ = ["Row", "RowPool"]

LANES = tuple(1024 * 4**k for k in range(12))
"""Longest conversation of each lane (tokens): memory reserved for the shorter ones is at most four times what they need."""


@dataclass(eq=False)
class Row:
    """A conversation's place in the pool; the pool moves it about."""

    lane: Lane
    index: int

    @property
    def length(self) -> int:
        """Tokens remembered."""
        state = self.lane.state
        assert state is not None
        return state.rows[self.index]


@dataclass(eq=False)
class Lane:
    """Rows that step together."""

    limit: int
    """Tokens of the longest row it takes."""
    rows: list[Row] = field(default_factory=list)
    state: DecoderState | None = None

    def enter(self, row: Row, state: DecoderState) -> None:
        """Take in a conversation; without company it keeps its memory."""
        if not self.rows:
            self.state = state
        else:
            if not isinstance(self.state, SharedRows):
                assert self.state is not None
                shared = SharedRows.of(self.state)  # nothing is lost if there is no memory for it
                shared.append(state)
                self.state = shared
            else:
                self.state.append(state)
        row.lane, row.index = self, len(self.rows)
        self.rows.append(row)

    def exit(self, row: Row, keep: int) -> DecoderState:
        """Give a conversation its own memory back; the last row takes its place."""
        assert self.state is not None and self.rows[row.index] is row
        if isinstance(self.state, SharedRows):
            own = self.state.extract(row.index, keep)
            self.state.remove(row.index)
        else:
            own = self.state
            own.trim(keep)
        last = self.rows.pop()
        if last is not row:
            last.index = row.index
            self.rows[row.index] = last
        if not self.rows:
            self.state = None
        return own


class RowPool:
    """Conversations that decode together, whatever their lengths; nobody's result depends on the company."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self.lanes: dict[int, Lane] = {}

    def __len__(self) -> int:
        return sum(len(lane.rows) for lane in self.lanes.values())

    @property
    def num_bytes(self) -> int:
        """Bytes of keys and values held, unused rows included."""
        states = [lane.state for lane in self.lanes.values() if lane.state is not None]
        return sum(state.num_bytes for state in states)

    def join(self, state: DecoderState) -> Row:
        """Move a conversation's memory (one row) in; the state given must not be used any more."""
        assert len(state.rows) == 1, f"one conversation joins at a time, got {len(state.rows)} rows"
        lane = self._lane(state.extent)
        row = Row(lane, -1)
        lane.enter(row, state)
        return row

    def leave(self, row: Row, *, keep: int | None = None) -> DecoderState:
        """Move a conversation out with its first `keep` tokens (all by default)."""
        length = row.length
        return row.lane.exit(row, length if keep is None else min(keep, length))

    def step(self, rows: Sequence[Row], x: Embedded) -> Tensor:
        """Read one token for each of `rows`, all of one lane: x (len(rows), 1, D) -> hidden (len(rows), 1, D)."""
        lane = rows[0].lane
        state, R = lane.state, len(lane.rows)
        assert state is not None and all(row.lane is lane for row in rows), "rows of one lane"
        if len(rows) == R and all(row is own for row, own in zip(rows, lane.rows, strict=True)):
            hidden = self.decoder.step(x, state)
        else:
            index = [row.index for row in rows]
            present = [0] * R
            for i in index:
                present[i] = 1
            at = torch.tensor(index, device=x.embeds.device)
            embeds = x.embeds.new_zeros(R, *x.embeds.shape[1:]).index_copy_(0, at, x.embeds)
            positions = x.positions.new_zeros(R, 3, 1).index_copy_(0, at, x.positions)
            hidden = self.decoder.step(Embedded(embeds, positions), state, valid=present)[at]
        for row in rows:
            if state.rows[row.index] >= lane.limit:
                self._move_up(row)
        return hidden

    def take_back(self, rows: Sequence[Row]) -> None:
        """Forget the token that each of `rows` read last."""
        for row in rows:
            state = row.lane.state
            assert state is not None
            state.trim([n - (i == row.index) for i, n in enumerate(state.rows)])

    def _lane(self, length: int) -> Lane:
        limit = next(limit for limit in LANES if length < limit)
        return self.lanes.setdefault(limit, Lane(limit))

    def _move_up(self, row: Row) -> None:
        length = row.length
        self._lane(length).enter(row, row.lane.exit(row, length))


# --------------------------------------------------------------------------------------------------------- shared memory


class SharedRows(DecoderState):
    """A DecoderState whose rows are the first ones of a bigger block; its slots never hold what is not finite.

    (A row that ends in NaN is cleared before another takes its place: hidden slots are multiplied by zero, and NaN stays NaN.)
    """

    blocks: list[KVCache]
    """(rows there is room for, N, slots, K) of each layer."""

    @classmethod
    def of(cls, first: DecoderState) -> SharedRows:
        """Room for two rows, the first one taken."""
        shared = cls(layers=[], length=first.length, rows=(), allocator=first.allocator)
        head = first.layers[0].k
        shared.blocks = _blocks(first, len(first.layers), 2, head.shape[2], head)
        shared._put(0, first, first.extent)
        shared._use((first.extent,))
        return shared

    # rows come and go: layers are views of the blocks, made anew each time

    def append(self, state: DecoderState) -> None:
        """One row more."""
        used, count = state.extent, len(self.rows)
        slots, room = self.blocks[0].k.shape[2], self.blocks[0].k.shape[0]
        if used >= slots or count == room:
            wider = slots if used < slots else max(used + 1, slots + slots // 2)
            self._resize(room if count < room else 2 * room, wider)
        self._put(count, state, used)
        self._use((*self.rows, used))

    def extract(self, index: int, keep: int) -> DecoderState:
        """A copy of the first `keep` tokens of a row."""
        head = self.blocks[0].k
        own = DecoderState.empty(
            1, num_layers=len(self.blocks), num_kv_heads=head.shape[1], head_dim=head.shape[3], device=head.device,
            dtype=head.dtype, capacity=keep + 1, allocator=self.allocator,
        )  # fmt: skip
        for to, block in zip(own.layers, self.blocks, strict=True):
            to.k[0, :, :keep] = block.k[index, :, :keep]
            to.v[0, :, :keep] = block.v[index, :, :keep]
        own._set_rows([keep])
        return own

    def remove(self, index: int) -> None:
        """A row less; the last one takes its place."""
        last = len(self.rows) - 1
        rows = list(self.rows)
        if index != last:
            used = rows[last]
            for block in self.blocks:
                for t in (block.k, block.v):
                    t[index, :, :used] = t[last, :, :used]
                    t[index, :, used:] = 0
            rows[index] = rows[last]
        rows.pop()
        self.rows = tuple(rows)
        if rows and 4 * len(rows) <= self.blocks[0].k.shape[0]:
            self._resize(2 * len(rows), max(rows) + 1)
        self._use(self.rows)

    def reserve(self, slots: int) -> None:
        if slots > (held := self.blocks[0].k.shape[2]):
            self._resize(self.blocks[0].k.shape[0], max(slots, held + held // 2))
            self._use(self.rows)

    def reach(self, new: int, dtype: torch.dtype) -> Reach:
        start = self.extent
        if new != 1 or min(self.rows) == start:
            return super().reach(new, dtype)  # rows of equal length need neither mask nor slots
        stop = start + 1
        self.reserve(stop)
        hidden_RS = self._slots[:stop] > self.length.unsqueeze(1)
        mask = torch.zeros(hidden_RS.shape, dtype=dtype, device=self.length.device)
        mask.masked_fill_(hidden_RS, -torch.inf)
        flat = (self._bases + self.length.unsqueeze(1)).flatten()
        return Reach(start, stop, mask[:, None, None], (flat, flat))

    @property
    def num_bytes(self) -> int:
        return sum(t.nbytes for block in self.blocks for t in (block.k, block.v))

    def _use(self, rows: tuple[int, ...]) -> None:
        """Say how long each row in use is."""
        R, (_, N, S, _), device = len(rows), self.blocks[0].k.shape, self.blocks[0].k.device
        with torch.inference_mode(False):
            self.layers = [SharedCache(block.k[:R], block.v[:R]) for block in self.blocks]
            self.length = torch.tensor(rows, dtype=torch.int64).to(device)
            self._slots = torch.arange(S, device=device)
            self._bases = torch.arange(0, R * N * S, S, device=device).view(R, N)
        self.rows = rows

    def _put(self, index: int, state: DecoderState, used: int) -> None:
        """Copy a conversation into a row; the slots after it become zero."""
        for block, source in zip(self.blocks, state.layers, strict=True):
            for to, of in ((block.k, source.k), (block.v, source.v)):
                to[index, :, :used] = of[0, :, :used]
                to[index, :, used:] = 0

    def _resize(self, room: int, slots: int) -> None:
        head, R, used = self.blocks[0].k, len(self.rows), self.extent
        fresh = _blocks(self, len(self.blocks), room, slots, head)
        for to, of in zip(fresh, self.blocks, strict=True):
            to.k[:R, :, :used] = of.k[:R, :, :used]
            to.v[:R, :, :used] = of.v[:R, :, :used]
        self.blocks = fresh


@dataclass
class SharedCache(KVCache):
    """One layer of SharedRows: a ragged token goes straight to its slots (2 us; indexing by rows and slots takes 24)."""

    def write(self, k: Tensor, v: Tensor, reach: Reach) -> tuple[Tensor, Tensor]:
        if reach.slots is None or k.shape[2] != 1:
            return super().write(k, v, reach)
        flat, width = reach.slots[0], k.shape[-1]
        self.k.view(-1, width).index_copy_(0, flat, k.reshape(-1, width))
        self.v.view(-1, width).index_copy_(0, flat, v.reshape(-1, width))
        return self.k.narrow(2, 0, reach.stop), self.v.narrow(2, 0, reach.stop)


def _blocks(state: DecoderState, layers: int, room: int, slots: int, like: Tensor) -> list[KVCache]:
    """Memory full of zeros, made of ordinary tensors."""
    make, slots = state.allocator or torch.empty, -(-slots // 64) * 64
    shape = (room, like.shape[1], slots, like.shape[3])
    with torch.inference_mode(False):
        pair = lambda: make(shape, dtype=like.dtype, device=like.device).zero_()  # noqa: E731
        return [KVCache(pair(), pair()) for _ in range(layers)]
