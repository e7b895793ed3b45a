"""Join: each stage is whose it should be, to the bit, whatever its sizes; the base's own files are not written anew."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from thinktalk import config as cfg
from thinktalk.cli.main import main
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.weights import hf
from thinktalk.weights.join import join
from thinktalk.weights.random import random_checkpoint
from thinktalk.weights.voices import own_voices
from thinktalk.weights.wav2code import load_tokenizer, save_tokenizer

CODES = cfg.Wav2CodeConfig(width=16, num_layers=1, num_heads=2, ffn_width=16, pool=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base, and one of another seed with a larger vision encoder and a speech tokenizer."""
    folder = tmp_path_factory.mktemp("join")
    tiny = cfg.tiny()
    vision = replace(tiny.thinker.vision, depth=tiny.thinker.vision.depth + 1)
    other = replace(tiny, thinker=replace(tiny.thinker, vision=vision))
    random_checkpoint(tiny, folder / "base", seed=0)
    random_checkpoint(other, folder / "other", seed=1)
    save_tokenizer(SpeechTokenizer(CODES), folder / "other")
    return folder / "base", folder / "other"


def stages(directory) -> dict[str, dict[str, torch.Tensor]]:
    return {name: module.state_dict() for name, module in hf.load(directory).stages().items()}


def whose(new, base, other) -> dict[str, str]:
    """Whose each stage is, by its tensors."""

    def same(a, b) -> bool:
        return a.keys() == b.keys() and all(torch.equal(t, b[n]) for n, t in a.items())

    names = {}
    for stage, tensors in new.items():
        names[stage] = "base" if same(tensors, base[stage]) else "other" if same(tensors, other[stage]) else "nobody"  # fmt: skip
    return names


@pytest.mark.parametrize("taken", [("talker",), ("dit", "vocoder"), ("vision", "wav2code")])
def test_each_stage_is_whose_it_should_be(models, taken, tmp_path):
    base, other = models
    before = {p.name: p.read_bytes() for p in base.iterdir()}
    join(base, tmp_path / "new", dict.fromkeys(taken, other))
    found = whose(stages(tmp_path / "new"), stages(base), stages(other))
    assert found == {stage: "other" if stage in taken else "base" for stage in found}
    assert {p.name: p.read_bytes() for p in base.iterdir()} == before
    voices = own_voices(other if "dit" in taken else base)
    assert all(torch.equal(v.ref_mel, voices[n].ref_mel) for n, v in own_voices(tmp_path / "new").items())  # fmt: skip
    if "wav2code" in taken:
        ours, theirs = (load_tokenizer(d).state_dict() for d in (tmp_path / "new", other))
        assert all(torch.equal(t, theirs[n]) for n, t in ours.items())
    if "vision" in taken:
        assert hf.read_config(tmp_path / "new").thinker.vision == hf.read_config(other).thinker.vision  # fmt: skip


def test_what_cannot_be_joined_is_said_and_nothing_is_written(models, tmp_path, capsys):
    base, other = models
    with pytest.raises(ConfigError, match="stage 'mouth' is unknown; have audio, vision"):
        join(base, tmp_path / "new", {"mouth": other})
    with pytest.raises(WeightsError, match=r"base: .*expected"):
        join(other, tmp_path / "new", {"wav2code": base})
    thinker = tmp_path / "thinker"
    assert main(["convert", str(base), str(thinker), "--parts", "thinker"]) == 0
    with pytest.raises(WeightsError, match="thinker: has no talker, expected one to take"):
        join(base, tmp_path / "new", {"talker": thinker})
    for words in (["--take", "talker"], ["--take", f"talker={other}", "--dtype", "bfloat16"], ["--take", f"talker={other}", "--pack"]):  # fmt: skip
        assert main(["convert", str(base), str(tmp_path / "new"), *words]) != 0
        assert "--" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_command(models, tmp_path, capsys):
    base, other = models
    new = str(tmp_path / "new")
    assert main(["convert", str(base), new, "--take", f"talker={other}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["taken"] == {"talker": str(other)}
    assert whose(stages(new), stages(base), stages(other))["talker"] == "other"
