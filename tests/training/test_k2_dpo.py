"""k2: the stage's loss is plain DPO on plain log-probabilities; the reference stays where it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from talker_house import codes_of, house, lines

from thinktalk.training.k2_dpo import GUARDED, PreferenceStage
from thinktalk.training.losses import Preference
from thinktalk.training.talker_batches import Pair
from thinktalk.training.talker_stage import TalkerStage, lay_out
from thinktalk.weights.hf import load

PLAIN = Preference(beta=0.3)


@pytest.fixture
def model(tiny_checkpoint):
    return load(tiny_checkpoint, parts=("thinker", "talker"), dtype="float32")


@pytest.fixture(scope="module")
def kit(tiny_checkpoint):
    return house(tiny_checkpoint)[1]


def pairs(kit) -> list[Pair]:
    """Two ways of unequal length each; one bad one never stopped."""
    chosen = lines(kit, (9, 12, 5))
    rejected = [replace(x, codes=torch.tensor(codes_of(50 + n, 7 + 3 * n)), complete=n != 1) for n, x in enumerate(chosen)]  # fmt: skip
    return [Pair(*both) for both in zip(chosen, rejected, strict=True)]


def plain_logprob(stage, talker, line):
    """Row by row, softmax over everything, summed."""
    layout = lay_out(talker, stage.teller.embedding, [line], stage.tell([line]), stage.voices([line]))  # fmt: skip
    logits = talker.logits(talker(layout.inputs))[0].log_softmax(-1)
    P, n = line.prompt.length, len(line.codes)
    total = logits[range(P + 1, P + 1 + n), line.codes].sum()
    return total + logits[P + 1 + n, talker.talker_config.codec_eos] if line.complete else total


def plain_dpo(stage, batch, beta):
    """The loss as TRL's sigmoid loss has it."""
    losses = []
    for pair in batch:
        policy = plain_logprob(stage, stage.talker, pair.chosen) - plain_logprob(stage, stage.talker, pair.rejected)  # fmt: skip
        with torch.no_grad():
            reference = plain_logprob(stage, stage.reference, pair.chosen) - plain_logprob(stage, stage.reference, pair.rejected)  # fmt: skip
        losses.append(-F.logsigmoid(beta * (policy - reference)))
    return torch.stack(losses).mean()


def move(stage):
    """The policy a little away from the reference."""
    torch.manual_seed(1)
    for parameter in stage.talker.parameters():
        parameter.data = parameter.data + 0.01 * torch.randn_like(parameter)


def test_the_loss_and_its_gradient_are_plain_dpo(model, kit):
    """Float32 sums over some thirty log-probabilities of size ten each: 1e-4."""
    stage, batch = PreferenceStage(model, preference=PLAIN), pairs(kit)
    at_start, seen = stage.loss(batch, generator=torch.Generator())
    assert float(at_start.detach()) == pytest.approx(
        0.6931, abs=1e-3
    )  # log 2: nothing is preferred
    assert float(seen["kl"]) == pytest.approx(0, abs=1e-6)
    move(stage)
    loss, seen = stage.loss(batch, generator=torch.Generator())
    plain = plain_dpo(stage, batch, PLAIN.beta)
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-4)
    assert abs(float(loss.detach()) - 0.6931) > 0.01 and float(seen["kl"]) > 0
    got = torch.autograd.grad(loss, stage.talker.head.weight)[0]
    wanted = torch.autograd.grad(plain, stage.talker.head.weight)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-6)
    # planted faults: the wrong way round, and an end that did not happen
    turned = [Pair(p.rejected, p.chosen) for p in batch]
    assert abs(float(stage.loss(turned, generator=torch.Generator())[0].detach() - loss.detach())) > 0.01  # fmt: skip
    ended = [Pair(p.chosen, replace(p.rejected, complete=True)) for p in batch]
    assert abs(float(stage.loss(ended, generator=torch.Generator())[0].detach() - loss.detach())) > 1e-4  # fmt: skip


def test_the_chosen_ones_come_to_be_preferred(model, kit):
    """One batch, with the guards: every pair the right way round, the chosen likelier than before, the reference untouched."""
    stage, batch = PreferenceStage(model, preference=GUARDED), pairs(kit)
    before = {name: p.clone() for name, p in stage.reference.named_parameters()}
    first = stage.loss(batch, generator=torch.Generator())[1]
    optimizer = torch.optim.AdamW(stage.talker.parameters(), lr=3e-4)
    for _ in range(15):
        optimizer.zero_grad()
        loss, seen = stage.loss(batch, generator=torch.Generator())
        loss.backward()
        optimizer.step()
    assert float(seen["accuracy"]) == 1 and float(seen["margin"]) > 0
    assert float(seen["chosen"]) > float(first["chosen"])
    for name, parameter in stage.reference.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None
    assert not any("reference" in name for name, _ in stage.modules.named_parameters())
    assert set(stage.parts()) == {"talker"} and stage.weight(batch) == 3.0


def test_length_alone_is_not_preferred(model, kit):
    """Two ways of one code each repeated: per code they are alike, whole sums are not."""
    line = lines(kit, (4,))[0]
    short, long = (replace(line, codes=torch.tensor(codes_of(3, 4) * n), complete=False) for n in (1, 3))  # fmt: skip
    gaps = []
    for per_token in (True, False):
        stage = PreferenceStage(model, preference=replace(PLAIN, per_token=per_token))
        move(stage)
        stage.talker.head.weight.data[:] = stage.reference.head.weight * 0.5  # surer of nothing
        seen = stage.loss([Pair(short, long)], generator=torch.Generator())[1]
        gaps.append(abs(float(seen["margin"])))
    assert gaps[0] < 0.2 * gaps[1]


def test_a_stage_is_made_twice_with_the_same_names(model):
    """As the end of a run does; k1's and k2's are the Talker's own names."""
    names = [n for n, _ in PreferenceStage(model).modules.named_parameters()]
    assert names == [n for n, _ in TalkerStage(model).modules.named_parameters()]
    assert names == [n for n, _ in model.talker.named_parameters()]
