"""check_law must pass an honest module of each kind and catch every way of cheating."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
import torch
from law import check_law
from torch import Tensor, nn

from thinktalk.messages import Embedded
from thinktalk.stream import Blocked, Chain, State, StreamModule, Windowed


@dataclass
class SumState(State):
    total: Tensor  # (B, 1, C)


class RunningSum(StreamModule):
    """Carry style: y_t = gain * sum of x up to t."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5))

    def init_state(self, batch, *, device=None, dtype=None, allocator=None):
        return SumState(torch.zeros(batch, 1, 3, device=device, dtype=dtype))

    def step(self, x, state, *, last=False):
        y = x.cumsum(1) + state.total
        if x.shape[1]:
            state.total = y[:, -1:].clone()
        return self.gain * y


class Smooth(Windowed):
    """Windowed style: the mean of 5 inputs, zeros outside."""

    left, lookahead = 2, 2

    def compute(self, window):
        return nn.functional.avg_pool1d(window.transpose(1, 2), 5, 1, 2).transpose(1, 2)

    def empty_input(self, batch, *, device, dtype):
        return torch.zeros(batch, 0, 3, device=device, dtype=dtype)

    def empty_output(self, x):
        return x[:, :0]


class BlockMean(Blocked):
    """Blocked style: each input minus the mean of its block of 4."""

    block = 4

    def compute(self, x):
        blocks = x.split(self.block, 1)
        return torch.cat([b - b.mean(1, keepdim=True) for b in blocks], 1)

    empty_input, empty_output = Smooth.empty_input, Smooth.empty_output


class MessageSum(StreamModule):
    """A message in, a tensor out: positions and embeddings both matter."""

    init_state = RunningSum.init_state

    def step(self, x, state, *, last=False):
        y = (x.embeds * x.positions.sum(1)[..., None]).cumsum(1) + state.total
        if x.length:
            state.total = y[:, -1:].clone()
        return y


def noise(batch, length, generator):
    return torch.randn(batch, length, 3, dtype=torch.float64, generator=generator)


def message(batch, length, generator):
    positions = torch.randint(1, 9, (batch, 3, length), generator=generator)
    return Embedded(noise(batch, length, generator), positions)


@pytest.mark.parametrize(
    "module", [RunningSum(), Smooth(), BlockMean(), Chain(Smooth(), BlockMean(), RunningSum())]
)
def test_honest_modules_pass(module):
    check_law(module, noise, max_length=23)


def test_messages_pass():
    check_law(MessageSum(), message, max_length=13)


class Forgets(RunningSum):
    """Loses the carry when an empty chunk comes."""

    def step(self, x, state, *, last=False):
        y = super().step(x, state, last=last)
        if not x.shape[1]:
            state.total = torch.zeros_like(state.total)
        return y


class HiddenState(RunningSum):
    """Right answers, but a counter lives in the module."""

    seen = 0

    def step(self, x, state, *, last=False):
        self.seen += x.shape[1]
        return super().step(x, state, last=last)


class HiddenCache(RunningSum):
    """Right answers, but something about the stream is kept in a dict of the module."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def step(self, x, state, *, last=False):
        self.cache["last"] = x
        return super().step(x, state, last=last)


@dataclass
class SharedState(SumState):
    def fork(self):
        return replace(self)  # shares the tensor


class ForksShare(RunningSum):
    def init_state(self, batch, **kwargs):
        return SharedState(super().init_state(batch, **kwargs).total)

    def step(self, x, state, *, last=False):
        y = x.cumsum(1) + state.total
        if x.shape[1]:
            state.total.copy_(y[:, -1:])
        return self.gain * y


class MixesRows(RunningSum):
    def step(self, x, state, *, last=False):
        return super().step(x, state, last=last) + 1e-6 * x.sum(0, keepdim=True)


@dataclass
class UnevenState(SumState):
    def unstack(self):
        return super().unstack()[::-1]  # rows in the wrong order


class UnstacksWrong(RunningSum):
    def init_state(self, batch, **kwargs):
        return UnevenState(super().init_state(batch, **kwargs).total)


class KeepsInput(RunningSum):
    """Its memory is a view of the caller's chunk."""

    def step(self, x, state, *, last=False):
        y = x.cumsum(1) + state.total
        if x.shape[1] == 1:
            x += state.total
            state.total = x
        elif x.shape[1]:
            state.total = y[:, -1:].clone()
        return self.gain * y


class Aliases(Smooth):
    """Keeps a view of the chunk instead of a copy."""

    def step(self, x, state, *, last=False):
        empty = not state.pending.shape[1]
        y = super().step(x, state, last=last)
        if empty and state.pending.shape[1] == x.shape[1]:
            state.pending = x
        return y


class Late(BlockMean):
    """Promises to wait for less than it does."""

    lookahead = 1


class Deaf(RunningSum):
    def step(self, x, state, *, last=False):
        return super().step(x, state, last=last) * 0


class HalfDeaf(MessageSum):
    """Hears one field of the message only."""

    def step(self, x, state, *, last=False):
        x = replace(x, positions=torch.ones_like(x.positions))
        return super().step(x, state, last=last)


class DropsTail(BlockMean):
    """Loses the rest when the last chunk is empty."""

    def step(self, x, state, *, last=False):
        y = super().step(x, state, last=last)
        return y[:, :0] if last and not x.shape[1] else y


@pytest.mark.parametrize(
    ("cheat", "draw", "message_part"),
    [
        (Forgets(), noise, "law"),
        (DropsTail(), noise, "law"),
        (HiddenState(), noise, "constancy"),
        (HiddenCache(), noise, "constancy"),
        (ForksShare(), noise, "fork"),
        (MixesRows(), noise, "rows"),
        (UnstacksWrong(), noise, "rows"),
        (KeepsInput(), noise, "ownership"),
        (Aliases(), noise, "law"),
        (Late(), noise, "promptness"),
        (Deaf(), noise, "sensitivity"),
        (HalfDeaf(), message, "sensitivity"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_every_cheat_is_caught(cheat, draw, message_part):
    with pytest.raises(AssertionError, match=message_part):
        check_law(cheat, draw, max_length=23)


def test_ratio_below_one_is_understood():
    class Half(Blocked):
        block, ratio = 2, Fraction(1, 2)
        empty_input, empty_output = Smooth.empty_input, Smooth.empty_output

        def compute(self, x):
            return x[:, ::2] * 2

    check_law(Half(), noise, max_length=11)
