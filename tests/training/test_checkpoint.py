"""Checkpoints are whole or not there: a killed run goes on bit by bit, a full disk leaves the last good one."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import Curve, Drawn

from thinktalk.errors import ConfigError, ThinktalkError, WeightsError
from thinktalk.training.checkpoint import Checkpoints, pack, unpack
from thinktalk.training.loop import TrainConfig, Trainer

POINTS = ["in_backward", "while_writing", "before_the_name", "while_removing", "in_the_journal"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of the runs of crash_worker.py."""
    worker = Path(__file__).with_name("crash_worker.py")
    out = tmp_path_factory.mktemp("crashes")
    done = subprocess.run(
        [sys.executable, str(worker), str(out)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def compare_runs(killed: dict[str, Any], whole: dict[str, Any]) -> None:
    """AssertionError unless the two runs are one: every loss, every tensor of the end."""
    assert killed["losses"] == whole["losses"]
    assert killed["digest"] == whole["digest"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_run_goes_on_bit_by_bit(runs: dict[str, Any], point: str):
    killed, whole = runs[point], runs["nowhere"]
    assert whole["signal"] == 0 and len(whole["losses"]) == 24
    assert killed["signal"] == 9
    assert 0 < killed["from"] < 24, "it started anew: nothing was shown"
    compare_runs(killed, whole)
    assert killed["left"] == ["step-00000020", "step-00000024"]  # no halves, the last two


def test_kill_while_writing_goes_back_to_the_last_whole_one(runs: dict[str, Any]):
    assert runs["while_writing"]["from"] == 5 and runs["before_the_name"]["from"] == 5


def test_planted_fault_is_found(runs: dict[str, Any]):
    assert runs["forgetful"]["signal"] == 9 and runs["forgetful"]["from"] > 0
    with pytest.raises(AssertionError):
        compare_runs(runs["forgetful"], runs["nowhere"])


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 512 bytes: writes fail as on a full disk, in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_the_last_good_one(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": torch.full((1000,), 1.0)}, wait=True)
    with full_disk():
        checkpoints.save(2, {"x": torch.full((1000,), 2.0)}, wait=True)
    assert checkpoints.steps() == [1] and not list(tmp_path.glob("*.partial"))
    assert len(checkpoints.failures) == 1 and checkpoints.failures[0].startswith("step 2: OSError")
    x = torch.zeros(1000)
    checkpoints.load(1, {"x": x})
    assert (x == 1).all()
    checkpoints.save(3, {"x": torch.full((1000,), 3.0)}, wait=True)
    assert checkpoints.steps() == [1, 3]


def test_a_run_survives_a_full_disk_but_not_at_its_end(tmp_path: Path):
    config = TrainConfig(out=str(tmp_path), steps=6, save_every=2, save_seconds=0, device="cpu")
    trainer = Trainer(Curve(), Drawn(Curve.draw, count=6), config)
    disk = contextlib.ExitStack()

    def watch(step: int, numbers: Any) -> None:
        if step == 3:  # after the first checkpoint
            trainer.checkpoints.settle(wait=True)
            disk.enter_context(full_disk())
        if step == 5:
            trainer.checkpoints.settle(wait=True)
            disk.close()

    trainer.watch = watch
    trainer._report = lambda numbers: {"loss": numbers["loss"]}  # a journal under 512 bytes
    trainer.run()
    assert trainer.checkpoints.steps() == [2, 6] and len(trainer.checkpoints.failures) == 1

    class Ends(Trainer):
        def _save_end(self) -> None:
            with full_disk():
                super()._save_end()

    config = TrainConfig(out=str(tmp_path), steps=8, save_seconds=0, device="cpu")
    with pytest.raises(ThinktalkError, match="expected room on the disk"):
        Ends(Curve(), Drawn(Curve.draw, count=6), config).run()
    assert Trainer(Curve(), Drawn(Curve.draw, count=6), config).checkpoints.steps() == [2, 6]


def test_what_is_saved_is_what_was_there(tmp_path: Path):
    """Training goes on while a checkpoint is written: tensors may change at once."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    x = torch.arange(200_000.0)
    for step in (1, 2, 3):
        checkpoints.save(step, {"x": x, "at": pack({"step": step})})
        x += 1000
    checkpoints.settle(wait=True)
    assert checkpoints.steps() == [3]
    y = torch.zeros_like(x)
    checkpoints.load(3, {"x": y})
    assert torch.equal(y, torch.arange(200_000.0) + 2000)
    packed = torch.zeros(checkpoints.sizes(3)["at"], dtype=torch.uint8)
    checkpoints.load(3, {"at": packed})
    assert unpack(packed) == {"step": 3}


def test_checkpoints_of_others_are_refused(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": torch.zeros(3)}, wait=True)
    with pytest.raises(WeightsError, match=r"lacks y, has other shapes for x"):
        checkpoints.load(1, {"x": torch.zeros(4), "y": torch.zeros(1)})
    (checkpoints.path(1) / ".metadata").write_bytes(b"not a pickle")
    with pytest.raises(WeightsError, match="expected a checkpoint"):
        checkpoints.load(1, {"x": torch.zeros(3)})


def test_damaged_shard_is_refused(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": torch.zeros(1000)}, wait=True)
    (shard,) = checkpoints.path(1).glob("*.distcp")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(WeightsError, match="expected a whole checkpoint"):
        checkpoints.load(1, {"x": torch.zeros(1000)})


def test_nothing_packed_is_executed():
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    with pytest.raises(Exception, match="Weights only load failed"):
        unpack(pack({"x": Evil()}))


def test_a_run_of_another_seed_or_world_is_refused(tmp_path: Path):
    config = TrainConfig(out=str(tmp_path), steps=1, device="cpu")
    Trainer(Curve(), Drawn(Curve.draw, count=6), config).run()
    other = TrainConfig(out=str(tmp_path), steps=2, seed=1, device="cpu")
    with pytest.raises(ConfigError, match="has seed 0"):
        Trainer(Curve(), Drawn(Curve.draw, count=6), other).run()
