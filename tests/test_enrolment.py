"""Enrolment: a clip becomes a voice of this model; the fit hears the codes of the clip where the checkpoint can tell them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import thinktalk
from thinktalk import enrolment
from thinktalk.config import Wav2CodeConfig
from thinktalk.enrolment import codes_of, enrol
from thinktalk.errors import ConfigError, InputError, WeightsError
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.weights import hf
from thinktalk.weights.wav2code import save_tokenizer

RATE = 24_000
PCM = (0.1 * np.random.default_rng(0).standard_normal(4 * RATE)).astype(np.float32)
CLIP = (PCM, RATE)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a speech tokenizer beside it."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("enrolment") / "model")
    torch.manual_seed(0)
    config = Wav2CodeConfig(width=16, num_layers=1, num_heads=2, ffn_width=16, pool=1)
    save_tokenizer(SpeechTokenizer(config), folder)
    return folder


def test_the_fit_hears_the_codes_of_the_clip(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    model = hf.load(checkpoint, parts=("code2wav",))
    coded = enrol(model, "mine", CLIP, directory=checkpoint, steps=3)
    codes = codes_of(torch.from_numpy(PCM), RATE, checkpoint)
    assert coded.coded and coded.experimental and len(codes) == 4 * 50 and len(codes.unique()) > 5
    blind = enrol(model, "mine", CLIP, steps=3)
    assert not blind.coded and not torch.equal(blind.voice.cond, coded.voice.cond)
    # planted fault: codes of another clip
    monkeypatch.setattr(enrolment, "codes_of", lambda *_: codes.flip(0))
    other = enrol(model, "mine", CLIP, directory=checkpoint, steps=3)
    assert not torch.equal(other.voice.cond, coded.voice.cond)


def test_omni_speaks_with_it(checkpoint: Path) -> None:
    omni = thinktalk.load(checkpoint)
    before = omni.model.voices
    made = omni.enrol("mine", CLIP, fit=False)
    assert (
        "mine" in omni.voices and "mine" not in before
    )  # another table: threads may read the old one
    assert made.fit is None and made.experimental and made.voice.cond.equal(before[made.near].cond)
    short = dict(seed=1, max_codes=12, flow_points=3, flow_method="euler")
    mine, near = (omni.say("Good morning.", voice=v, **short).audio for v in ("mine", made.near))
    assert mine is not None and near is not None and len(mine) == len(near)
    assert np.abs(mine - near).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "clip", "error", "says"),
    [
        ("mine", (PCM[: 2 * RATE], RATE), InputError, "clip: has 2.0 s of sound, expected 3 to 60 s"),
        ("mine", (np.zeros(61 * 8000, np.float32), 8000), InputError, "clip: is longer than 60 s"),
        ("mine", (PCM * 1e-4, RATE), InputError, "clip: is silent"),
        ("mine", "nowhere.wav", InputError, "nowhere.wav"),
        (" mine", CLIP, WeightsError, "printable"),
        ("x" * 65, CLIP, WeightsError, "1 to 64"),
    ],
)  # fmt: skip
def test_what_makes_no_voice_is_said(checkpoint: Path, name, clip, error, says) -> None:
    model = hf.load(checkpoint, parts=("code2wav",))
    with pytest.raises(error, match=says) as told:
        enrol(model, name, clip)
    assert "\n" not in str(told.value)


def test_a_model_without_code2wav_is_told(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="without code2wav"):
        enrol(hf.load(checkpoint, parts=("thinker",)), "mine", CLIP)
