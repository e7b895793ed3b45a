"""thinktalk train: runs a recipe, goes on with it, says what is wrong in one line."""

from __future__ import annotations

import json
import os
import signal
import sys
import types
from pathlib import Path

import pytest
import torch

from thinktalk.cli import train
from thinktalk.cli.main import main
from thinktalk.training import journal
from thinktalk.training.journal import read_journal
from thinktalk.training.shown import Picture, Sound

FAST = ["--set", "rows=8", "--set", "device=cpu", "--set", "save_every=4", "--set", "save_seconds=0"]  # fmt: skip


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]):
    assert main(["train"]) == 0
    assert "sums" in capsys.readouterr().out.split()
    assert main(["train", "--json"]) == 0
    assert "sums" in json.loads(capsys.readouterr().out)["recipes"]


def test_a_run_and_its_continuation(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["train", "sums", "--out", str(tmp_path), *FAST]
    assert main([*command, "--set", "steps=6", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["step"] == 6 and result["recipe"] == "sums" and result["loss"] > 0
    assert "step 1  loss" in printed.err
    assert main([*command, "--set", "steps=9"]) == 0
    assert "| sums | 9 |" in capsys.readouterr().out
    assert [line["step"] for line in read_journal(tmp_path / "metrics.jsonl")] == list(range(1, 10))
    assert (tmp_path / "loss.png").exists()


def test_signal_ends_a_run_with_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def lines(steps: int):
        return lambda step, line: os.kill(os.getpid(), signal.SIGTERM) if step == 2 else None

    monkeypatch.setattr(train, "_Lines", lines)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["train", "sums", "--out", str(tmp_path), *FAST, "--set", "steps=500"]) == 0
    assert signal.getsignal(signal.SIGTERM) == before
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert kept.name in ("step-00000002", "step-00000003")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["sumz"], "recipe 'sumz' is unknown"),
        (["sums", "--set", "stepz=1"], "no field 'stepz'"),
        (["sums", "--set", "device=abacus"], "device abacus"),
    ],
)
def test_mistakes_are_one_line(words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):  # fmt: skip
    assert main(["train", *words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_bar_on_a_terminal(capsys: pytest.CaptureFixture[str]):
    with train._Bar(10) as watch:
        watch(3, {"loss": 1.25, "lr": 0.1, "none": None})
        assert "loss 1.25" in train._words({"loss": 1.25, "lr": 0.1, "none": None})
    assert "loss 1.25" in capsys.readouterr().err


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is written, with a stand-in for the writer; without the package, one line says what to install."""
    written: list[tuple] = []

    class Writer:
        def __init__(self, directory: str, purge_step: int):
            written.append(("open", Path(directory).name, purge_step))

        def __getattr__(self, name: str):
            return lambda *args, **kwargs: written.append((name, *args[:1]))

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    book = journal.Journal(tmp_path, after=3, tensorboard=True)
    book.write(4, {"loss": 1.0, "note": "words"})
    book.show(4, {"said": Sound(torch.zeros(9), 24000), "seen": Picture(torch.ones(3, 2, 2))})
    book.close()
    assert (tmp_path / "shown" / "said-00000004.wav").exists()
    assert written == [("open", "tensorboard", 4), ("add_scalar", "loss"), ("add_audio", "said"), ("add_image", "seen"), ("close",)]  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert (
        main(["train", "sums", "--out", str(tmp_path / "b"), *FAST, "--set", "tensorboard=true"])
        == 2
    )
