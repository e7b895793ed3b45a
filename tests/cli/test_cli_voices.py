"""thinktalk voices add NAME CLIP: a voice for the checkpoint, or for a server's directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from thinktalk.cli.main import main
from thinktalk.config import tiny
from thinktalk.media.audio import load_audio, write_wav
from thinktalk.weights.enrolled import VoiceStore

QUESTION = Path(__file__).parents[2] / "examples" / "question.wav"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spoken question, said until it is long enough."""
    import numpy as np

    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    pcm = load_audio(QUESTION)
    write_wav(path, np.tile(pcm, -(-50_000 // len(pcm))), 16_000)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def run(*words: object) -> tuple[int, str, str]:
        status = main(["voices", *map(str, words)])
        return status, *capsys.readouterr()

    return run


def test_a_clip_becomes_a_voice_of_the_checkpoint(run, tiny_checkpoint, tmp_path, clip) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    status, out, err = run("add", "mine", clip, "--fit-steps", 3, "--json", "--model", folder)
    told = json.loads(out)
    assert status == 0 and told["voices"]["mine"]["stored"] == "voices.safetensors"
    made = told["made"]
    assert made["near"] in ("Chelsie", "Ethan") and made["experimental"] and not made["coded"]
    assert made["steps"] == 3 and made["flow_loss_after"] <= made["flow_loss_before"]
    assert (
        err.count("\n") == 1 and "mine: speaks with the token of" in err and "experimental" in err
    )
    status, _, err = run("add", "Mine", clip, "--model", folder)
    assert status == 2 and "there already" in err
    status, out, _ = run("add", "mine", clip, "--no-fit", "--replace", "--json", "--model", folder)
    assert status == 0 and "steps" not in json.loads(out)["made"]


def test_a_server_s_directory(run, tiny_checkpoint, tmp_path, clip) -> None:
    place = ("--voices-dir", tmp_path / "voices", "--model", tiny_checkpoint)
    assert run("list", "--json", *place)[1].strip() == '{"voices": {}}'
    assert run("add", "mine", clip, "--no-fit", *place)[0] == 0
    assert run("add", "Twin", tiny_checkpoint, "--as", "Ethan", *place)[0] == 0
    assert set(VoiceStore(tmp_path / "voices", tiny()).read()) == {"Twin", "mine"}
    assert set(json.loads(run("remove", "twin", "--json", *place)[1])["voices"]) == {"mine"}
    status, _, err = run("remove", "Ethan", *place)
    assert status == 2 and err.count("\n") == 1 and "'Ethan' is not enrolled; have mine" in err
    status, _, err = run("add", "short", QUESTION, *place, "--fit-steps", 0)
    assert status == 2 and "--fit-steps 0" in err
    status, _, err = run("add", "nobody", tmp_path / "nowhere.wav", *place)
    assert status == 2 and err.count("\n") == 1 and "nowhere.wav" in err
