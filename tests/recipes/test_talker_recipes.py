"""The Talker's recipes: from shards and a checkpoint to the checkpoint they end with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "data"))
sys.path.append(str(Path(__file__).parents[1] / "training"))
from spoken_house import codes_of, write_dialogues, write_sentences

from thinktalk.data.samples import parse
from thinktalk.errors import ConfigError, InputError
from thinktalk.metrics.pauses import Word
from thinktalk.recipes import k2_dpo
from thinktalk.recipes.recipe import change, find_recipe
from thinktalk.training import mining
from thinktalk.training.judges import Heard
from thinktalk.training.loop import Trainer
from thinktalk.training.parallel import World
from thinktalk.training.scoring import Said
from thinktalk.weights.hf import load
from thinktalk.weights.voices import load_voices


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("spoken")
    return write_sentences(folder), write_dialogues(folder)


def set_up(name: str, start: str, shards: tuple[str, str], out: Path, *settings: str):
    common = [f"start={start}", f"shards={shards[0]}", f"dialogues={shards[1]}", f"out={out}"]
    numbers = ["steps=2", "batch_tokens=500", "optim.lr=1e-2", "device=cpu"]
    return change(find_recipe(name), [*common, *numbers, *settings])


def run(recipe) -> list[dict]:
    """Train, and export as the command does: a fresh stage with what was learned."""
    lines: list[dict] = []
    watch = lambda step, numbers: lines.append(dict(numbers))  # noqa: E731
    trainer = Trainer(recipe.stage(), recipe.data(World()), recipe, watch=watch)
    assert trainer.run() == recipe.steps
    fresh = recipe.stage()
    missing = fresh.modules.load_state_dict(trainer.weights(), strict=False)
    assert not missing.unexpected_keys
    recipe.export(fresh, Path(recipe.out) / "model")
    return lines


def changed(before: str, after: Path) -> set[str]:
    """Stages whose weights are others."""
    old, new = load(before), load(after)
    assert old.stages().keys() == new.stages().keys()
    pairs = {name: zip(module.parameters(), new.stages()[name].parameters(), strict=True) for name, module in old.stages().items()}  # fmt: skip
    return {name for name, each in pairs.items() if any(not torch.equal(a, b) for a, b in each)}


def say_it(model, make, tasks, *, times, options):
    """In place of a random Talker, which never stops: codes drawn from the seed."""
    return [[Said(codes_of(options.seed + 7 * n + t, 6), True) for t in range(times)] for n in range(len(tasks))]  # fmt: skip


def judge(codes):
    """Codes sound like one beginning or the other."""
    words = ("good morning", "it is")
    return [Heard([Word(w, 0.0, 0.2) for w in words[row[0] % 2].split()] if row else []) for row in codes]  # fmt: skip


def test_k1_ends_with_another_talker(tiny_checkpoint, shards, tmp_path):
    recipe = set_up("k1_icl", tiny_checkpoint, shards, tmp_path, f"states={tmp_path / 'states'}")
    lines = run(recipe)
    assert all(0 < line["loss"] < 20 and {"right", "codes"} <= line.keys() for line in lines)
    assert changed(tiny_checkpoint, tmp_path / "model") == {"talker"}
    assert list((tmp_path / "states").rglob("*.safetensors"))


def test_k1_learns_by_every_help_there_is(tiny_checkpoint, shards, tmp_path):
    helps = ["guide=0.2", "phones=0.5", "misheard=0.2", "context.bare=0.5", "context.spliced=0.5"]
    recipe = set_up("k1_icl", tiny_checkpoint, shards, tmp_path, *helps)
    assert all(0 < line["loss"] < 20 for line in run(recipe))
    for wrong in ("misheard=1", "context.spliced=1.5"):
        with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
            set_up("k1_icl", tiny_checkpoint, shards, tmp_path, wrong)


def test_k1_takes_what_has_codes_by_the_same_tokenizer(tiny_checkpoint, shards, tmp_path):
    recipe = set_up("k1_icl", tiny_checkpoint, shards, tmp_path)
    assert [len(source) for source in recipe.sources()] == [8, 4]
    kit = recipe.kit()
    assert kit.codes_by is None and set(kit.voices) == {"Ethan", "Chelsie"}
    # those with a weight are drawn by it, the others together
    more = set_up("k1_icl", tiny_checkpoint, (f"{shards[0]},{shards[1]}@0.25", f"{shards[1]}@2"), tmp_path, "dialogue_weight=0.5")  # fmt: skip
    assert [(len(source), source.weight) for source in more.sources()] == [(4, 0.25), (8, 1.0), (4, 1.0)]  # fmt: skip
    told = parse(recipe.sources()[0].entries[0])
    told = replace(told, record={**told.record, "codes_by": "abc"})
    kit.check(told)
    with pytest.raises(InputError, match="codes of the tokenizer abc, expected def"):
        replace(kit, codes_by="def").check(told)


def test_k2_finds_its_pairs_and_learns_them(tiny_checkpoint, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(mining, "say", say_it)
    monkeypatch.setattr(k2_dpo, "judge_of", lambda name, **options: judge)
    small = ["mining.worst_chosen=9", "mining.gap=0.01", "mining.samples=3", "batch_tokens=250"]
    recipe = set_up("k2_dpo", tiny_checkpoint, shards, tmp_path, *small)
    lines = run(recipe)
    assert all({"accuracy", "kl", "margin"} <= line.keys() for line in lines)
    assert changed(tiny_checkpoint, tmp_path / "model") == {"talker"}
    assert sorted(p.name for p in (tmp_path / "pairs").iterdir()) == ["dialogues", "sentences"]
    monkeypatch.setattr(mining, "say", lambda *a, **k: pytest.fail("the pairs are there"))
    assert recipe.find(World()).count(".tar") == 2
    nothing = set_up("k2_dpo", tiny_checkpoint, shards, tmp_path / "b", "mining.worst_chosen=-1")
    monkeypatch.setattr(mining, "say", say_it)
    with pytest.raises(InputError, match=r"12 tasks gave no pair .*train k1 longer"):
        nothing.data(World())


def test_k3_gives_the_checkpoint_a_new_voice(tiny_checkpoint, shards, tmp_path):
    recipe = set_up("k3_speaker", tiny_checkpoint, shards, tmp_path, 'voices=["stranger"]')
    recipe = change(recipe, ["batch_tokens=150"])
    run(recipe)
    assert changed(tiny_checkpoint, tmp_path / "model") == {"talker", "thinker"}
    voices = load_voices(tmp_path / "model")
    assert set(voices) == {"Ethan", "Chelsie", "stranger", "default"}
    assert voices["stranger"].ref_mel.shape == (1, 50, 80)  # half a second at 100 frames a second
    token = voices["stranger"].bos_token
    assert token == 928  # between Ethan's and Chelsie's
    old, new = load(tiny_checkpoint).thinker.embed.weight, load(tmp_path / "model").thinker.embed.weight  # fmt: skip
    assert (old != new).any(1).nonzero().flatten().tolist() == [token]
    batch = next(iter(recipe.data(World())))
    assert {line.voice for line in batch} == {token}


def test_k3_without_names_tunes_the_voices_there_are(tiny_checkpoint, shards, tmp_path):
    recipe = set_up("k3_speaker", tiny_checkpoint, shards, tmp_path, "tokens_learn=false")
    assert recipe.names() == ["Chelsie", "Ethan"]
    assert set(recipe.stage().parts()) == {"talker"}
    voices = {line.voice for _, batch in zip(range(3), recipe.data(World()), strict=False) for line in batch}  # fmt: skip
    assert voices <= set(recipe.kit().voices.values())
    lost = change(recipe, ['voices=["nobody"]'])
    with pytest.raises(InputError, match="no sample can be used"):
        lost.data(World())


def test_k0_speaks_with_the_old_system_first(tiny_checkpoint, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(mining, "say", say_it)
    recipe = set_up("k0_realign", tiny_checkpoint, shards, tmp_path, f"old={tiny_checkpoint}")
    lines = run(recipe)
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-4)  # it is the old system still
    assert (tmp_path / "spoken" / "0").is_dir() and (tmp_path / "spoken" / "1").is_dir()
    with pytest.raises(ConfigError, match="old: no checkpoint"):
        change(recipe, ["old="]).stage()
