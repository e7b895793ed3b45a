"""thinktalk data: make, check, show, from the terminal."""

from __future__ import annotations

import json

import numpy as np
import pytest

from thinktalk.cli.main import main
from thinktalk.media.audio import write_wav


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(4):
        write_wav(folder / f"{i}.wav", np.sin(np.arange(4000) / 9).astype(np.float32), 16_000)
        (folder / f"{i}.txt").write_text(f"Sentence number {i}.")
    (folder / "5.wav").write_bytes(b"noise")
    (folder / "5.txt").write_text("Noise.")
    return folder


def test_from_recordings_to_a_page(corpus, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["data", "make", "--corpus", str(corpus), "--out", out, "--voice", "me", "--json"]) == 0  # fmt: skip
    made = json.loads(capsys.readouterr().out)
    assert sum(made["samples"].values()) == 4 and len(made["faults"]) == 1
    assert main(["data", "check", out, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["samples"] == 4 and report["voices"] == {"me": 1.0} and report["faults"] == []
    page = tmp_path / "page.html"
    assert main(["data", "show", out, "--out", str(page), "-n", "3"]) == 0
    assert capsys.readouterr().out == f"3 samples in {page}\n"
    assert page.read_text(encoding="utf-8").count("<audio") == 3


def test_for_people(corpus, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["data", "make", "--corpus", str(corpus), "--out", out]) == 0
    told = capsys.readouterr()
    assert "train" in told.out and f"passed by: {corpus}/5.wav" in told.err
    assert main(["data", "check", out]) == 0
    assert "4 samples in" in capsys.readouterr().out


def test_a_fault_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "a.tar").write_bytes(b"x" * 5000)
    assert main(["data", "check", str(tmp_path), "--json"]) == 2
    told = capsys.readouterr()
    assert len(json.loads(told.out)["faults"]) == 1
    assert told.err == f"thinktalk: {tmp_path}/a.tar: is no tar from byte 0 to its end\n"
    assert main(["data", "make", "--corpus", f"{tmp_path}/none", "--out", f"{tmp_path}/o"]) == 2
    assert "is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("world", ["text", "pictures"])
def test_a_world_from_a_seed(world, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["data", "make", "--world", world, "--count", "20", "--out", out, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["samples"] == {"train": 20, "dev": 2, "test": 2} and len(made["paths"]) == 3
    assert sum(made["skills"].values()) == 24
    assert main(["data", "check", out]) == 0
    page = tmp_path / "page.html"
    assert main(["data", "show", out, "--out", str(page), "--json"]) == 0
    assert 'class="fault"' not in page.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["data", "make", "--world", world, "--count", "9", "--out", str(tmp_path)]) == 0
    assert "train          9 samples" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["data", "make", "--out", out])
