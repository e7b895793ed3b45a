"""Which results are of which weights: a new voice leaves what is written as it was, a new Thinker does not."""

from __future__ import annotations

import json
import shutil

import pytest

from thinktalk.eval.bench import weights_sums


@pytest.fixture
def packed(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")


@pytest.mark.parametrize("name", ["talker.safetensors", "dit.safetensors", "vocoder.safetensors", "wav2code.safetensors", "spk_dict.pt"])  # fmt: skip
def test_a_new_voice_writes_the_same(packed, name):
    (packed / name).write_bytes(b"another")
    before = weights_sums(packed)[""], weights_sums(packed)["text"]
    (packed / name).write_bytes(b"a third")
    after = weights_sums(packed)[""], weights_sums(packed)["text"]
    assert before[0] != after[0] and before[1] == after[1]


def test_a_new_thinker_does_not(packed):
    for name in ("audio.safetensors", "config.json"):
        before = weights_sums(packed)["text"]
        (packed / name).write_bytes(b"another")
        assert weights_sums(packed)["text"] != before
    assert weights_sums(packed, dtype="int8")["text"] != weights_sums(packed)["text"]


@pytest.mark.parametrize("name", ["talker", "audio", "thinker", "vision"])
def test_who_thinks_does_not_change_codes_and_back(packed, name):
    path = packed / f"{name}.safetensors"
    path.write_bytes(b"another")
    before = weights_sums(packed)[""], weights_sums(packed)["codes"]
    path.write_bytes(b"a third")
    assert weights_sums(packed)[""] != before[0] and weights_sums(packed)["codes"] == before[1]


@pytest.mark.parametrize("name", ["dit.safetensors", "vocoder.safetensors", "wav2code.safetensors", "spk_dict.pt", "config.json"])  # fmt: skip
def test_who_speaks_does(packed, name):
    (packed / name).write_bytes(b"another")
    before = weights_sums(packed)["codes"]
    (packed / name).write_bytes(b"a third")
    assert weights_sums(packed)["codes"] != before


def test_options_of_speech_are_none_of_text(packed):
    path = packed / "generation_config.json"
    path.write_text(json.dumps({"thinker_top_k": 1, "token2wav_num_steps": 10}))
    before = weights_sums(packed)[""], weights_sums(packed)["text"]
    path.write_text(json.dumps({"thinker_top_k": 1, "token2wav_num_steps": 2}))
    assert weights_sums(packed)["text"] == before[1] and weights_sums(packed)[""] != before[0]
    path.write_text(json.dumps({"thinker_top_k": 2, "token2wav_num_steps": 2}))
    assert weights_sums(packed)["text"] != before[1]
