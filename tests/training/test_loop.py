"""The loop: exact means, bad steps, exactly the parameters a stage unfreezes, clocks, the journal."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from toys import Curve, Dialogues, Drawn, Sentences

from thinktalk.errors import ConfigError
from thinktalk.media.audio import load_audio
from thinktalk.training import loop
from thinktalk.training.guard import DivergedError
from thinktalk.training.journal import Journal, draw_losses, read_journal, summary
from thinktalk.training.loop import TrainConfig, Trainer
from thinktalk.training.optim import OptimConfig, ScheduleConfig
from thinktalk.training.shown import Picture, Sound, save_shown, spectrogram
from thinktalk.training.stage import Stage


def config(out: Path, **changes: Any) -> TrainConfig:
    plain: dict[str, Any] = dict(
        out=str(out), steps=4, device="cpu", save_seconds=0,
        optim=OptimConfig(lr=0.01), schedule=ScheduleConfig(shape="constant", warmup=0),
    )  # fmt: skip
    return TrainConfig(**{**plain, **changes})


class Given:
    """Batches from a list, over and over."""

    def __init__(self, batches: list[Any]):
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to remember."""


class Slope(Stage):
    """loss = weight * batch: the gradient is the batch."""

    def __init__(self) -> None:
        self.modules = nn.ParameterList([nn.Parameter(torch.tensor([1.0]))])

    def loss(self, batch: float, *, generator: torch.Generator, **turn: str):
        return (self.modules[0] * batch).sum(), {}


def test_accumulation_is_the_mean_over_every_answer(tmp_path: Path):
    """Four batches of unequal length at once equal the plain cross-entropy over all their answers."""
    batches = list(itertools.islice(Drawn(Dialogues.draw, count=4), 4))
    stage = Sentences()
    trainer = Trainer(stage, Given(batches), config(tmp_path, accumulate=4, steps=1))
    before = Sentences()
    losses = [before.loss(batch, generator=torch.Generator())[0] * before.weight(batch) for batch in batches]  # fmt: skip
    total = sum(before.weight(batch) for batch in batches)
    mean = sum(losses) / total
    mean.backward()
    expected = torch.optim.AdamW(before.modules.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0)  # fmt: skip
    norm = torch.nn.utils.clip_grad_norm_(before.modules.parameters(), 1.0)
    trainer.run()
    (line,) = read_journal(tmp_path / "metrics.jsonl")
    assert line["loss"] == pytest.approx(float(mean.detach()), rel=1e-6)
    assert line["norm"] == pytest.approx(float(norm), rel=1e-5)  # float32 sums of squares
    assert expected.param_groups[0]["lr"] == line["lr"]
    plain = sum(float(loss.detach()) / before.weight(b) for loss, b in zip(losses, batches, strict=True)) / 4  # fmt: skip
    assert line["loss"] != pytest.approx(plain, rel=1e-4)  # planted: the mean of means


def test_only_what_the_stage_unfreezes_moves(tmp_path: Path):
    stage = Curve()
    before = {n: p.detach().clone() for n, p in stage.modules.named_parameters()}
    trainer = Trainer(stage, Drawn(Curve.draw, count=8), config(tmp_path))
    trainer.run()
    moved = {n for n, p in stage.modules.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n in before if n.startswith("net.")}
    names = set(trainer.checkpoints.sizes(4))
    assert not any("frozen" in name for name in names)
    assert {"model/net.2.weight", "buffer/net.0.running_mean", "optim/main/net.4.bias/exp_avg_sq", "run", "rank/0"} <= names  # fmt: skip


class Duel(Stage):
    """Two players, two optimisers: each pulls its own number, in turn."""

    turns = ("critic", "maker")

    def __init__(self) -> None:
        self.modules = nn.ParameterDict(
            {"critic": nn.Parameter(torch.ones(1)), "maker": nn.Parameter(torch.ones(1))}
        )
        self.seen: list[tuple[str, float]] = []

    def trainable(self, *, turn: str) -> Iterator[nn.Parameter]:
        return iter([self.modules[turn]])

    def loss(self, batch: float, *, generator: torch.Generator, turn: str):
        self.seen.append((turn, float(self.modules["critic"].detach())))
        return (self.modules["critic"] * self.modules["maker"]).sum() * batch, {f"{turn}_loss": 1.0}


