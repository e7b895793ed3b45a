"""The command line as a user meets it: what is printed, what is written, and one line with status 2 when it cannot be."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from thinktalk.cli.main import VERBS, main

SHORT = ["--max-text-tokens", "4", "--max-codes", "6", "--greedy"]


@pytest.fixture
def run(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    """run("chat", ...) -> (status, stdout, stderr), in an empty folder, with the tiny model."""
    monkeypatch.chdir(tmp_path)

    def call(*words, model=tiny_checkpoint):
        try:
            status = main(
                [words[0], *(["--model", str(model)] if model else []), *map(str, words[1:])]
            )
        except SystemExit as stop:  # argparse
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


def question(path: Path, seconds: float = 0.6) -> Path:
    t = np.arange(int(16000 * seconds)) / 16000
    soundfile.write(path, (0.3 * np.sin(2 * np.pi * 300 * t)).astype(np.float32), 16000)
    return path


def test_chat_prints_one_json_object_and_writes_the_wave(run, tmp_path):
    sound = question(tmp_path / "q.wav")
    picture = tmp_path / "p.png"
    Image.new("RGB", (60, 40), (200, 30, 30)).save(picture)
    words = [
        "--text",
        "Hi",
        "--audio",
        sound,
        "--image",
        picture,
        "--out",
        "w.wav",
        "--json",
        *SHORT,
    ]
    status, out, err = run("chat", *words)
    assert status == 0, err
    reply = json.loads(out)
    assert out.count("\n") == 1
    assert list(reply) == [
        "text", "audio", "sample_rate", "seconds", "prompt_tokens", "text_tokens", "codes", "timing",
    ]  # fmt: skip
    assert (reply["audio"], reply["sample_rate"], reply["text_tokens"]) == ("w.wav", 24000, 4)
    with wave.open("w.wav") as file:
        assert file.getframerate() == 24000
        assert file.getnframes() == reply["codes"] * 480 == round(reply["seconds"] * 24000)
    assert all(ms >= 0 for ms in reply["timing"].values())


def test_without_speech_no_talker_is_needed(run, tiny_checkpoint, tmp_path):
    """Parts on demand: a folder without voices answers in text."""
    folder = tmp_path / "thinker-only"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "spk_dict.pt").unlink()
    status, out, _ = run("chat", "--text", "Hi", "--no-speech", "--json", *SHORT, model=folder)
    assert status == 0
    reply = json.loads(out)
    assert (reply["audio"], reply["codes"], reply["seconds"]) == (None, 0, 0)
    assert not (tmp_path / "answer.wav").exists()


def test_without_json_the_text_is_printed_and_the_wave_named(run, tmp_path):
    status, out, err = run("chat", "--text", "Hi", *SHORT)
    assert status == 0
    assert out.strip()
    assert "answer.wav" in err
    assert (tmp_path / "answer.wav").exists()


def test_the_seed_decides(run):
    sampled = ["--text", "Hi", "--max-text-tokens", "4", "--max-codes", "12", "--json"]
    waves = []
    for seed in (1, 1, 2):
        assert run("chat", *sampled, "--seed", seed, "--out", "s.wav")[0] == 0
        waves.append(Path("s.wav").read_bytes())
    assert waves[0] == waves[1] != waves[2]


def test_say_speaks_the_very_text(run):
    status, out, _ = run("say", "Good morning.", "--out", "said.wav", "--max-codes", "8", "--json")
    assert status == 0
    assert json.loads(out)["text"] == "Good morning."
    assert Path("said.wav").stat().st_size > 44


def test_transcribe_prints_text(run, tmp_path):
    status, out, _ = run("transcribe", question(tmp_path / "q.flac"), "--json")
    assert status == 0
    assert isinstance(json.loads(out)["text"], str)


def test_voices_come_and_go(run, tiny_checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    names = lambda out: set(json.loads(out)["voices"])  # noqa: E731
    assert names(run("voices", "list", "--json", "--model", folder, model=None)[1]) >= {"default"}
    add = ["voices", "add", "Twin", tiny_checkpoint, "--as", "default", "--json", "--model", folder]
    assert "Twin" in names(run(*add, model=None)[1])
    assert run("chat", "--text", "Hi", "--voice", "twin", *SHORT, model=folder)[0] == 0
    assert "Twin" not in names(
        run("voices", "remove", "Twin", "--json", "--model", folder, model=None)[1]
    )


def test_a_conversation_remembers_and_survives_a_wrong_attachment(run, tmp_path, monkeypatch):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n@nowhere.wav what is this\nAgain\n\n"))
    status, out, err = run("chat", "--json", *SHORT)
    assert status == 0
    first, second = map(json.loads, out.splitlines())
    assert "nowhere.wav" in err
    assert second["prompt_tokens"] > first["prompt_tokens"] + 4
    assert {p.name for p in tmp_path.glob("*.wav")} == {"answer-1.wav", "answer-2.wav"}


class Boom:
    """Unpickling this would write a file."""

    def __reduce__(self):
        return os.system, ("touch hacked",)


def hostile(folder: Path, tiny: str) -> dict[str, list]:
    """name -> words of a command that cannot work."""
    files = {
        "empty.wav": b"",
        "text.wav": b"this is not a sound",
        "noise.mp4": bytes(range(256)) * 40,
        "half.png": None,
        "nan.wav": None,
        "none.wav": None,
    }
    for name, data in files.items():
        if data is not None:
            (folder / name).write_bytes(data)
    Image.new("RGB", (64, 64)).save(folder / "whole.png")
    (folder / "half.png").write_bytes((folder / "whole.png").read_bytes()[:60])
    Image.new("RGB", (2100, 10)).save(folder / "strip.png")
    soundfile.write(folder / "nan.wav", np.full(3000, np.nan, np.float32), 16000, subtype="FLOAT")
    soundfile.write(folder / "none.wav", np.zeros(0, np.float32), 16000)
    model = folder / "hostile"
    shutil.copytree(tiny, model)
    with open(model / "spk_dict.pt", "wb") as file:
        pickle.dump({"x": Boom()}, file)
    return {
        "empty sound": ["chat", "--audio", "empty.wav"],
        "text called wav": ["chat", "--audio", "text.wav"],
        "no samples": ["chat", "--audio", "none.wav"],
        "not a number": ["chat", "--audio", "nan.wav"],
        "missing file": ["chat", "--audio", "nowhere.wav"],
        "a folder": ["chat", "--image", "hostile"],
        "noise called mp4": ["chat", "--video", "noise.mp4"],
        "half a picture": ["chat", "--image", "half.png"],
        "a strip": ["chat", "--image", "strip.png"],
        "unknown voice": ["chat", "--text", "Hi", "--voice", "Nobody"],
        "too long": ["chat", "--text", "word " * 40000],
        "no folder for --out": ["chat", "--text", "Hi", "--out", "no/such/w.wav"],
        "unknown device": ["chat", "--text", "Hi", "--device", "warp"],
        "unknown dtype": ["chat", "--text", "Hi", "--dtype", "float3"],
        "bad placement": ["chat", "--text", "Hi", "--placement", "thinker"],
        "zero tokens": ["chat", "--text", "Hi", "--max-codes", "0"],
        "unknown option": ["chat", "--loud"],
        "nothing to say": ["say", " "],
        "hostile voices": ["chat", "--text", "Hi", "--model", str(model)],
        "no model": ["chat", "--text", "Hi", "--model", "nowhere"],
        "a file as model": ["chat", "--text", "Hi", "--model", "whole.png"],
        "convert to itself": ["convert", str(model), str(model)],
    }  # fmt: skip


def test_bad_input_is_one_line_and_nothing_written(run, tiny_checkpoint, tmp_path):
    commands = hostile(tmp_path, tiny_checkpoint)
    before = sorted(tmp_path.rglob("*"))
    for name, words in commands.items():
        chosen = None if "--model" in words or words[0] == "convert" else tiny_checkpoint
        status, out, err = run(*words, model=chosen)
        assert status == 2, f"{name}: status {status}, {err}"
        assert out == "", f"{name}: printed {out!r}"
        assert err.startswith("thinktalk"), f"{name}: {err!r}"
        assert err.count("\n") == 1, f"{name}: {err!r}"
        assert "Traceback" not in err, name
        assert sorted(tmp_path.rglob("*")) == before, f"{name}: wrote files"


def test_debug_shows_the_traceback(run):
    assert "Traceback" in run("chat", "--text", "Hi", "--voice", "Nobody", "--debug")[2]


def test_every_verb_has_help(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0
        assert "usage: thinktalk " + verb in capsys.readouterr().out


def test_help_is_instant():
    """No verb's help needs torch, whose import is a second."""
    verbs = "\n".join(f"import thinktalk.cli.{verb}" for verb in VERBS)
    code = f"{verbs}\nimport sys\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_as_a_process(tiny_checkpoint, tmp_path):
    """The installed command: a real process, its streams apart, a closed pipe no error."""
    command = [sys.executable, "-m", "thinktalk.cli.main", "chat", "--model", str(tiny_checkpoint)]
    words = ["--text", "Hi", "--no-speech", "--json", *SHORT]
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["codes"] == 0
    assert done.stderr == ""


def test_torch_threads_are_left_to_the_user():
    """The command line must not pin threads behind the user's back."""
    assert (
        torch.get_num_threads() == 1
    )  # what tests/conftest.py set; main() has run many times by now
