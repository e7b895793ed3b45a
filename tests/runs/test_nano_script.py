"""runs/nano.sh: what it refuses, and (slow) a rehearsal of everything at tiny size that ends in a packed model that answers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from thinktalk.cli.main import main
from thinktalk.weights.update import STAGES

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "runs" / "nano.sh"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hours", "2"], "--hours is no option"),
        (["--minutes"], "--minutes wants a value"),
        (["--minutes", "soon"], "expected a number"),
    ],
)
def test_what_it_refuses_is_one_line(words: list[str], said: str, tmp_path: Path):
    done = subprocess.run([SCRIPT, "--out", tmp_path / "out", *words], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_rehearsal_ends_in_a_packed_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Every world, every stage, packing; then the same command again, which has nothing left to do."""
    out = tmp_path / "nano"
    command = [SCRIPT, "--size", "tiny", "--minutes", "0.05", "--device", "cpu", "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 13 and all("nan" not in row for row in rows), done.stdout
    assert {p.stem for p in (out / "model").glob("*.safetensors")} == set(STAGES)
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.stdout == done.stdout and "(0.05 minutes;" not in again.stderr
    words = ["chat", "--model", str(out / "model"), "--audio", str(ROOT / "examples" / "question.wav")]  # fmt: skip
    spoken = ["--out", str(tmp_path / "a.wav"), "--max-text-tokens", "8", "--max-codes", "24", "--json"]  # fmt: skip
    assert main([*words, *spoken]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["text_tokens"] > 0 and said["sample_rate"] == 24_000
