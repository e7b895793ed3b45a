"""Rates, steps, clipping and the running mean, against plain PyTorch and arithmetic."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from thinktalk.errors import ConfigError
from thinktalk.training.optim import (
    EMA,
    OptimConfig,
    ScheduleConfig,
    clip,
    make_optimizer,
    rate,
    set_rate,
)  # fmt: skip


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))


def test_rates_rise_and_fall():
    cosine = ScheduleConfig(warmup=0.1, floor=0.2)
    assert [rate(p, cosine) for p in (0, 0.05, 0.1, 1)] == pytest.approx([0, 0.5, 1, 0.2])
    assert rate(0.55, cosine) == pytest.approx(0.6)  # half way between 1 and the floor
    late = ScheduleConfig(shape="wsd", warmup=0.1, floor=0, decay=0.2)
    assert [rate(p, late) for p in (0.1, 0.5, 0.8, 0.9, 1)] == pytest.approx([1, 1, 1, 0.5, 0])
    assert rate(0.55, ScheduleConfig(shape="linear", warmup=0.1, floor=0)) == pytest.approx(0.5)
    assert rate(2.0, ScheduleConfig(shape="constant")) == 1
    assert rate(0, ScheduleConfig(warmup=0)) == 1
    for shape in ("cosine", "linear", "constant", "wsd"):
        curve = [rate(i / 500, ScheduleConfig(shape=shape)) for i in range(501)]
        assert all(0 <= r <= 1 for r in curve)
        assert max(abs(a - b) for a, b in itertools.pairwise(curve)) < 0.1  # no jump


def test_steps_are_adamw_with_decay_on_matrices_only():
    ours, theirs = model(), model()
    config = OptimConfig(lr=0.1, weight_decay=0.3)
    optimizer = make_optimizer(dict(ours.named_parameters()), config)
    plain = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.3},
            {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=0.05, betas=(0.9, 0.95), foreach=False,
    )  # fmt: skip
    set_rate(optimizer, 0.05)
    for step in range(3):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        for net, opt in ((ours, optimizer), (theirs, plain)):
            opt.zero_grad()
            net(x).square().sum().backward()
            opt.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_scales_of_the_rate():
    net = model()
    optimizer = make_optimizer(dict(net.named_parameters()), OptimConfig(), lr_scale={"0.": 0.1, "0.b": 0.5})  # fmt: skip
    set_rate(optimizer, 1.0)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates[id(net[0].weight)] == 0.1 and rates[id(net[0].bias)] == 0.5
    assert rates[id(net[2].weight)] == 1.0
    with pytest.raises(ConfigError, match="no trained parameter"):
        make_optimizer(dict(net.named_parameters()), OptimConfig(), lr_scale={"encoder.": 1})
    with pytest.raises(ConfigError, match="nothing to train"):
        make_optimizer({}, OptimConfig())


def test_clip_shortens_only_what_is_long():
    net = model()
    net(torch.ones(1, 4)).sum().backward()
    before = [p.grad.clone() for p in net.parameters()]
    length = math.sqrt(sum(float(g.square().sum()) for g in before))
    assert clip(net.parameters(), 0) == pytest.approx(length)
    assert clip(net.parameters(), length * 2) == pytest.approx(length)
    torch.testing.assert_close([p.grad for p in net.parameters()], before)
    clip(net.parameters(), length / 4)
    torch.testing.assert_close([p.grad for p in net.parameters()], [g / 4 for g in before])


def test_ema_is_the_recurrence_and_gives_the_weights_back():
    net = model()
    named = dict(net.named_parameters())
    ema = EMA(named, decay=0.3)
    expected = {n: p.detach().clone() for n, p in named.items()}
    for update in range(4):
        with torch.no_grad():
            for p in named.values():
                p.add_(1)
        ema.update()
        decay = min(0.3, (1 + update) / (10 + update))
        expected = {n: decay * expected[n] + (1 - decay) * named[n].detach() for n in named}
    torch.testing.assert_close(ema.shadow, expected)
    kept = copy.deepcopy(net.state_dict())
    with ema.applied():
        torch.testing.assert_close({n: p.detach() for n, p in named.items()}, expected)
    assert all(torch.equal(v, kept[n]) for n, v in net.state_dict().items())


@pytest.mark.parametrize(
    "wrong", [dict(lr=0), dict(beta1=1.0), dict(ema=-0.1), dict(weight_decay=-1), dict(clip=-1)]
)
def test_values_that_cannot_be(wrong: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        OptimConfig(**wrong)
    with pytest.raises(ConfigError, match="warmup"):
        ScheduleConfig(warmup=1.5)
    with pytest.raises(ConfigError, match="more than 1"):
        ScheduleConfig(shape="wsd", warmup=0.5, decay=0.6)
