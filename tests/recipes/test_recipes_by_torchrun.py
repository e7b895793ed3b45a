"""Four processes of torchrun (slow): the command of a user, from shards to the checkpoint that the leading rank writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from thinktalk.cli.main import main
from thinktalk.training.journal import read_journal
from thinktalk.weights import hf

TOLERANCE = 1e-6  # of losses near 3: float32 sums in another order


def torchrun(ranks: int, *words: str) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]  # fmt: skip
    done = subprocess.run(
        [*command, "thinktalk.cli.main", "train", *words], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_four_ranks_learn_what_one_does(tmp_path: Path):
    words = ["sums", "--set", "steps=5", "--set", "rows=8", "--set", "device=cpu"]
    torchrun(4, *words, "--out", str(tmp_path / "four"))
    assert main(["train", *words, "--set", "accumulate=4", "--out", str(tmp_path / "one")]) == 0
    four, one = (read_journal(tmp_path / name / "metrics.jsonl") for name in ("four", "one"))
    assert [line["loss"] for line in four] == pytest.approx([line["loss"] for line in one], rel=TOLERANCE)  # fmt: skip
    # planted: three batches a step instead of four
    assert main(["train", *words, "--set", "accumulate=3", "--out", str(tmp_path / "less")]) == 0
    less = read_journal(tmp_path / "less" / "metrics.jsonl")
    assert [line["loss"] for line in less] != pytest.approx([line["loss"] for line in one], rel=TOLERANCE)  # fmt: skip


@pytest.mark.slow
def test_four_ranks_write_one_checkpoint(tiny_checkpoint: str, tmp_path: Path):
    text = str(tmp_path / "text")
    assert main(["data", "make", "--world", "text", "--count", "80", "--out", text]) == 0
    settings = [f"start={tiny_checkpoint}", f"shards={text}/train-*.tar", "learns=thinker", "tokens=256", "steps=3", "device=cpu"]  # fmt: skip
    words = ["p2_joint", "--out", str(tmp_path / "run"), *(w for s in settings for w in ("--set", s))]  # fmt: skip
    told = json.loads(torchrun(4, *words, "--json"))
    first, made = hf.load(tiny_checkpoint).state_dict(), hf.load(told["model"]).state_dict()
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], made[name])}
    assert changed == {"thinker"}
    assert all(t.isfinite().all() for t in made.values())
