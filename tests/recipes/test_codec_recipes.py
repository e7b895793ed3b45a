"""The codec's recipes from shards on disk: batches are what the stages take, and one step is made of each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "data"))
from sample_house import write_shards

from thinktalk.layers.mel import log_mel
from thinktalk.recipes.recipe import change, find_recipe
from thinktalk.training import speech_batches
from thinktalk.training.loop import Trainer
from thinktalk.training.parallel import World

SMALL = {
    "c1_tokenizer": ["width=32", "num_layers=1", "head_layers=1"],
    "c2_flow": ["size=tiny", "flow.reference_frames=[8,16]", "flow.start_share=0.5"],
    "c3_vocoder": ["size=tiny", "vocoder.crop_frames=8", "vocoder.adversarial=false"],
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("speech")
    write_shards(folder, shards=1, samples=8)
    return str(folder / "*.tar")


def small(name: str, shards: str, out: Path):
    common = [f"shards={shards}", f"out={out}", "steps=2", "batch_seconds=2", "optim.lr=1e-4"]
    return change(find_recipe(name), [*common, *SMALL[name]])


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_runs_from_shards(name, shards, tmp_path):
    recipe = small(name, shards, tmp_path / "run")
    lines = []
    watch = lambda step, numbers: lines.append((step, numbers["loss"]))  # noqa: E731
    trainer = Trainer(recipe.stage(), recipe.data(World()), recipe, watch=watch)
    assert trainer.run() == 2
    assert [step for step, _ in lines] == [1, 2]
    assert all(torch.tensor(loss).isfinite() and loss > 0 for _, loss in lines)


def test_c1_hears_what_the_shards_say(shards, tmp_path):
    recipe = small("c1_tokenizer", shards, tmp_path)
    stage, batch = recipe.stage(), next(iter(recipe.data(World())))
    heads = stage.modules.heads
    assert heads.phones.out_features == 3 + 1 and heads.speakers.num_embeddings == 3 + 1
    for i, mel in enumerate(batch.mels):
        said = batch.labels[i, : batch.label_lengths[i]]
        text = speech_batches.LETTERS.text(said.tolist())
        assert text.startswith("sentence number") and not batch.labels[i, len(said) :].any()
        assert abs(len(batch.phones[i]) - mel.shape[1] / 2) <= 1
        assert {0, 1, 2, 3} >= set(batch.phones[i].tolist()) - {-100}
    assert set(batch.speakers.tolist()) <= {1, 2, 3}


def test_c2_codes_and_mels_are_as_long(shards, tmp_path):
    recipe = small("c2_flow", shards, tmp_path)
    batch = next(iter(recipe.data(World())))
    assert all(mel.shape == (80, 2 * len(codes)) for codes, mel in zip(batch.codes, batch.mels, strict=True))  # fmt: skip
    assert len(batch.codes) > 1


def test_c3_sound_is_at_the_vocoders_rate(shards, tmp_path):
    recipe = small("c3_vocoder", shards, tmp_path)
    batch = next(iter(recipe.data(World())))
    assert all(0.49 * 24_000 < len(wave) < 0.67 * 24_000 for wave in batch.waves)
    assert log_mel(batch.waves[0][None]).isfinite().all()
