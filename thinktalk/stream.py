"""The contract of everything that streams: chunks in, chunks out, all memory in an explicit State.

    y = module.step(x, state, last=False)      # state is updated in place
    the law: the outputs of step over ANY chunking, joined, equal module.forward(whole)

A State is a dataclass of tensors that mirrors the modules (`state.layers[3].k`). Dimension 0 of every tensor is the batch.
Modules hold weights and constants only; sessions hold states. `fork` keeps an old state, `stack`/`unstack` join and part rows.

Three ways to write a StreamModule:
    carry      override init_state and step (convolution tails, overlap-add, key-value caches)
    Windowed   a finite receptive field: the state is the recent inputs; each step recomputes over them and crops
    Blocked    waits until a whole block of input is there
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = [
    "Blocked", "Chain", "State", "StreamModule", "Windowed",
    "batch_of", "concat", "fork", "length_of", "narrow", "stack", "tensors", "unstack",
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- streams
# What flows is a Tensor, or a message (messages.py), which knows the time dimension of each of its tensors itself.


def length_of(x: Any, dim: int) -> int:
    """Number of time steps of a tensor (along `dim`) or of a message."""
    return x.shape[dim] if isinstance(x, Tensor) else x.length


def batch_of(x: Any) -> int:
    """Number of rows of a tensor or of a message."""
    return x.shape[0] if isinstance(x, Tensor) else x.batch


def narrow(x: Any, dim: int, start: int, length: int) -> Any:
    """`length` time steps of x from `start`; a view."""
    return x.narrow(dim, start, length) if isinstance(x, Tensor) else x.narrow(start, length)


def concat(parts: Sequence[Any], dim: int) -> Any:
    """Join chunks along time."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts), dim)
    return type(parts[0]).concat(parts)


# -------------------------------------------------------------------------------------------------------------- states


@dataclass
class State:
    """All that a StreamModule remembers. Fields are tensors (B, ...), States, messages, lists of these, or constants.

    A State whose tensors are not simply rows (a cache with room to grow, a random generator) overrides fork, stack and select;
    States that hold it then do the right thing.
    """

    def fork(self) -> Self:
        """An independent copy: stepping one does not change the other."""
        return _rebuild(self, torch.clone, lambda state: state.fork())

    def stack(self, others: Sequence[Self]) -> Self:
        """One State whose rows are the rows of self, then of others."""
        join = lambda *ts: torch.cat(ts, 0)  # noqa: E731
        return _rebuild(self, join, lambda first, *rest: first.stack(rest), *others)

    def select(self, rows: Sequence[int]) -> Self:
        """An independent State of the chosen rows, in that order."""
        return _rebuild(self, lambda t: t[list(rows)], lambda state: state.select(rows))

    def unstack(self) -> list[Self]:
        """One State of batch 1 per row."""
        return [self.select([row]) for row in range(next(tensors(self)).shape[0])]


def fork(state: State) -> State:
    """An independent copy of a state; prompt caching and barge-in are forks."""
    return state.fork()


def stack(states: Sequence[State]) -> State:
    """Rows of several states as one batch; the rows must be in the same phase (equal shapes beyond the batch)."""
    return states[0].stack(states[1:])


def unstack(state: State) -> list[State]:
    """The rows of a batched state as states of batch 1."""
    return state.unstack()


def tensors(state: Any) -> Iterator[Tensor]:
    """Every tensor of a state, depth first."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, (list, tuple)):
        for item in state:
            yield from tensors(item)
    elif dataclasses.is_dataclass(state):
        for field in dataclasses.fields(state):
            yield from tensors(getattr(state, field.name))


def _rebuild(
    state: Any, leaf: Callable[..., Tensor], node: Callable[..., State], *others: Any
) -> Any:
    """A state of the same kind: `leaf` of its tensors, `node` of the States in it, each with its counterparts in `others`."""

    def rebuilt(first: Any, *rest: Any) -> Any:
        if isinstance(first, Tensor):
            return leaf(first, *rest)
        if isinstance(first, State):
            return node(first, *rest)
        if isinstance(first, (list, tuple)):
            return type(first)(rebuilt(*items) for items in zip(first, *rest, strict=True))
        if dataclasses.is_dataclass(first) and not isinstance(first, type):
            return fields_of(first, *rest)
        assert all(other == first for other in rest), f"states disagree: {first} against {rest}"
        return first

    def fields_of(first: Any, *rest: Any) -> Any:
        names = [field.name for field in dataclasses.fields(first)]
        values = {n: rebuilt(getattr(first, n), *(getattr(r, n) for r in rest)) for n in names}
        return type(first)(**values)

    return fields_of(state, *others)


# ------------------------------------------------------------------------------------------------------------- modules


class StreamModule(nn.Module):
    """step(x, state, last) over any chunking == forward over the whole."""

    ratio: Fraction = Fraction(1)
    """Output frames per input frame."""
    lookahead: int = 0
    """Input frames needed after the one being emitted."""
    time_dim: int = 1
    """Time dimension of the input tensor (a message knows its own)."""
    out_time_dim: int = 1
    """Time dimension of the output tensor."""

    def init_state(
        self,
        batch: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        allocator: Any = None,
    ) -> State:
        """A fresh State for `batch` rows; `allocator` provides large key-value memory when an engine owns it."""
        raise NotImplementedError(f"{type(self).__name__} must say what its fresh state is")

    def step(self, x: Any, state: Any, *, last: bool = False) -> Any:
        """Consume one chunk (any length, zero included), update `state` in place, return what can be emitted."""
        raise NotImplementedError(f"{type(self).__name__} must say how it steps")

    def forward(self, x: Any) -> Any:
        """Offline is the special case: one step from a fresh state."""
        device, dtype = device_and_dtype(x)
        return self.step(x, self.init_state(batch_of(x), device=device, dtype=dtype), last=True)


def device_and_dtype(x: Any) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of a tensor or of the first tensor of a message."""
    lead = x if isinstance(x, Tensor) else next(tensors(x))
    return lead.device, lead.dtype


