"""The speech tokenizer beside a checkpoint: there and back, the rest untouched, faults named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from thinktalk import config as cfg
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.weights import hf
from thinktalk.weights.wav2code import FILE, load_tokenizer, save_tokenizer

# tiny speaks 50 codes a second
CONFIG = cfg.Wav2CodeConfig(width=16, num_layers=1, num_heads=2, ffn_width=16, pool=1)


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")


def make(seed: int = 0, config: cfg.Wav2CodeConfig = CONFIG) -> SpeechTokenizer:
    torch.manual_seed(seed)
    return SpeechTokenizer(config)


def same(a: SpeechTokenizer, b: SpeechTokenizer) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(m == n and torch.equal(s, t) for (m, s), (n, t) in pairs)


def test_there_and_back_and_the_rest_untouched(checkpoint):
    before = {p.name: p.read_bytes() for p in checkpoint.iterdir() if p.name.startswith("model")}
    whole = hf.load(checkpoint)
    for seed in (0, 1):  # the second takes the place of the first
        save_tokenizer(make(seed), checkpoint)
        loaded = load_tokenizer(checkpoint)
        assert same(loaded, make(seed)) and not same(loaded, make(seed + 1))
        assert not any(p.requires_grad for p in loaded.parameters())
    assert load_tokenizer(checkpoint, dtype=torch.bfloat16).norm.weight.dtype == torch.bfloat16
    again = hf.load(checkpoint)
    assert again.config == replace(whole.config, wav2code=CONFIG)
    pairs = zip(whole.state_dict().items(), again.state_dict().items(), strict=True)
    assert all(m == n and torch.equal(s, t) for (m, s), (n, t) in pairs)
    weights = {p.name: p.read_bytes() for p in checkpoint.iterdir() if p.name in before}
    assert all(weights[n] == data for n, data in before.items() if n.endswith(".safetensors"))
    assert not [p for p in checkpoint.iterdir() if p.name.startswith(f".{FILE}")]


def test_a_checkpoint_without_one_says_so(checkpoint):
    with pytest.raises(WeightsError, match="has no speech tokenizer"):
        load_tokenizer(checkpoint)


def test_codes_that_the_decoder_does_not_take_are_refused_before_anything_is_written(checkpoint):
    before = {p.name: p.read_bytes() for p in checkpoint.iterdir()}
    with pytest.raises(ConfigError, match="codes/s"):
        save_tokenizer(make(config=replace(CONFIG, pool=2)), checkpoint)
    assert before == {p.name: p.read_bytes() for p in checkpoint.iterdir()}


def test_tensors_that_do_not_fit_are_all_named(checkpoint):
    save_tokenizer(make(), checkpoint)
    path = checkpoint / "config.json"
    values = json.loads(path.read_text())
    values["wav2code_config"] |= {"ffn_width": 24, "num_layers": 2}
    path.write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=r"layers.1.norm1.weight is missing.*mlp.up.weight has shape \(16, 16\), expected \(24, 16\)"):  # fmt: skip
        load_tokenizer(checkpoint)


def test_killed_before_the_index_the_checkpoint_is_whole(checkpoint, monkeypatch):
    from thinktalk.weights import wav2code

    right = wav2code.atomic_write

    def killed(path, data):
        if path.name != "config.json":
            raise KeyboardInterrupt
        right(path, data)

    monkeypatch.setattr(wav2code, "atomic_write", killed)
    with pytest.raises(KeyboardInterrupt):
        save_tokenizer(make(), checkpoint)
    monkeypatch.undo()
    hf.load(checkpoint)
    with pytest.raises(WeightsError, match="missing"):
        load_tokenizer(checkpoint)
    save_tokenizer(make(), checkpoint)  # once more is enough
    assert same(load_tokenizer(checkpoint), make())