def test_turns_step_one_after_the_other(tmp_path: Path):
    stage = Duel()
    Trainer(stage, Given([1.0]), config(tmp_path, steps=1)).run()
    assert [turn for turn, _ in stage.seen] == ["critic", "maker"]
    # Adam's first step is lr, whatever the gradient; the maker already meets the moved critic
    assert stage.seen[1][1] == pytest.approx(0.99)
    assert float(stage.modules["maker"].detach()) == pytest.approx(0.99)
    (line,) = read_journal(tmp_path / "metrics.jsonl")
    assert {"norm_critic", "norm_maker", "critic_loss", "maker_loss"} <= line.keys()
    assert line["norm_maker"] == pytest.approx(0.99)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e6])
def test_bad_steps_are_skipped_and_counted(tmp_path: Path, bad: float):
    stage = Slope()
    seen: list[float] = []
    trainer = Trainer(
        stage, Given([1.0] * 25 + [bad] + [1.0] * 4), config(tmp_path, steps=30),
        watch=lambda step, line: seen.append(float(stage.modules[0].detach())),
    )  # fmt: skip
    trainer.run()
    assert trainer.skipped == 1 and seen[25] == seen[24]
    assert all(a != b for a, b in itertools.pairwise(seen[:25] + seen[26:]))
    lines = read_journal(tmp_path / "metrics.jsonl")
    assert lines[25]["skipped"] == 1 and "skipped" not in lines[24]
    assert (lines[25]["loss"] is None) == (bad != 1e6)


def test_run_that_diverges_stops_and_says_where(tmp_path: Path):
    trainer = Trainer(
        Slope(), Given([1.0] * 6 + [float("nan")] * 50), config(tmp_path, steps=40, save_every=2, patience=3),
    )  # fmt: skip
    with pytest.raises(
        DivergedError, match=r"step 9: 3 steps in a row .* of step 8; lower optim.lr"
    ):
        trainer.run()
    assert (tmp_path / "loss.png").exists()


def test_no_batch_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="no batch"):
        Trainer(Slope(), Given([]), config(tmp_path)).run()


def test_wall_clock_drives_the_schedule_and_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    now = itertools.count(0.0, 1.0)
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(now))
    schedule = ScheduleConfig(shape="linear", warmup=0, floor=0)
    timed = config(tmp_path, steps=1000, seconds=10.0, save_seconds=4.0, keep=9, schedule=schedule)
    trainer = Trainer(Slope(), Given([1.0]), timed)
    assert trainer.run() == 10
    rates = [line["lr"] for line in read_journal(tmp_path / "metrics.jsonl")]
    assert rates == pytest.approx([0.01 * (1 - s / 10) for s in range(1, 11)])
    assert trainer.checkpoints.steps() == [4, 8, 10]
    assert Trainer(Slope(), Given([1.0]), timed).resume()


def test_weights_are_the_running_mean_where_there_is_one(tmp_path: Path):
    """What an evaluation or an export takes: copies, by name; the trained weights are left alone."""
    stage = Slope()
    trainer = Trainer(stage, Given([1.0]), config(tmp_path, optim=OptimConfig(lr=0.01, ema=0.9)))
    trainer.run()
    now = float(stage.modules[0].detach())
    assert float(trainer.weights(ema=False)["0"]) == now
    mean = trainer.weights()["0"]
    assert now < float(mean) < 1  # behind the weights, which sink from 1
    mean.fill_(7)
    assert float(trainer.weights()["0"]) < 1
    plain = Trainer(Slope(), Given([1.0]), config(tmp_path / "b"))
    assert float(plain.weights()["0"]) == 1


def test_stop_ends_with_a_checkpoint_and_the_run_goes_on(tmp_path: Path):
    trainer = Trainer(Slope(), Given([1.0]), config(tmp_path, steps=9))
    trainer.watch = lambda step, line: trainer.stop() if step == 3 else None
    assert trainer.run() in (3, 4) and trainer.checkpoints.latest() == trainer.step
    again = Trainer(Slope(), Given([1.0]), config(tmp_path, steps=9))
    assert again.run() == 9
    assert [line["step"] for line in read_journal(tmp_path / "metrics.jsonl")] == list(range(1, 10))


