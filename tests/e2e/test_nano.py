"""The model in this repository, as a newcomer meets it: as small as it says, and a spoken question answered aloud, rightly."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import numpy as np
import pytest
import soundfile

import thinktalk
from thinktalk.cli.main import main
from thinktalk.weights.assign import SCALE
from thinktalk.weights.files import read_header
from thinktalk.weights.pretrained import MAX_BYTES, MAX_FILE_BYTES, shipped

ASKED = Path(__file__).parents[2] / "examples" / "asked" / "spoken_calendar.opus"
MOST_PARAMETERS = 40_000_000


@pytest.fixture(scope="module")
def nano():
    return thinktalk.load()


def test_it_is_as_small_as_it_says():
    folder = shipped("nano")
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert sum(sizes) <= MAX_BYTES and max(sizes) <= MAX_FILE_BYTES
    tensors = {name: e for path in folder.glob("*.safetensors") for name, e in read_header(path).items()}  # fmt: skip
    count = sum(prod(e.shape) for name, e in tensors.items() if not name.endswith(SCALE))
    assert 30_000_000 < count <= MOST_PARAMETERS


def test_a_spoken_question_is_answered_aloud(tmp_path, capsys):
    out = tmp_path / "answer.wav"
    assert main(["chat", "--audio", str(ASKED), "--seed", "0", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "Thursday comes before Friday."
    pcm, rate = soundfile.read(out)
    assert rate == 24_000 and 1 < len(pcm) / rate < 6, "it ends by itself"
    assert np.abs(pcm).max() <= 1 and np.sqrt((pcm**2).mean()) > 0.01


def test_four_voices_of_its_own(nano):
    """The same words by each, of different length and sound."""
    assert {"af_heart", "am_michael", "bf_emma", "bm_george"} <= set(nano.voices)
    said = [nano.say("Good morning.", voice=voice, seed=1).audio for voice in nano.voices[:2]]
    assert all(0.3 < len(pcm) / 24_000 < 4 for pcm in said)
    assert len(said[0]) != len(said[1]) or not np.array_equal(*said)
