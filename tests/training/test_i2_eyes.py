"""i2: what stands in which token, losses against plain ones, what learns, and that answers need the picture."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageStat

from thinktalk.config import tiny
from thinktalk.data.mixture import Source
from thinktalk.data.synth import pictures
from thinktalk.data.synth.world import make_world
from thinktalk.recipes.recipe import change, find_recipe
from thinktalk.training.i2_eyes import Eyes, EyesStage
from thinktalk.training.loop import Trainer
from thinktalk.training.losses import IGNORE
from thinktalk.training.parallel import World
from thinktalk.training.seen_batches import Labels, Views, cells, elsewhere, things_of
from thinktalk.weights.hf import load

NOISE = torch.Generator()


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    make_world(pictures.ask, folder, counts={"train": 12})
    return str(folder / "train-*.tar")


@pytest.fixture(scope="module")
def recipe(shards, tiny_checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    settings = [f"start={tiny_checkpoint}", f"shards={shards}", f"out={out}", "tokens=500", "steps=2"]  # fmt: skip
    return change(find_recipe("i2_eyes"), [*settings, "device=cpu", "reader_layers=1"])


@pytest.fixture(scope="module")
def batch(recipe):
    return next(iter(recipe.data(World())))


def fresh(vision_from, labels=None) -> EyesStage:
    """The stage with an encoder whose weights let something through."""
    torch.manual_seed(0)
    return EyesStage(Eyes(load(vision_from, parts=("thinker",)).vision, tiny().thinker, labels, reader_layers=1))  # fmt: skip


@pytest.fixture
def stage(tiny_checkpoint, shards) -> EyesStage:
    made = fresh(tiny_checkpoint, Labels.of([Source(shards, measure=lambda record: 1.0)]))
    with torch.no_grad():  # what a reader's layers add begins at zero, and lets no gradient through before the first step
        for parameter in made.modules.reader.layers.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


# ---------------------------------------------------------------------------------------------------------------- cells


def test_a_thing_is_where_its_middle_is():
    """A large box over four tokens, a small one in the corner of a fifth; 3 rows, 4 columns."""
    things = [
        {"name": "cup", "colour": "red", "box": [0.0, 0.0, 0.45, 0.5]},
        {"name": "key", "box": [0.80, 0.70, 0.90, 0.95]},
    ]
    found = cells(things, 3, 4, Labels({"cup": 1, "key": 2}, {"red": 1}))
    names = found.names.view(3, 4).tolist()
    # the cup's middle is at 0.225 across and 0.25 down: the first token; it touches another column and another row
    assert names == [[1, IGNORE, 0, 0], [IGNORE, IGNORE, 0, 0], [0, 0, 0, 2]]
    assert found.colours.view(3, 4).tolist() == [[1] + [IGNORE] * 3, [IGNORE] * 4, [IGNORE] * 4]
    # float32 against the box's decimals
    torch.testing.assert_close(found.places.view(3, 4, 4)[2, 3], torch.tensor([0.4, 0.475, 0.1, 0.25]))  # fmt: skip
    assert found.places.isnan().all(1).sum() == 10


def test_unknown_names_are_not_asked_and_damaged_things_left_out():
    labels = Labels({"cup": 1}, {})
    assert cells([{"name": "dog", "box": [0, 0, 0.5, 0.5]}], 2, 2, labels).names.tolist() == [IGNORE, 0, 0, 0]  # fmt: skip
    bad = [{"name": "cup"}, {"name": "cup", "box": [0.5, 0, 0.1, 1]}, {"box": [0, 0, 1, 1]}, "cup", {"name": "cup", "box": [0, 0, math.nan, 1]}]  # fmt: skip
    assert things_of({"things": bad}) == [] and things_of({"things": None}) == [] == things_of({})


def test_labels_are_numbered_by_how_common_they_are(shards):
    labels = Labels.of([Source(shards, measure=lambda record: 1.0)])
    assert sorted(labels.names.values()) == list(range(1, len(labels.names) + 1))
    assert set(labels.colours) <= set(pictures.COLOURS) and "circle" in labels.names


def test_elsewhere_changes_the_picture_and_not_what_it_shows():
    picture = Image.new("RGB", (112, 84), (214, 39, 40))
    draw = lambda seed: elsewhere(picture, torch.Generator().manual_seed(seed), Views())  # noqa: E731
    assert draw(1).tobytes() == draw(1).tobytes() != draw(2).tobytes()
    for seed in range(8):
        view = draw(seed)
        assert 0.79 < view.width / 112 < 1.26 and abs(view.width / 112 - view.height / 84) < 0.02
        red, green, blue = ImageStat.Stat(view).mean
        assert red > 2 * green and red > 2 * blue
    still = Views(scale=1.0, light=0.0, noise=0.0)
    assert elsewhere(picture, torch.Generator(), still).tobytes() == picture.tobytes()


# --------------------------------------------------------------------------------------------------------------- losses


def test_losses_are_the_plain_ones(stage, batch):
    """Each picture and conversation alone, in plain torch, against the packed batch."""
    modules, packed = stage.modules, batch.packed
    assert all(c is not None for c in batch.cells) and len(batch.cells) > 2
    _, metrics = stage.loss(batch, generator=NOISE)
    with torch.no_grad():
        tokens = [modules.vision.encode([patches], [grid])[0] for patches, grid in packed.images]
        x = modules.norm(torch.cat(tokens))
        names = torch.cat([c.names for c in batch.cells])
        places = torch.cat([c.places for c in batch.cells])
        scores = modules.names(x).log_softmax(-1)
        there = [-scores[i, n] for i, n in enumerate(names.tolist()) if n > 0]
        empty = [-scores[i, 0] for i, n in enumerate(names.tolist()) if n == 0]
        things = (torch.stack(there).mean() + torch.stack(empty).mean()) / 2
        asked = ~places[:, 0].isnan()
        gap = (modules.places(x).sigmoid() - places)[asked].abs().mean()
        total, count = 0.0, 0
        for number in range(1, int(packed.segments.max()) + 1):
            here = packed.segments[0] == number
            ids, labels = packed.token_ids[:, here], packed.labels[0, here]
            embeds = modules.reader.embed(ids)
            embeds[ids == modules.ids.image] = tokens[number - 1]
            told = dataclasses.replace(_embedded(), embeds=embeds, positions=packed.positions[:, :, here])  # fmt: skip
            logits = modules.reader.logits(modules.reader(told))[0, :-1]
            total += float(F.cross_entropy(logits, labels[1:], ignore_index=IGNORE, reduction="sum"))  # fmt: skip
            count += int((labels[1:] != IGNORE).sum())
    # float32: other orders of the same sums over a few hundred terms
    torch.testing.assert_close(metrics["things"], things, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(metrics["places"], gap, atol=1e-6, rtol=1e-5)
    assert float(metrics["answers"]) == pytest.approx(total / count, rel=1e-5)


def _embedded():
    from thinktalk.messages import Embedded

    return Embedded(embeds=torch.empty(1, 0, 1), positions=torch.empty(1, 3, 0))


def test_everything_learns_and_the_encoder_is_kept(stage, batch):
    loss, _ = stage.loss(batch, generator=NOISE)
    loss.backward()
    without = [n for n, p in stage.modules.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert stage.parts() == {"vision": stage.modules.vision}
    assert stage.weight(batch) == float((batch.packed.labels != IGNORE).sum()) > 0


def test_pictures_nobody_told_about_teach_by_answers_alone(stage, batch):
    untold = dataclasses.replace(batch, cells=[None] * len(batch.cells))
    loss, metrics = stage.loss(untold, generator=NOISE)
    assert "things" not in metrics and float(loss.detach()) == pytest.approx(
        float(metrics["answers"])
    )
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in stage.modules.vision.parameters())


def test_a_batch_is_learnt_by_heart_and_only_with_its_pictures(stage, batch):
    optimiser = torch.optim.AdamW(stage.modules.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        loss, _ = stage.loss(batch, generator=NOISE)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.modules.parameters(), 1.0)
        optimiser.step()
    learnt = stage.score([batch])
    assert learnt["answers_right"] == learnt["names_right"] == learnt["colours_right"] == 1.0, learnt  # fmt: skip
    # planted fault: the pictures go blank
    packed = batch.packed
    blank = [(torch.zeros_like(patches), grid) for patches, grid in packed.images]
    blind = dataclasses.replace(batch, packed=dataclasses.replace(packed, images=blank))
    scores = stage.score([blind])
    assert scores["names_right"] < 0.5 and scores["loss"] > 5 * learnt["loss"]


# --------------------------------------------------------------------------------------------------------------- recipe


def test_from_shards_to_a_checkpoint_with_new_eyes(recipe, tiny_checkpoint, tmp_path):
    stage = recipe.stage()
    trainer = Trainer(stage, recipe.data(World()), recipe)
    assert trainer.run() == 2
    again = recipe.stage()
    again.modules.load_state_dict(trainer.weights(), strict=False)
    recipe.export(again, tmp_path / "model")
    old, new = load(tiny_checkpoint), load(tmp_path / "model")
    for name, module in old.stages().items():
        pairs = zip(module.state_dict().values(), new.stages()[name].state_dict().values(), strict=True)  # fmt: skip
        same = [torch.equal(a, b) for a, b in pairs]
        assert not any(same) if name == "vision" else all(same), name
