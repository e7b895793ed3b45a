"""Shards to weights: a run that stops in the middle of a shard and starts again ends where an unbroken one ends."""

from __future__ import annotations

import functools
import json

import pytest
import torch
from sample_house import RATE
from torch import nn

from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Mixture, Source
from thinktalk.data.plan import Buckets, Plan
from thinktalk.data.speech import Augmentation, Symbols, spoken
from thinktalk.training.config import TrainConfig
from thinktalk.training.loop import Trainer
from thinktalk.training.optim import OptimConfig
from thinktalk.training.stage import Stage


class Loudness(Stage):
    """A line through the first samples of a sound: how loud is it?"""

    def __init__(self):
        torch.manual_seed(0)
        self.modules = nn.Linear(64, 1)

    def loss(self, batch, *, generator, **turn):
        heard = torch.stack([x.pcm[:64] for x in batch])
        wanted = torch.stack([x.pcm.std() for x in batch])
        return (self.modules(heard)[:, 0] - wanted).square().mean(), {}


def run(speech, out, steps: int, *, workers: int = 0, forget: bool = False) -> list[float]:
    """Losses of all steps so far."""
    make = functools.partial(spoken, sample_rate=RATE, symbols=Symbols(("a", "b", "c")), augmentation=Augmentation())  # fmt: skip
    loader = Loader(Plan(Mixture([Source(speech)], seed=2), Buckets(2.5)), make, list, workers=workers)  # fmt: skip
    if forget:
        loader.load_state_dict = lambda state: None
    stage = Loudness()
    config = TrainConfig(out=str(out), steps=steps, device="cpu", save_seconds=0, explosion=0, optim=OptimConfig(lr=1e-2))  # fmt: skip
    Trainer(stage, loader, config).run()
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]


def compare(one: list[float], two: list[float]) -> None:
    assert len(one) == len(two) and one == two  # bit by bit: the same order of the same sums


def test_a_broken_run_is_an_unbroken_one(speech, tmp_path, monkeypatch):
    # the schedule would end at the shorter run's end
    monkeypatch.setattr("thinktalk.training.loop.rate", lambda *a, **k: 1.0)
    whole = run(speech, tmp_path / "whole", 12)
    run(speech, tmp_path / "broken", 5, workers=2)
    compare(run(speech, tmp_path / "broken", 12, workers=1), whole)
    run(speech, tmp_path / "forgets", 5)
    with pytest.raises(AssertionError):
        compare(run(speech, tmp_path / "forgets", 12, forget=True), whole)
