"""k3: voices by their tokens; the rows of those tokens learn, and no other."""

from __future__ import annotations

import pytest
import torch
from talker_house import house, lines

from thinktalk.errors import ConfigError
from thinktalk.training.k3_speaker import SpeakerStage
from thinktalk.training.talker_stage import TalkerStage
from thinktalk.weights.hf import load


@pytest.fixture
def model(tiny_checkpoint):
    return load(tiny_checkpoint, parts=("thinker", "talker"), dtype="float32")


@pytest.fixture(scope="module")
def kit(tiny_checkpoint):
    return house(tiny_checkpoint)[1]


def test_rows_begin_as_the_thinker_has_them(model, kit):
    """The same loss to the bit; only then they go their own way."""
    batch, tokens = lines(kit), sorted(kit.voices.values())
    plain = TalkerStage(model).loss(batch, generator=torch.Generator())[0]
    stage = SpeakerStage(model, tokens)
    assert float(stage.loss(batch, generator=torch.Generator())[0].detach()) == float(plain.detach())  # fmt: skip
    stage.rows.weight.data[0] += 1
    assert float(stage.loss(batch, generator=torch.Generator())[0].detach()) != float(plain.detach())  # fmt: skip


def test_only_the_rows_of_who_speaks_learn(model, kit):
    """Ethan and nobody speak in the first and third line: Chelsie's row has no gradient from them."""
    batch, tokens = [lines(kit)[0], lines(kit)[2]], [kit.voices["Ethan"], kit.voices["Chelsie"]]
    stage = SpeakerStage(model, tokens)
    stage.loss(batch, generator=torch.Generator())[0].backward()
    grad = stage.rows.weight.grad
    assert grad[0].abs().sum() > 0 and grad[1].abs().sum() == 0
    assert model.thinker.embed.weight.grad is None
    assert all(p.grad is not None for p in stage.talker.parameters())
    names = [name for name, _ in stage.modules.named_parameters()]
    assert "rows.weight" in names and "talker.head.weight" in names
    assert names == [n for n, _ in SpeakerStage(model, tokens).modules.named_parameters()]


def test_what_is_shipped_has_the_rows_in_their_places(model, kit):
    tokens = sorted(kit.voices.values())
    stage = SpeakerStage(model, tokens)
    before = model.thinker.embed.weight.clone()
    stage.rows.weight.data += 1
    parts = stage.parts()
    assert set(parts) == {"talker", "thinker"} and parts["thinker"] is model.thinker
    after = model.thinker.embed.weight
    changed = (after != before).any(1).nonzero().flatten().tolist()
    assert changed == tokens and torch.equal(after[tokens], stage.rows.weight)
    # and the plain Talker with that Thinker says what this stage learned
    loss = stage.loss(lines(kit), generator=torch.Generator())[0]
    assert float(TalkerStage(model).loss(lines(kit), generator=torch.Generator())[0].detach()) == float(loss.detach())  # fmt: skip


def test_without_rows_it_is_the_talker_alone(model):
    stage = SpeakerStage(model)
    assert set(stage.parts()) == {"talker"} and stage.modules is stage.talker
    with pytest.raises(ConfigError, match="voice token 1024 is none of the Thinker's 1024"):
        SpeakerStage(model, [1024])