def test_journal_is_one_curve(tmp_path: Path):
    journal = Journal(tmp_path)
    for step in range(1, 6):
        journal.write(step, {"loss": 1.0 / step, "seconds": step})
    journal._file.write('{"step": 6, "lo')  # torn
    journal.close()
    journal = Journal(tmp_path, after=3)
    journal.write(4, {"loss": float("nan"), "seconds": 9, "skipped": 1})
    journal.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and lines[3]["loss"] is None
    assert summary(tmp_path / "metrics.jsonl", "p1") == "| p1 | 4 | 1.0000 | 0.3333 | 1 | 9 |"
    assert summary(tmp_path / "none.jsonl", "p2") == "| p2 | 0 | - | - | 0 | 0 |"


def test_plot_shows_the_curve(tmp_path: Path):
    journal = Journal(tmp_path)
    for step in range(100):
        journal.write(step, {"loss": 10.0 - step / 10})
    journal.close()
    picture = Image.open(tmp_path / "loss.png")
    blue = [x for x in range(picture.width) for y in range(picture.height) if picture.getpixel((x, y)) == (31, 95, 191)]  # fmt: skip
    assert max(blue) - min(blue) > picture.width * 0.8
    draw_losses(tmp_path / "none.jsonl", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_metrics_are_means_by_weight(tmp_path: Path):
    class Weighed(Slope):
        def weight(self, batch: float) -> float:
            return batch

        def loss(self, batch: float, *, generator: torch.Generator, **turn: str):
            seen: dict[str, Tensor | float] = {"all": batch}
            if batch > 1:
                seen["some"] = torch.tensor(batch)
            return super().loss(batch, generator=generator)[0], seen

    Trainer(Weighed(), Given([1.0, 3.0]), config(tmp_path, steps=1, accumulate=2)).run()
    (line,) = read_journal(tmp_path / "metrics.jsonl")
    assert line["all"] == (1 * 1 + 3 * 3) / 4 and line["some"] == 3 and line["loss"] == 2.5


@pytest.mark.parametrize("wrong", [dict(steps=0), dict(accumulate=0), dict(seconds=-1.0)])
def test_values_that_cannot_be(tmp_path: Path, wrong: dict[str, Any]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        config(tmp_path, **wrong)


def test_what_is_shown(tmp_path: Path):
    """Files of what a stage shows, at their steps and at the end; a run that shows learns the same as one that does not."""
    runs = {}
    for every in (0, 2):
        stage, data = Sentences(), Drawn(Dialogues.draw, count=5)
        Trainer(stage, data, config(tmp_path / str(every), steps=5, show_every=every)).run()
        runs[every] = stage.modules.state_dict()
    assert all(torch.equal(a, runs[0][name]) for name, a in runs[2].items())
    assert not (tmp_path / "0" / "shown").exists()
    found = sorted(p.name for p in (tmp_path / "2" / "shown").iterdir())
    assert found == [f"hidden-{step:08d}.png" for step in (2, 4, 5)]


def test_sounds_and_pictures(tmp_path: Path):
    rising = torch.arange(6.0).reshape(3, 2)
    drawn = spectrogram(rising, -rising[:, :1], scale=1).pixels
    assert drawn.shape == (3, 3 + 2 + 3, 2) and float(drawn.amin()) >= 0
    brightness = drawn.mean(0)
    assert (
        brightness[0, 1] > brightness[1, 1] > brightness[2, 0]
    )  # high bands above, larger is brighter
    assert bool((drawn[:, 5:, 1] == 1).all())  # the shorter one ends in white
    wave = torch.sin(torch.arange(2400) / 8)
    (path, _) = save_shown(tmp_path, 7, {"a": Sound(wave, 24_000), "b": Picture(drawn)})
    assert path.name == "a-00000007.wav"
    assert load_audio(path, sample_rate=24_000) == pytest.approx(wave.numpy(), abs=1e-4)
    with Image.open(tmp_path / "b-00000007.png") as image:
        assert image.size == (2, 8)
