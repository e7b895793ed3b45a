"""Run by test_checkpoint.py: forks runs that kill themselves (SIGKILL) at bad moments, then runs that go on from there.

crash_worker.py DIRECTORY prints JSON: {scenario: {"signal": 9, "from": step it went on from, "losses": [...], "digest": ...}}
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from toys import Curve, Drawn

from thinktalk.training.journal import Journal, read_journal
from thinktalk.training.loop import TrainConfig, Trainer
from thinktalk.training.optim import OptimConfig

STEPS, EVERY = 24, 5


def trainer(out: Path) -> Trainer:
    config = TrainConfig(
        out=str(out), steps=STEPS, save_every=EVERY, save_seconds=0, accumulate=2, device="cpu",
        optim=OptimConfig(lr=0.02, ema=0.9),
    )  # fmt: skip
    return Trainer(Curve(), Drawn(Curve.draw, count=14), config)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def counted(function: Callable, fatal: int, before: Callable = lambda *a, **k: None) -> Callable:
    """The function, but call number `fatal` kills the process (after `before`)."""
    calls = iter(range(1, 10**6))

    def call(*args, **kwargs):
        if next(calls) == fatal:
            before(*args, **kwargs)
            die()
        return function(*args, **kwargs)

    return call


def in_backward(t: Trainer) -> None:
    t.guard.allows = counted(t.guard.allows, 13)


def while_writing(t: Trainer) -> None:  # the shards are there, what says where they are is not
    dcp.FileSystemWriter.finish = counted(dcp.FileSystemWriter.finish, 2)


def before_the_name(t: Trainer) -> None:
    rename = Path.rename

    def renamed(path: Path, target: Path) -> Path:
        if Path(target).name == "step-00000010":
            die()
        return rename(path, target)

    Path.rename = renamed


def while_removing(t: Trainer) -> None:
    def one_file(path, **kwargs):
        next(p for p in Path(path).rglob("*") if p.is_file()).unlink()

    shutil.rmtree = counted(shutil.rmtree, 1, one_file)


def in_the_journal(t: Trainer) -> None:
    def half_a_line(journal, step, numbers):
        journal._file.write('{"step": 17, "lo')
        journal._file.flush()

    Journal.write = counted(Journal.write, 17, half_a_line)


def nowhere(t: Trainer) -> None:
    """Not killed at all: what the others must equal."""


def forgetful(t: Trainer) -> None:
    in_backward(t)


SCENARIOS = [nowhere, in_backward, while_writing, before_the_name, while_removing, in_the_journal, forgetful]  # fmt: skip


def child(work: Callable[[], None]) -> int:
    """Run in a process of its own; the signal that ended it, 0 if none."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"a run failed: {status}"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main(directory: Path) -> None:
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # optimisers do; once here, not in every fork
    results = {}
    for scenario in SCENARIOS:
        out = directory / scenario.__name__

        def first(out=out, scenario=scenario) -> None:
            t = trainer(out)
            scenario(t)
            t.run()

        def second(out=out, scenario=scenario) -> None:
            t = trainer(out)
            began = t.checkpoints.latest()
            if scenario is forgetful:  # planted: the place in the data is lost
                t.data.load_state_dict = lambda state: None
            t.run()
            digest = hashlib.sha256()
            for name, tensor in sorted(t.tensors().items()):
                digest.update(name.encode() + tensor.numpy().tobytes())
            found = {"from": began, "digest": digest.hexdigest(), "kept": t.checkpoints.steps()}
            found["losses"] = [(x["step"], x["loss"]) for x in read_journal(out / "metrics.jsonl")]
            found["left"] = sorted(p.name for p in (out / "checkpoints").iterdir())
            (out / "result.json").write_text(json.dumps(found))

        killed = child(first)
        child(second)
        results[scenario.__name__] = {"signal": killed, **json.loads((out / "result.json").read_text())}  # fmt: skip
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