class Buffered(StreamModule):
    """What Windowed and Blocked share: they keep recent inputs and compute over stretches of them."""

    def compute(self, x: Any) -> Any:
        """The outputs of a stretch of inputs, as if it were the whole stream."""
        raise NotImplementedError(f"{type(self).__name__} must say what it computes")

    def empty_input(self, batch: int, *, device: Any, dtype: Any) -> Any:
        """A zero-length input chunk."""
        raise NotImplementedError(f"{type(self).__name__} must say what an empty input is")

    def empty_output(self, x: Any) -> Any:
        """A zero-length output chunk for inputs like x."""
        raise NotImplementedError(f"{type(self).__name__} must say what an empty output is")


@dataclass
class WindowedState(State):
    """Recent inputs: those already emitted that later outputs still see, and those that wait for their look-ahead."""

    context: Any  # time length <= left
    pending: Any  # time length <= lookahead between steps


class Windowed(Buffered):
    """A finite receptive field: output frame i depends on input frames i - left .. i + lookahead.

    A subclass gives `left`, `lookahead`, `ratio` (a whole number), `compute` and the two empty chunks. Where the window
    starts or ends at the stream's own edge, compute sees that edge, so edge padding is the whole run's.
    """

    left: int
    """Input frames seen before the one being emitted."""

    def init_state(self, batch: int, *, device=None, dtype=None, allocator=None) -> WindowedState:
        nothing = self.empty_input(batch, device=device, dtype=dtype)
        return WindowedState(context=nothing, pending=nothing)

    def step(self, x: Any, state: WindowedState, *, last: bool = False) -> Any:
        dim, scale = self.time_dim, int(self.ratio)
        assert scale == self.ratio, f"Windowed needs a whole ratio, got {self.ratio}"
        pending = concat([state.pending, x], dim)
        ready = length_of(pending, dim) - (0 if last else self.lookahead)
        if ready <= 0:
            state.pending = pending
            return self.empty_output(x)
        window = concat([state.context, pending], dim)
        seen = length_of(state.context, dim)
        y = narrow(self.compute(window), self.out_time_dim, seen * scale, ready * scale)
        keep = min(self.left, seen + ready)
        state.context = narrow(window, dim, seen + ready - keep, keep)
        state.pending = narrow(pending, dim, ready, length_of(pending, dim) - ready)
        return y


@dataclass
class BlockedState(State):
    """Inputs that do not fill a block yet."""

    pending: Any  # time length < block between steps


class Blocked(Buffered):
    """Waits for whole blocks of `block` input frames; blocks do not see each other.

    A subclass gives `block`, the two empty chunks and `compute`, whose input is any whole number of blocks, or at the
    end the shorter rest alone.
    """

    block: int
    """Input frames a block."""

    @property
    def lookahead(self) -> int:  # type: ignore[override]
        """The first frame of a block waits for the last one."""
        return self.block - 1

    def init_state(self, batch: int, *, device=None, dtype=None, allocator=None) -> BlockedState:
        return BlockedState(pending=self.empty_input(batch, device=device, dtype=dtype))

    def step(self, x: Any, state: BlockedState, *, last: bool = False) -> Any:
        dim = self.time_dim
        pending = concat([state.pending, x], dim)
        total = length_of(pending, dim)
        full = total - total % self.block
        outputs = []
        if full:
            outputs.append(self.compute(narrow(pending, dim, 0, full)))
        if last and total > full:
            outputs.append(self.compute(narrow(pending, dim, full, total - full)))
        rest = 0 if last else total - full
        state.pending = narrow(pending, dim, total - rest, rest)
        return concat(outputs, self.out_time_dim) if outputs else self.empty_output(x)


@dataclass
class ChainState(State):
    """One state a link."""

    links: list[State]


class Chain(StreamModule):
    """Links one after the other; the output of one is the input of the next."""

    def __init__(self, *links: StreamModule):
        super().__init__()
        self.links = nn.ModuleList(links)
        self.time_dim, self.out_time_dim = links[0].time_dim, links[-1].out_time_dim
        ratio, lookahead = Fraction(1), Fraction(0)
        for link in links:
            lookahead += link.lookahead / ratio
            ratio *= link.ratio
        self.ratio, self.lookahead = ratio, ceil(lookahead)

    def init_state(self, batch: int, *, device=None, dtype=None, allocator=None) -> ChainState:
        make = dict(device=device, dtype=dtype, allocator=allocator)
        return ChainState([link.init_state(batch, **make) for link in self.links])  # type: ignore[union-attr]

    def step(self, x: Any, state: ChainState, *, last: bool = False) -> Any:
        for link, link_state in zip(self.links, state.links, strict=True):
            x = link.step(x, link_state, last=last)  # type: ignore[operator]
        return x
