"""Two ranks with sharded parameters are one rank with all of them, and take over from each other."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import Dialogues, Drawn, Sentences

from thinktalk.errors import ConfigError
from thinktalk.training.loop import TrainConfig, Trainer
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import compile_blocks, join, recompute_blocks

TOLERANCE = 1e-6  # of losses near 7: float32 sums in another order, six steps on


def ranks(count: int, out: Path, steps: int, accumulate: int, *words: str) -> dict[str, Any]:
    """Run rank_worker.py as `count` ranks, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    worker = Path(__file__).with_name("rank_worker.py")
    started = [
        subprocess.Popen(
            [sys.executable, str(worker), str(out), str(steps), str(accumulate), *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={
                **os.environ, "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(count)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=100) for process in started]
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors
    return json.loads(outputs[0][0])


def compare(one: dict[str, Any], other: dict[str, Any]) -> None:
    """AssertionError unless losses, metrics, weights, optimisers and running means agree."""
    for a, b in zip(one["lines"], other["lines"], strict=True):
        for name in ("loss", "norm", "lr"):
            assert a[name] == pytest.approx(b[name], rel=TOLERANCE), f"{name} of step {a['step']}"
    assert one["whole"].keys() >= {k for k in other["whole"] if not k.startswith("rank/")}
    for name, values in other["whole"].items():
        # 2e-6: six steps of 3e-3 whose gradients differ by rounding
        assert values == pytest.approx(one["whole"][name], rel=1e-5, abs=2e-6), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    """One rank, four batches a step, six steps."""
    return run_here(folder / "alone", 6, 4)


@pytest.fixture(scope="module")
def both(folder: Path) -> dict[str, Any]:
    """The same by two ranks; their checkpoints are in `folder`/both."""
    return ranks(2, folder / "both", 6, 2, "recompute", "show")


def run_here(out: Path, steps: int, accumulate: int, *words: str) -> dict[str, Any]:
    from rank_worker import run

    return run(str(out), steps, accumulate, *words)


def test_two_ranks_are_one(folder: Path, alone: dict[str, Any], both: dict[str, Any]):
    assert both["sharded"] > 30 and alone["sharded"] == 0
    compare(alone, both)
    assert len(list((folder / "both" / "shown").iterdir())) == 3
    # what was trained is handed to the leading rank alone, and nobody holds two tensors whole on the way
    (count, none), (left, most) = alone["held"][0], both["held"][1]
    assert both["held"][0] == [count, 1] and count > 30 and none == 0
    assert (left, most) == (0, 1)


@pytest.mark.slow  # four processes of torch on two cores
def test_four_ranks_are_one(folder: Path, alone: dict[str, Any]):
    compare(alone, ranks(4, folder / "four", 6, 1))


@pytest.mark.usefixtures("both")
def test_one_rank_goes_on_for_two(folder: Path, alone: dict[str, Any]):
    """A checkpoint of two ranks, in the middle of an epoch, opened by one: resharded, the data dealt out anew."""
    shutil.copytree(folder / "both", folder / "taken")
    shutil.rmtree(folder / "taken" / "checkpoints" / "step-00000006")
    taken = run_here(folder / "taken", 6, 4)
    compare(alone, taken)
    shutil.rmtree(folder / "taken" / "checkpoints" / "step-00000006")
    half = run_here(folder / "taken", 6, 2)  # planted: half of the batches are left out
    with pytest.raises(AssertionError):
        compare(alone, half)


@pytest.mark.usefixtures("both")
def test_world_that_data_cannot_follow(folder: Path):
    class Fixed:  # no reshard
        def __iter__(self):
            return iter(())

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            raise AssertionError("must not be loaded")

    optim = OptimConfig(ema=0.5)
    config = TrainConfig(out=str(folder / "both"), steps=9, device="cpu", optim=optim)
    with pytest.raises(ConfigError, match="saved by 2 ranks, this run has 1"):
        Trainer(Sentences(), Fixed(), config).resume()


def one_batch() -> tuple[torch.Tensor, torch.Tensor]:
    return next(iter(Drawn(Dialogues.draw, count=1)))


def gradients(stage: Sentences) -> list[torch.Tensor]:
    loss, _ = stage.loss(one_batch(), generator=torch.Generator())
    return [loss.detach(), *torch.autograd.grad(loss, list(stage.modules.parameters()))]


@pytest.mark.filterwarnings("ignore")  # dynamo warns of what it meets while tracing
@pytest.mark.parametrize("change", ["recompute", "compile"])
def test_recomputed_and_compiled_blocks_say_the_same(change: str):
    plain, changed = Sentences(), Sentences()
    if change == "recompute":
        recompute_blocks(changed.blocks())
    else:
        compile_blocks(changed.blocks(), "eager")
    torch.testing.assert_close(gradients(changed), gradients(plain), rtol=1e-5, atol=1e-6)
    assert list(changed.modules.state_dict()) == list(plain.modules.state_dict())


def test_recomputing_keeps_less():
    def kept(stage: Sentences) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):  # fmt: skip
            stage.loss(one_batch(), generator=torch.Generator())
        return sum(sizes)

    plain, changed = Sentences(), Sentences()
    recompute_blocks(changed.blocks())
    assert kept(changed) < kept(plain) / 2


def test_bf16_keeps_float32_weights(folder: Path, alone: dict[str, Any]):
    half = run_here(folder / "half", 2, 4, "bf16")
    # the schedule of two steps differs from that of six: only the first loss can be compared
    assert half["lines"][0]["loss"] == pytest.approx(alone["lines"][0]["loss"], rel=1e-2)
    assert half["lines"][0]["loss"] != alone["lines"][0]["loss"]


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert join("auto").device.type == "cpu"
    with pytest.raises(ConfigError, match="no GPU"):
        join("cuda")
    with pytest.raises(ConfigError, match="no backend"):
        compile_blocks([], "inductr")
