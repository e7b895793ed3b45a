"""Checkpoints to and from transformers, bit by bit: what it saves we load, what we save it loads."""

import json
import re
import warnings
from pathlib import Path

import pytest
import torch
from reference import official_state_dict, part_weights, tiny_reference
from transformers import GenerationConfig, Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration

from thinktalk import config as cfg
from thinktalk.weights.assign import locate
from thinktalk.weights.files import TensorFiles
from thinktalk.weights.hf import build, load, planned, read_config, save
from thinktalk.weights.random import random_checkpoint, random_voices
from thinktalk.weights.voices import save_voices

GOLDENS = Path(__file__).parents[1] / "goldens"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """The tiny reference as transformers 5 writes it: newer key style, one file."""
    directory = tmp_path_factory.mktemp("theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny_reference().save_pretrained(directory)
    save_voices(random_voices(cfg.tiny()), directory)
    return directory


def same_tensors(ours: dict, theirs: dict) -> None:
    """Bit-identical, name by name: these are copies, so no tolerance."""
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name


def test_what_transformers_saves_we_load(theirs):
    assert read_config(theirs) == cfg.tiny()
    model = load(theirs)
    for stage, module in model.stages().items():
        same_tensors(module.state_dict(), part_weights(tiny_reference(), stage))


def test_a_changed_bit_is_seen(theirs):
    """Planted fault: one value of one tensor."""
    state = load(theirs).talker.state_dict()
    state["proj.bias"] = state["proj.bias"].clone()
    state["proj.bias"][3] = torch.nextafter(state["proj.bias"][3], torch.tensor(9.0))
    with pytest.raises(AssertionError):
        same_tensors(state, part_weights(tiny_reference(), "talker"))


@pytest.mark.parametrize("shard", [5_000_000_000, 2_000_000])
def test_what_we_save_transformers_loads(theirs, tmp_path, shard):
    save(load(theirs), tmp_path / "ours", source=theirs, max_shard_bytes=shard)
    opens_there(tmp_path / "ours", official_state_dict(tiny_reference()))


def opens_there(directory: Path, expected: dict) -> None:
    """transformers opens a directory and holds the expected bits; the files hold those tensors and no others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Qwen2_5OmniForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
        generation = GenerationConfig.from_pretrained(directory)
    assert set(TensorFiles(directory)) == expected.keys()
    same_tensors(official_state_dict(model), expected)
    assert model.speaker_map.keys() == {"Chelsie", "Ethan"}
    assert generation.talker_top_k == 40


def test_random_checkpoint_opens_in_transformers(tmp_path):
    random_checkpoint(cfg.tiny(), tmp_path / "random", seed=3)
    model = load(tmp_path / "random")
    plan = [
        t
        for stage, module in model.stages().items()
        for t in planned(stage, module, model.config, None)
    ]
    opens_there(tmp_path / "random", {tensor.name: tensor.make() for tensor in plan})


def test_both_key_styles_say_the_same_to_transformers(tmp_path):
    """Our file, which is in the official style, gives transformers the numbers of its own style, the DiT's included."""
    config = cfg.tiny()
    random_checkpoint(config, tmp_path / "random")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Qwen2_5OmniConfig.from_pretrained(tmp_path / "random")
    dit = theirs.token2wav_config.dit_config
    assert (dit.hidden_size, dit.num_hidden_layers, dit.block_size) == (64, 6, 24)
    rope = theirs.talker_config.rope_parameters
    assert (rope["rope_theta"], list(rope["mrope_section"])) == (1e6, [2, 3, 3])
    assert theirs.thinker_config.text_config.hidden_size == 64
    assert theirs.thinker_config.audio_token_index == config.thinker.ids.audio


@pytest.mark.parametrize("preset", [cfg.omni_7b, cfg.omni_3b])
def test_every_tensor_of_the_real_layout_is_accounted_for(preset):
    """On the meta device: our tensors, under official names, are exactly the families of the official list."""
    patterns = set((GOLDENS / "state_dict_patterns.txt").read_text().split())
    model = build(preset())
    names, total = set(), 0
    for stage, module in model.stages().items():
        for tensor in planned(stage, module, model.config, None):
            names.add(re.sub(r"\d+", "N", tensor.name))
            assert locate(tensor.name)[0] == stage
            total += tensor.nbytes // tensor.dtype.itemsize
    assert names == patterns
    if preset is cfg.omni_7b:
        assert total == 10_732_225_408  # 10.73 B


def test_the_official_config_is_read():
    from thinktalk.weights.config_read import config_from_json

    raw = {"config.json": json.loads((GOLDENS / "official_7b_config.json").read_text())}
    assert config_from_json(raw) == cfg.omni_7b()
