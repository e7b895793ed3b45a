"""update_checkpoint: only what was trained changes, the rest is shared, and every way of storing a base is understood."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from thinktalk.config import Wav2CodeConfig, tiny
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.talker.model import Talker
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.weights import hf
from thinktalk.weights.convert import convert
from thinktalk.weights.files import INDEX, SINGLE, TensorFiles, read_header
from thinktalk.weights.random import random_voices
from thinktalk.weights.update import update_checkpoint
from thinktalk.weights.wav2code import load_tokenizer

# tiny speaks 50 codes a second
WAV2CODE = Wav2CodeConfig(width=16, num_layers=1, num_heads=2, ffn_width=16, pool=1)


def new_talker() -> Talker:
    torch.manual_seed(7)
    return Talker(tiny().talker)


def differing(a, b) -> set[str]:
    """Stages of which a tensor differs between two checkpoints."""
    first, second = hf.load(a).state_dict(), hf.load(b).state_dict()
    assert first.keys() == second.keys()
    return {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}


def inodes(directory) -> dict[str, int]:
    return {p.name: p.stat().st_ino for p in directory.glob("*.safetensors")}


def test_only_what_was_trained_changes_and_the_rest_is_shared(tiny_checkpoint, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    talker = new_talker()
    update_checkpoint(tiny_checkpoint, one, {"talker": talker})
    assert differing(tiny_checkpoint, one) == {"talker"}
    loaded = hf.load(one).talker
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in talker.state_dict().items())
    assert sorted(p.name for p in one.iterdir() if p.suffix == ".safetensors") == [
        f"{stage}.safetensors" for stage in sorted(hf.load(one).stages())
    ]
    tokenizer = SpeechTokenizer(WAV2CODE)
    update_checkpoint(one, two, {"wav2code": tokenizer})
    assert differing(one, two) == set()
    shared = inodes(one).items() & inodes(two).items()
    assert shared == inodes(one).items() and (two / "wav2code.safetensors").exists()
    assert hf.read_config(two) == replace(hf.read_config(one), wav2code=WAV2CODE)
    assert torch.equal(load_tokenizer(two).norm.weight, tokenizer.norm.weight)
    # and in the place of itself
    update_checkpoint(two, two, {"talker": hf.load(tiny_checkpoint).talker}, overwrite=True)
    assert differing(tiny_checkpoint, two) == set()
    assert torch.equal(load_tokenizer(two).norm.weight, tokenizer.norm.weight)


def test_shards_lose_the_old_tensors(tiny_checkpoint, tmp_path):
    """transformers reads every tensor of every file it finds: an old one left behind would win or lose by chance."""
    shards, new = tmp_path / "shards", tmp_path / "new"
    convert(tiny_checkpoint, shards, max_shard_bytes=200_000)
    update_checkpoint(shards, new, {"audio": hf.load(tiny_checkpoint).audio})
    assert differing(shards, new) == set()
    index = json.loads((new / INDEX).read_text())["weight_map"]
    inside = [(name, path.name) for path in new.glob("*.safetensors") for name in read_header(path)]
    assert sorted(inside) == sorted(index.items())
    assert len(inodes(shards).items() & inodes(new).items()) > 2


def test_precision_of_the_base_is_kept(tiny_checkpoint, tmp_path):
    half, new = tmp_path / "half", tmp_path / "new"
    convert(tiny_checkpoint, half, dtype="bfloat16", int8=["talker"])
    update_checkpoint(half, new, {"talker": new_talker(), "thinker": hf.load(half, dtype="float32").thinker})  # fmt: skip
    assert differing_ok(half, new)
    files = TensorFiles(new)
    kinds = {name: files[name].dtype for name in files}
    assert {kind for name, kind in kinds.items() if not name.startswith("token2wav")} == {torch.bfloat16}  # fmt: skip
    assert hf.load(new).talker.proj.weight.dtype == torch.bfloat16


def differing_ok(a, b) -> bool:
    """The Thinker went through float32 and back without a change."""
    first, second = hf.load(a, parts=["thinker"]), hf.load(b, parts=["thinker"])
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(s, t) for s, t in pairs)


def test_names_of_other_tools_become_official(tiny_checkpoint, tmp_path):
    """A file with a newer transformers' in-memory names is written anew, so that one checkpoint has one naming."""
    from safetensors.torch import load_file, save_file

    base, new = shutil.copytree(tiny_checkpoint, tmp_path / "base"), tmp_path / "new"
    tensors = load_file(base / SINGLE)
    newer = {n.replace("thinker.audio_tower.", "thinker.model.audio_tower."): t for n, t in tensors.items()}  # fmt: skip
    assert newer.keys() != tensors.keys()
    save_file(newer, base / SINGLE)
    update_checkpoint(base, new, {"talker": hf.load(tiny_checkpoint).talker})
    assert differing(tiny_checkpoint, new) == set()
    assert not any("model.audio_tower" in name for name in TensorFiles(new))


def test_voices_are_replaced(tiny_checkpoint, tmp_path):
    voices = {"Ada": replace(random_voices(tiny(), seed=3)["Ethan"], name="Ada")}
    update_checkpoint(tiny_checkpoint, tmp_path / "new", {}, voices=voices)
    loaded = hf.load(tmp_path / "new").voices
    assert set(loaded) == {"Ada", "default"}
    assert torch.equal(loaded["default"].ref_mel, voices["Ada"].ref_mel)
    assert (tmp_path / "new" / SINGLE).stat().st_nlink > 1


def test_another_disk_copies(tiny_checkpoint, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    update_checkpoint(tiny_checkpoint, tmp_path / "new", {})
    assert differing(tiny_checkpoint, tmp_path / "new") == set()


def test_what_does_not_fit_is_one_line_and_leaves_nothing(tiny_checkpoint, tmp_path):
    target = tmp_path / "new"
    with pytest.raises(ConfigError, match="part 'ears' is unknown; have audio"):
        update_checkpoint(tiny_checkpoint, target, {"ears": nn.Linear(1, 1)})
    with pytest.raises(ConfigError, match="part talker: a Linear has what no talker has"):
        update_checkpoint(tiny_checkpoint, target, {"talker": nn.Linear(1, 1)})
    other = replace(tiny().talker, decoder=replace(tiny().talker.decoder, num_layers=2))
    with pytest.raises(WeightsError, match=rf"{target}: \d+ missing"):
        update_checkpoint(tiny_checkpoint, target, {"talker": Talker(other)})
    assert not list(tmp_path.iterdir())
    changed = replace(hf.read_config(tiny_checkpoint), talker=other)
    update_checkpoint(tiny_checkpoint, target, {"talker": Talker(other)}, config=changed)
    assert len(hf.load(target).talker.layers) == 2
