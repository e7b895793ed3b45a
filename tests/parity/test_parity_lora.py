"""LoRA adapters as PEFT writes them: our merge of its files equals its own merge in memory."""

import copy
import json
import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reference import official_state_dict, tiny_reference
from safetensors.torch import load_file, save_file

from thinktalk import config as cfg
from thinktalk.errors import WeightsError
from thinktalk.weights.convert import convert
from thinktalk.weights.files import TensorFiles
from thinktalk.weights.random import random_voices
from thinktalk.weights.voices import save_voices

TOLERANCE = 1e-6  # relative; float32 products of rank 4 in two orders of summation


LAYERS = ["q_proj", "v_proj", "down_proj", "attn.q", "fc1", "codec_head", "thinker_to_talker_proj"]
CASES = {
    "ms-swift": dict(target_modules=LAYERS),
    "embeddings": dict(
        target_modules=["embed_tokens", "up_proj"], modules_to_save=["lm_head"], alone=True
    ),
    "rslora": dict(
        target_modules=LAYERS, use_rslora=True, alpha_pattern={"v_proj": 3}, rank_pattern={"fc1": 2}
    ),
    "biases": dict(target_modules=["q_proj"], lora_bias=True, bias="lora_only"),
    "LLaMA-Factory": dict(
        target_modules=["q_proj", "gate_proj", "lm_head", "out_proj", "attn.proj"], alone=True
    ),
}
QUERIES = dict(target_modules=["q_proj"])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("lora") / "base"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny_reference().save_pretrained(directory)
    save_voices(random_voices(cfg.tiny()), directory)
    return directory


def train(path, *, alone=False, **options):
    """An adapter with random B, saved by PEFT; returns the official tensors of PEFT's own merge."""
    model = copy.deepcopy(tiny_reference())
    inner = model.thinker if alone else model
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = get_peft_model(inner, LoraConfig(r=4, lora_alpha=12, **options))
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn(parameter.shape))
        tuned.save_pretrained(path)
        merged = tuned.merge_and_unload()
    if alone:
        model.thinker = merged
    return official_state_dict(model)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """name -> the folder of its adapter, and the tensors of PEFT's own merge; made once."""
    made = {}

    def of(name):
        if name not in made:
            path = tmp_path_factory.mktemp("adapter") / "adapter"
            made[name] = path, train(path, **CASES.get(name, QUERIES))
        return made[name]

    return of


@pytest.fixture
def adapter(trained, tmp_path):
    """adapter(name) puts a copy into tmp_path / "adapter" and returns the tensors of PEFT's own merge."""

    def of(name):
        path, expected = trained(name)
        shutil.copytree(path, tmp_path / "adapter")
        return expected

    return of


def near(directory, expected) -> None:
    files = TensorFiles(directory)
    assert set(files) == expected.keys()
    for name in files:
        ours, theirs = files.read(name), expected[name]
        assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max(), name


@pytest.mark.parametrize("case", CASES)
def test_merging_is_pefts(base, adapter, tmp_path, case):
    expected = adapter(case)
    before = official_state_dict(tiny_reference())
    moved = [name for name, tensor in expected.items() if not torch.equal(tensor, before[name])]
    assert moved  # the fixture: the adapter does change the model
    report = convert(base, tmp_path / "merged", lora=[tmp_path / "adapter"])
    near(tmp_path / "merged", expected)
    assert report["merged"] == len(moved)


def test_a_wrong_scale_is_seen(base, adapter, tmp_path):
    """Planted fault: alpha read as 12.1 instead of 12."""
    expected = adapter("ms-swift")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps(config | {"lora_alpha": 12.1})
    )
    convert(base, tmp_path / "merged", lora=[tmp_path / "adapter"])
    with pytest.raises(AssertionError):
        near(tmp_path / "merged", expected)


def test_names_of_older_transformers(base, adapter, tmp_path):
    """Before transformers 5 the language model was thinker.model.layers and the encoders stood beside it."""
    expected = adapter("ms-swift")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    renamed = {}
    for name, tensor in load_file(path).items():
        name = name.replace("thinker.model.language_model.", "thinker.model.")
        renamed[
            name.replace("thinker.model.visual", "thinker.visual").replace(
                "thinker.model.audio", "thinker.audio"
            )
        ] = tensor
    assert renamed.keys() != load_file(path).keys()
    save_file(renamed, path)
    convert(base, tmp_path / "merged", lora=[tmp_path / "adapter"])
    near(tmp_path / "merged", expected)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"trainable_token_indices": [1]}, "tokens"),
        ({"lora_alpha": "much"}, "lora_alpha"),
    ],
)
def test_what_cannot_be_merged_is_refused(base, adapter, tmp_path, change, told):
    adapter("queries")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WeightsError, match=told):
        convert(base, tmp_path / "merged", lora=[tmp_path / "adapter"])
    assert not (tmp_path / "merged").exists()


def test_adapters_of_other_models(base, adapter, tmp_path):
    adapter("queries")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    good = load_file(path)
    name = next(n for n in good if n.endswith("lora_B.weight"))
    for change, told in (
        ({name: torch.zeros(7, 4)}, "another size"),
        ({name: torch.zeros(64, 5)}, "multiply"),
        ({"base_model.model.roberta.q_proj.lora_A.weight": torch.zeros(4, 64)}, "fit no layer"),
        ({name.replace("layers.0", "layers.70"): good[name].clone()}, "fit no layer"),
        ({name: torch.full_like(good[name], float("nan"))}, "NaN"),
    ):
        save_file(good | change, path)
        with pytest.raises(WeightsError, match=told):
            convert(base, tmp_path / "merged", lora=[tmp_path / "adapter"])
    save_file({n: t for n, t in good.items() if n != name}, path)
    with pytest.raises(WeightsError, match="fit no layer"):
        convert(base, tmp_path / "merged", lora=[tmp_path / "adapter"])
    with pytest.raises(WeightsError, match="no such directory"):
        convert(base, tmp_path / "merged", lora=[tmp_path / "nowhere"])
    save_file(
        {n.replace("thinker.model.language_model", "talker.model"): t for n, t in good.items()},
        path,
    )
    with pytest.raises(WeightsError, match="convert the part"):
        convert(base, tmp_path / "merged", parts=["thinker"], lora=[tmp_path / "adapter"])
