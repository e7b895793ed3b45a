"""A run begins with a checkpoint and ends with one in which exactly what was trained has changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from thinktalk.cli.main import main
from thinktalk.errors import ConfigError
from thinktalk.recipes import recipe as recipes
from thinktalk.recipes.recipe import ModelRecipe
from thinktalk.training.loop import Trainer
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World
from thinktalk.training.stage import Stage
from thinktalk.weights import hf


class Louder(Stage):
    """The Talker's head grows; a judge that is not of the model learns too."""

    def __init__(self, talker: nn.Module):
        self.modules = nn.ModuleDict({"talker": talker, "judge": nn.Linear(2, 1)})
        talker.requires_grad_(False)
        talker.head.requires_grad_(True)

    def loss(self, batch: Tensor, *, generator: torch.Generator, **turn: str):
        head = self.modules["talker"].head.weight
        return self.modules["judge"](batch).mean() - head.mean(), {}

    def parts(self) -> dict[str, nn.Module]:
        return {"talker": self.modules["talker"]}


class Pairs:
    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield torch.ones(1, 2)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        """Endless and equal."""


@dataclass(frozen=True, kw_only=True)
class LouderRecipe(ModelRecipe):
    steps: int = 3
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=0.1, ema=0.9))

    def stage(self) -> Louder:
        torch.manual_seed(self.seed)
        return Louder(self.load("talker").talker)

    def data(self, world: World) -> Pairs:
        return Pairs()


@pytest.fixture
def command(tiny_checkpoint, tmp_path, monkeypatch) -> list[str]:
    monkeypatch.setattr(
        recipes, "find_recipe", lambda name: LouderRecipe(out="", start=tiny_checkpoint)
    )
    return ["train", "louder", "--out", str(tmp_path / "run"), "--set", "device=cpu", "--json"]


def changed(a: str | Path, b: str | Path) -> set[str]:
    first, second = hf.load(a).state_dict(), hf.load(b).state_dict()
    return {name for name in first if not torch.equal(first[name], second[name])}


def test_a_run_ends_with_a_checkpoint(command, tiny_checkpoint, tmp_path, capsys):
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == str(tmp_path / "run" / "model") and told["step"] == 3
    assert changed(tiny_checkpoint, told["model"]) == {"talker.head.weight"}
    made = hf.load(told["model"]).talker.head.weight
    trainer = Trainer(
        LouderRecipe(out="", start=tiny_checkpoint).stage(), Pairs(), LouderRecipe(out=str(tmp_path / "run"), device="cpu")
    )  # fmt: skip
    trainer.resume()
    assert torch.equal(made, trainer.weights()["talker.head.weight"])  # the running mean
    assert not torch.equal(made, trainer.weights(ema=False)["talker.head.weight"])
    # the next stage begins where this one ended
    nxt = LouderRecipe(out="", start=told["model"])
    assert torch.equal(nxt.load("talker").talker.head.weight, made)


def test_an_export_that_was_cut_off_is_made_up_for(command, tmp_path, monkeypatch, capsys):
    """The same command writes it without training again."""

    def cut(*words, **more):
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "update_checkpoint", cut)
        with pytest.raises(RuntimeError, match="killed here"):
            main(command)
    assert not (tmp_path / "run" / "model").exists()
    capsys.readouterr()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert main(command) == 0
    assert Path(json.loads(capsys.readouterr().out)["model"]).is_dir()
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == lines


def test_a_run_that_was_stopped_makes_no_model(command, tmp_path, monkeypatch, capsys):
    step = Trainer._step

    def stopping(self, *words):
        self.stop()
        return step(self, *words)

    monkeypatch.setattr(Trainer, "_step", stopping)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["model"] is None
    assert not (tmp_path / "run" / "model").exists()


def test_parts_are_loaded_by_name(tiny_checkpoint):
    recipe = LouderRecipe(out="", start=tiny_checkpoint)
    assert list(recipe.load("audio").stages()) == ["audio"]
    assert list(recipe.load("dit", "talker").stages()) == ["talker", "dit"]
    assert list(recipe.load("thinker").stages()) == ["audio", "vision", "thinker"]
    assert not any(p.requires_grad for p in recipe.load("talker").parameters())
    assert recipe.tokenizer().decode(recipe.tokenizer().encode("Hello")) == "Hello"
    with pytest.raises(ConfigError, match="part 'ears' is unknown; have audio, "):
        recipe.load("ears")
