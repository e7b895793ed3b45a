"""k0: a tuned Thinker breaks its Talker; learning from the old system mends it."""

from __future__ import annotations

import pytest
import torch
from talker_house import house, lines

from thinktalk.training.k0_realign import RealignStage, distance
from thinktalk.weights.hf import load


@pytest.fixture
def systems(tiny_checkpoint):
    """As it was, and with a Thinker whose layers were tuned far."""
    old, tuned = (load(tiny_checkpoint, parts=("thinker", "talker"), dtype="float32") for _ in range(2))  # fmt: skip
    torch.manual_seed(0)
    for parameter in tuned.thinker.layers.parameters():
        parameter.data = parameter.data + parameter.std() * torch.randn_like(parameter)
    return old, tuned


@pytest.fixture(scope="module")
def kit(tiny_checkpoint):
    return house(tiny_checkpoint)[1]


def test_the_distance_is_the_sum_over_all_codes():
    """The formula by hand, weighted; chunks change nothing but the order of float32 sums."""
    torch.manual_seed(0)
    old, new, weights = torch.randn(7, 5), torch.randn(7, 5, requires_grad=True), torch.rand(7)
    heads = [torch.nn.Linear(5, 11) for _ in range(2)]
    p, q = heads[0](old).softmax(-1), heads[1](new).softmax(-1)
    plain = ((p * (p / q).log()).sum(-1) * weights).sum() / weights.sum()
    for chunk in (100, 3):
        loss, same = distance(old, new, weights, *heads, chunk=chunk)
        assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
        assert float(same) == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).float().mean()))
    got = torch.autograd.grad(loss, (new, heads[1].weight))
    wanted = torch.autograd.grad(plain, (new, heads[1].weight))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert heads[0].weight.grad is None
    assert float(distance(old, old, weights, heads[0], heads[0])[0].detach()) == pytest.approx(0, abs=1e-6)  # fmt: skip
    # planted fault: the other direction of KL is another number
    assert (
        abs(
            float(
                distance(new.detach(), old, weights, heads[1], heads[0])[0].detach()
                - plain.detach()
            )
        )
        > 1e-3
    )


def test_a_tuned_thinker_breaks_the_talker_and_k0_mends_it(systems, kit):
    """Nothing to do for the old Thinker; for the tuned one most of the distance goes in 25 steps."""
    old, tuned = systems
    batch = lines(kit, (7, 9))
    stage = RealignStage(old, old)
    assert float(stage.loss(batch, generator=torch.Generator())[0].detach()) == pytest.approx(0, abs=1e-5)  # fmt: skip
    stage = RealignStage(tuned, old)
    first, seen = stage.loss(batch, generator=torch.Generator())
    assert float(first.detach()) > 0.1 and float(seen["same"]) < 0.9
    before = {name: p.clone() for name, p in old.talker.named_parameters()}
    optimizer = torch.optim.AdamW(stage.talker.parameters(), lr=4e-3, weight_decay=0.0)
    for _ in range(25):
        optimizer.zero_grad()
        loss, seen = stage.loss(batch, generator=torch.Generator())
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2 * float(first.detach())
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in old.talker.named_parameters())  # fmt: skip
    assert set(stage.parts()) == {"talker"}
    assert [n for n, _ in stage.modules.named_parameters()] == list(before)
