"""runs/tiny.sh (slow): from nothing through every stage to a checkpoint that answers aloud; again, it has nothing left to do."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile

from thinktalk.cli.main import main
from thinktalk.training.journal import read_journal
from thinktalk.weights import hf
from thinktalk.weights.update import STAGES
from thinktalk.weights.wav2code import load_tokenizer

ROOT = Path(__file__).parents[2]
# a Talker is preferred to itself: ln 2 at first, and twenty steps of small size move it little
HARDLY_FALLS = {"k2_dpo"}
TRAINED = [
    "i1_ears", "i2_eyes", "c1_tokenizer", "c2_flow", "c3_vocoder", "p0_words", "p1_align", "p2_joint", "p3_long", "s1_sft",
    "k1_icl", "k2_dpo", "k3_speaker",
]  # fmt: skip


def run(out: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([ROOT / "runs" / "tiny.sh", out], capture_output=True, text=True, env={**os.environ})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_from_nothing_to_a_checkpoint_that_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]):  # fmt: skip
    out = tmp_path / "tiny"
    done = run(out)
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip() for row in rows] == TRAINED
    for name, steps, before, after, skipped, _ in (map(str.strip, row) for row in rows):
        # a flow from nothing may meet a step or two that the guard passes by (two of a hundred, once)
        assert math.isfinite(float(after)) and int(skipped) <= int(steps) / 20, name
        assert float(after) < float(before) or name in HARDLY_FALLS, name
    model = hf.load(out)
    assert {*model.stages(), "wav2code"} == set(STAGES)
    assert load_tokenizer(out).config == model.config.wav2code
    first, last = hf.load(tmp_path / "tiny.runs" / "init" / "model"), model.state_dict()
    for stage, module in first.stages().items():  # every part has been trained
        assert any(not t.equal(last[f"{stage}.{name}"]) for name, t in module.state_dict().items()), stage  # fmt: skip
    capsys.readouterr()
    sound, wave = str(ROOT / "examples" / "question.wav"), str(tmp_path / "answer.wav")
    words = ["--audio", sound, "--out", wave, "--max-text-tokens", "12", "--max-codes", "60", "--json"]  # fmt: skip
    assert main(["chat", "--model", str(out), *words]) == 0
    reply = json.loads(capsys.readouterr().out)
    assert reply["text_tokens"] > 0 and reply["audio"] == wave
    # a Talker that stops at once says nothing; the file holds what the codes say, 20 ms each
    assert reply["codes"] > 0 and reply["seconds"] == pytest.approx(reply["codes"] / 50, abs=0.02)
    assert soundfile.info(wave).frames > 0

    # again: nothing is left to do; a stage whose folder was removed is made anew, those after it stay
    journals = {p: p.stat().st_mtime_ns for p in (tmp_path / "tiny.runs").glob("*/metrics.jsonl")}
    assert run(out).stdout == done.stdout
    assert journals == {p: p.stat().st_mtime_ns for p in journals}
    shutil.rmtree(tmp_path / "tiny.runs" / "k3_speaker")
    run(out)
    assert read_journal(tmp_path / "tiny.runs" / "k3_speaker" / "metrics.jsonl")
