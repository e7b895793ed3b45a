"""Loading and saving: bit-identical round trips, parts on demand, placement and precision, errors that list all at once."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from thinktalk import config as cfg
from thinktalk.errors import ConfigError, ThinktalkError, WeightsError
from thinktalk.layers.quant import Int8Linear
from thinktalk.weights.files import INDEX, SINGLE
from thinktalk.weights.hf import load, save
from thinktalk.weights.random import random_model


def same(left, right):
    for stage, module in left.stages().items():
        ours, theirs = module.state_dict(), right.stages()[stage].state_dict()
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype, name
            assert torch.equal(ours[name], theirs[name]), name


def edit(directory, change):
    """Change the tensors of a one-file checkpoint."""
    tensors = load_file(directory / SINGLE)
    change(tensors)
    save_file(tensors, directory / SINGLE)


def test_a_random_checkpoint_is_its_seed(tiny_checkpoint):
    model = load(tiny_checkpoint)
    same(model, random_model(cfg.tiny(), seed=0))
    with pytest.raises(AssertionError):  # planted fault: another seed
        same(model, random_model(cfg.tiny(), seed=1))
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


@pytest.mark.parametrize("shard", [5_000_000_000, 1_000_000])
def test_save_then_load_is_bit_identical(tiny_checkpoint, tmp_path, shard):
    model = load(tiny_checkpoint)
    save(model, tmp_path / "copy", source=tiny_checkpoint, max_shard_bytes=shard)
    again = load(tmp_path / "copy")
    same(model, again)
    assert again.config == model.config
    assert (tmp_path / "copy" / INDEX).exists() == (shard < 5_000_000_000)
    assert (tmp_path / "copy" / "tokenizer.json").read_bytes() == (
        tiny_checkpoint / "tokenizer.json"
    ).read_bytes()
    for name, voice in model.voices.items():
        assert torch.equal(again.voices[name].ref_mel, voice.ref_mel)


def test_int8_layers_survive_saving(tiny_checkpoint, tmp_path):
    model = load(tiny_checkpoint, dtype={"thinker": "int8", "talker": "int8"})
    assert isinstance(model.thinker.layers[0].attn.q, Int8Linear)
    save(model, tmp_path / "int8", source=tiny_checkpoint)
    stored = load_file(tmp_path / "int8" / SINGLE)
    name = "talker.model.layers.0.mlp.up_proj.weight"
    assert stored[name].dtype == torch.int8
    assert stored[name + ".scale"].shape == stored[name].shape[:1]
    again = load(tmp_path / "int8")
    same(model, again)
    x = torch.randn(3, cfg.tiny().thinker.text.width)
    assert torch.equal(model.thinker.lm_head(x), again.thinker.lm_head(x))


def test_unknown_keys_of_the_source_are_kept(damaged, tmp_path):
    raw = json.loads((damaged / "config.json").read_text())
    raw["house"] = {"motto": "kept"}
    raw["thinker_config"]["audio_config"]["colour"] = "blue"
    (damaged / "config.json").write_text(json.dumps(raw))
    save(load(damaged), tmp_path / "copy", source=damaged)
    again = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert again["house"] == {"motto": "kept"}
    assert again["thinker_config"]["audio_config"]["colour"] == "blue"


def test_parts_on_demand_need_no_other_files(damaged, tmp_path):
    save(load(damaged), tmp_path / "shards", source=damaged, max_shard_bytes=200_000)
    index = json.loads((tmp_path / "shards" / INDEX).read_text())["weight_map"]
    thinkers = {file for name, file in index.items() if name.startswith("thinker.")}
    for file in set(index.values()) - thinkers:
        (tmp_path / "shards" / file).unlink()
    (tmp_path / "shards" / "spk_dict.pt").unlink()
    model = load(tmp_path / "shards", parts=("thinker",))
    assert model.talker is None and model.dit is None and model.voices == {}
    with pytest.raises(WeightsError, match="not there"):
        load(tmp_path / "shards")


def test_loading_copies_nothing(tiny_checkpoint):
    model = load(tiny_checkpoint)
    size = (tiny_checkpoint / SINGLE).stat().st_size
    assert all(p.untyped_storage().nbytes() == size for p in model.parameters())


def test_precision_by_part(tiny_checkpoint):
    def dtypes(**options):
        return {
            stage: next(m.parameters()).dtype
            for stage, m in load(tiny_checkpoint, **options).stages().items()
        }

    half = dtypes(dtype="bfloat16")
    assert half == dict.fromkeys(
        ("audio", "vision", "thinker", "talker"), torch.bfloat16
    ) | dict.fromkeys(("dit", "vocoder"), torch.float32)
    mixed = dtypes(dtype={"talker": "float16", "code2wav": "bfloat16"})
    assert (
        mixed["talker"] == torch.float16
        and mixed["vocoder"] == torch.bfloat16
        and mixed["audio"] == torch.float32
    )
    with pytest.raises(ConfigError, match="int4"):
        load(tiny_checkpoint, dtype="int4")
    with pytest.raises(ConfigError, match="walker"):
        load(tiny_checkpoint, dtype={"walker": "float32"})
    with pytest.raises(ConfigError, match="walker"):
        load(tiny_checkpoint, parts=("walker",))


def test_int8_leaves_voice_making_alone(tiny_checkpoint):
    model = load(tiny_checkpoint, dtype="int8")
    kinds = {
        stage: any(isinstance(m, Int8Linear) for m in module.modules())
        for stage, module in model.stages().items()
    }
    assert kinds == {
        "audio": True,
        "vision": True,
        "thinker": True,
        "talker": True,
        "dit": False,
        "vocoder": False,
    }


def test_placement(tiny_checkpoint):
    """Parts go where they are sent; the meta device stands for a second one here."""
    model = load(tiny_checkpoint, device={"talker": "cpu"}, dtype={"talker": "float32"})
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    with pytest.raises(ConfigError, match="ears"):
        load(tiny_checkpoint, device={"ears": "cpu"})


def test_one_error_lists_all_that_does_not_fit(damaged):
    def change(tensors):
        del tensors["talker.codec_head.weight"], tensors["thinker.audio_tower.conv1.bias"]
        tensors["thinker.lm_head.weight"] = tensors["thinker.lm_head.weight"][:, :-1].contiguous()
        tensors["thinker.model.layers.9.mlp.up_proj.weight"] = torch.zeros(2)
        tensors["elsewhere.weight"] = torch.zeros(2)
        tensors["talker.model.norm.weight"] = torch.ones(48, dtype=torch.int8)

    edit(damaged, change)
    with pytest.raises(WeightsError) as caught:
        load(damaged)
    text = str(caught.value)
    assert "\n" not in text
    for told in (
        "2 missing", "talker.codec_head.weight", "thinker.audio_tower.conv1.bias", "2 unexpected", "elsewhere.weight",
        "layers.9", "1 mis-shaped: thinker.lm_head.weight [1024, 63] expected [1024, 64]", "1 mis-typed: talker.model.norm",
    ):  # fmt: skip
        assert told in text


def test_old_buffers_are_ignored(damaged):
    edit(
        damaged,
        lambda t: t.update({"token2wav.code2wav_dit_model.rotary_embed.inv_freq": torch.ones(32)}),
    )
    load(damaged)


def test_names_of_newer_transformers_in_memory(damaged):
    """Some tools save the nested names of transformers 5 as they are in memory."""

    def change(tensors):
        for name in list(tensors):
            new = name.replace("thinker.audio_tower.", "thinker.model.audio_tower.")
            new = new.replace("thinker.model.layers.", "thinker.model.language_model.layers.")
            tensors[new] = tensors.pop(name)

    edit(damaged, change)
    same(load(damaged), random_model(cfg.tiny()))


def test_a_thinker_saved_alone(damaged):
    """Fine-tuning tools save the Thinker without the rest: its own config, names without the prefix."""
    raw = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(raw["thinker_config"]))

    def change(tensors):
        for name in list(tensors):
            tensor = tensors.pop(name)
            if name.startswith("thinker."):
                tensors[name.removeprefix("thinker.")] = tensor

    edit(damaged, change)
    model = load(damaged)
    assert model.parts == ("thinker",)
    same(model, random_model(cfg.tiny()))
    with pytest.raises(WeightsError, match="no talker"):
        load(damaged, parts=("talker",))


def test_tied_head(tmp_path, tiny_checkpoint):
    """A tied head is neither in the file nor twice in memory, and a file that holds it all the same opens."""
    from dataclasses import replace

    from thinktalk.weights.random import random_checkpoint

    tiny = cfg.tiny()
    text = replace(tiny.thinker.text, tie_embeddings=True)
    config = replace(tiny, thinker=replace(tiny.thinker, text=text))
    random_checkpoint(config, tmp_path / "tied")
    assert "thinker.lm_head.weight" not in load_file(tmp_path / "tied" / SINGLE)
    load(tmp_path / "tied")
    edit(tmp_path / "tied", lambda t: t.update({"thinker.lm_head.weight": torch.zeros(1024, 64)}))
    assert load(tmp_path / "tied").config.thinker.text.tie_embeddings


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", None),
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"model_type": "llama"}'),
        ("config.json", "{}"),
        ("config.json", '{"model_type": "qwen2_5_omni", "thinker_config": 7}'),
        (SINGLE, None),
        (SINGLE, ""),
        (SINGLE, "PK not a tensor file at all"),
        ("spk_dict.pt", None),
        ("spk_dict.pt", "rubbish"),
        ("generation_config.json", '{"talker_top_k": "many"}'),
        ("generation_config.json", '{"token2wav_method": "leapfrog"}'),
        ("preprocessor_config.json", '{"image_mean": 3}'),
    ],
)
def test_damaged_files(damaged, file, content):
    (damaged / file).unlink()
    if content is not None:
        (damaged / file).write_text(content)
    with pytest.raises(ThinktalkError) as caught:
        load(damaged)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_shard(damaged, share):
    data = (damaged / SINGLE).read_bytes()
    (damaged / SINGLE).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match=SINGLE):
        load(damaged)


def test_no_such_directory(tmp_path):
    with pytest.raises(WeightsError, match="no such directory"):
        load(tmp_path / "nowhere")


def test_saving_over_the_source(damaged):
    """The tensors are views of the files that are replaced: the old files live on as long as they are seen."""
    model = load(damaged)
    save(model, damaged, source=damaged, overwrite=True)
    same(load(damaged), random_model(cfg.tiny()))
    same(model, random_model(cfg.tiny()))


def test_a_copy_is_independent(tiny_checkpoint, tmp_path):
    """Training a loaded model in place does not write into its file."""
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    model = load(tmp_path / "copy")
    model.thinker.lm_head.weight.data.add_(1.0)
    same(load(tmp_path / "copy"), random_model(cfg.tiny()))
