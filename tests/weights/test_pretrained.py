"""Packing a model to ship: int8, one file a stage, a stage replaced alone, limits, the card, and where nano is found."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import thinktalk
from thinktalk import config as cfg
from thinktalk.cli.main import main
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.layers.quant import Int8Linear
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.weights import pretrained
from thinktalk.weights.files import TensorFiles
from thinktalk.weights.hf import load, read_config
from thinktalk.weights.model import build
from thinktalk.weights.pretrained import MAX_BYTES, MAX_FILE_BYTES, pack, shipped
from thinktalk.weights.random import random_checkpoint
from thinktalk.weights.update import STAGES
from thinktalk.weights.wav2code import load_tokenizer, save_tokenizer

CONFIG = cfg.Wav2CodeConfig(width=64, num_layers=1, num_heads=2, ffn_width=64, pool=1)


def trained(directory: Path, seed: int) -> Path:
    """A checkpoint with every stage, the speech tokenizer too."""
    random_checkpoint(cfg.tiny(), directory, seed=seed)
    torch.manual_seed(seed)
    save_tokenizer(SpeechTokenizer(CONFIG), directory)
    return directory


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("first") / "model", seed=0)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("second") / "model", seed=1)


@pytest.fixture(scope="module")
def packed_once(first, tmp_path_factory):
    target = tmp_path_factory.mktemp("packed") / "nano"
    return pack(first, target), target


@pytest.fixture
def packed(packed_once, tmp_path):
    """A packed model to write into."""
    return shutil.copytree(packed_once[1], tmp_path / "nano")


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def floats(directory: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Every stage's tensors as float32."""
    model = load(directory, dtype="float32")
    states = {stage: module.state_dict() for stage, module in model.stages().items()}
    return states | {"wav2code": load_tokenizer(directory).state_dict()}


def test_one_file_a_stage_a_quarter_of_the_size(packed_once, first):
    report, target = packed_once
    assert {path.name for path in target.glob("*.safetensors")} == {f"{s}.safetensors" for s in STAGES}  # fmt: skip
    assert read_config(target) == read_config(first)
    whole = TensorFiles(first)
    small = TensorFiles(target)
    assert set(whole) == {name for name in small if not name.endswith(".scale")}
    for stage, part in report["parts"].items():
        assert part["bytes"] == (target / f"{stage}.safetensors").stat().st_size
        # rows of a normal matrix of 32 to 400 values are rounded by 0.6 to 0.9 % of their size
        assert 0.003 < part["int8_error"] < 0.012, stage
    floats_left = sum(e.nbytes for e in small.entries.values() if e.dtype != torch.int8)
    assert floats_left < 0.1 * sum(e.nbytes for e in whole.entries.values())
    assert report["bytes"] == sum(path.stat().st_size for path in target.iterdir())
    assert report["parameters"] == sum(e.nbytes for e in whole.entries.values()) // 4


def test_nano_fits_into_a_repository():
    """Counted without weights: a byte a number of a matrix, four of the rest and of each row's scale."""
    config = cfg.nano()
    modules = {**build(config).stages(), "wav2code": SpeechTokenizer(config.wav2code)}
    sizes = {}
    for stage, module in modules.items():
        shapes = [p.shape for p in module.parameters()]
        sizes[stage] = sum(s.numel() + 4 * s[0] if len(s) > 1 else 4 * s.numel() for s in shapes)
    assert sum(p.numel() for m in modules.values() for p in m.parameters()) < 40e6
    # headers, tokenizer, voices and card take well under a megabyte and a half
    assert max(sizes.values()) < MAX_FILE_BYTES - 1e5 and sum(sizes.values()) < MAX_BYTES - 1.5e6


def test_it_is_within_half_a_step_of_what_was_trained(packed_once, first):
    after = floats(packed_once[1])
    for stage, state in floats(first).items():
        for name, tensor in after[stage].items():
            told = state[name]
            if told.ndim < 2:
                assert torch.equal(tensor, told), (stage, name)
                continue
            step = told.flatten(1).abs().amax(1, keepdim=True) / 127
            # half a step of the row's loudest value, float32 rounding on top
            assert ((tensor - told).flatten(1).abs() <= 0.5001 * step).all(), (stage, name)


def test_it_answers_and_speaks(packed):
    omni = thinktalk.load(packed)  # no dtype: as stored
    assert any(isinstance(m, Int8Linear) for m in omni.model.thinker.modules())
    # the flow adds up many rounded steps: int8 on disk is float32 at work
    assert not any(isinstance(m, Int8Linear) for m in omni.model.dit.modules())
    options = {"greedy": True, "max_text_tokens": 3, "max_codes": 8}
    reply = omni.chat([{"role": "user", "content": "Hello!"}], flow_points=2, **options)
    assert len(reply.token_ids) == 3 and reply.audio is not None and reply.audio.any()


def test_the_same_weights_give_the_same_bytes(packed_once, packed, first):
    pack(packed, packed, overwrite=True)  # once rounded, rounding again changes nothing
    assert contents(packed) == contents(packed_once[1])
    pack(first, packed, overwrite=True)
    assert contents(packed) == contents(packed_once[1])


@pytest.fixture(scope="module")
def tensors(packed_once, second):
    """Those of the packed model, and of the checkpoint whose stages replace its own."""
    return floats(packed_once[1]), floats(second)


@pytest.mark.parametrize("stage", ["vision", "talker", "wav2code"])
def test_a_stage_is_replaced_alone(stage, packed, second, tensors):
    before, (old, new) = contents(packed), tensors
    report = pack(second, packed, stages=[stage])
    assert report["replaced"] == [stage]
    changed = {name for name, data in contents(packed).items() if before.get(name) != data}
    voices = {"spk_dict.pt"} if stage in ("talker", "dit") else set()
    assert changed - voices == {f"{stage}.safetensors", "README.md"}
    now = floats(packed)
    for other in STAGES:
        like = new if other == stage else old
        for name, tensor in now[other].items():
            # int8 is off by under a percent of a tensor's size, the other seed by more than all of it
            assert _gap(tensor, like[other][name]) < 0.02, (other, name)
            if other == stage and tensor.ndim > 1:
                assert _gap(tensor, old[other][name]) > 1


def _gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return 0.0 if torch.equal(a, b) else ((a - b).norm() / b.norm()).item()


def test_float16_where_it_is_heard(first, tmp_path):
    report = pack(first, tmp_path / "half", float16=["vocoder"])
    files = TensorFiles(tmp_path / "half")
    kinds = {name.split(".")[1]: e.dtype for name, e in files.entries.items() if name.endswith("conv1.weight") or "bigvgan" in name}  # fmt: skip
    assert kinds["code2wav_bigvgan_model"] == torch.float16
    assert report["parts"]["vocoder"]["int8_error"] == 0.0
    assert load(tmp_path / "half").vocoder.conv_pre.weight.dtype == torch.float32
    with pytest.raises(ConfigError, match="only dit and vocoder"):
        pack(first, tmp_path / "other", float16=["thinker"])


def test_the_card_keeps_words_and_renews_tables(packed, second):
    card = (packed / "README.md").read_text()
    assert "| `vision.safetensors` |" in card and "| in all |" in card
    (packed / "README.md").write_text(card.replace("# Model card", "# Nano \\1 by people"))
    pack(second, packed, stages=["vision"])
    now = (packed / "README.md").read_text()
    assert now.startswith("# Nano \\1 by people") and now.count("| in all |") == 1
    rows = lambda text: {l.split("|")[1]: l for l in text.splitlines() if l.startswith("| `")}  # noqa: E731
    differing = {name for name, row in rows(now).items() if rows(card)[name] != row}
    assert differing == {" `vision.safetensors` "}


def test_what_does_not_fit_changes_nothing(packed, second, tmp_path):
    before = contents(packed)
    config = cfg.tiny()
    t = config.thinker
    wide = replace(
        t, vision=replace(t.vision, out_width=32), audio=replace(t.audio, out_width=32), text=replace(t.text, width=32)
    )  # fmt: skip
    other = replace(config, thinker=wide, talker=replace(config.talker, input_width=32))
    random_checkpoint(other, tmp_path / "wide")
    for stage, said in (("vision", "out_width 32"), ("talker", "input_width 32")):
        with pytest.raises(ConfigError, match=said):
            pack(tmp_path / "wide", packed, stages=[stage])
    # sizes may differ where they meet no other stage: then it is no fault
    deep = replace(t, vision=replace(t.vision, depth=5))
    random_checkpoint(replace(config, thinker=deep), tmp_path / "deep")
    with pytest.raises(ConfigError, match="has no wav2code"):
        pack(tmp_path / "deep", packed, stages=["wav2code"])
    with pytest.raises(ConfigError, match="stage 'eyes' is unknown"):
        pack(second, packed, stages=["eyes"])
    with pytest.raises(WeightsError, match="not empty"):
        pack(second, packed)
    with pytest.raises(WeightsError, match="holds no packed model"):
        pack(second, tmp_path / "nothing", stages=["vision"])
    random_checkpoint(config, tmp_path / "plain")
    with pytest.raises(WeightsError, match="expected one file a stage"):
        pack(second, tmp_path / "plain", stages=["vision"])
    assert contents(packed) == before and not (tmp_path / "nothing").exists()
    pack(tmp_path / "deep", packed, stages=["vision"])
    assert load(packed).config.thinker.vision.depth == 5


@pytest.mark.parametrize(("limit", "said"), [("MAX_FILE_BYTES", "dit.safetensors"), ("MAX_BYTES", "nano: would")])  # fmt: skip
def test_too_large_is_refused(limit, said, packed, second, monkeypatch):
    before = contents(packed)
    monkeypatch.setattr(pretrained, limit, 300_000)
    with pytest.raises(WeightsError, match="would take") as error:
        pack(second, packed, overwrite=True)
    assert said in str(error.value) or limit == "MAX_FILE_BYTES"
    assert contents(packed) == before


def test_nano_is_found_where_it_is_shipped(packed, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(packed, tmp_path / "installed" / "nano")
    shutil.rmtree(packed)
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path / "empty")
    assert shipped("nano") is None
    with pytest.raises(WeightsError, match="not part of this version"):
        thinktalk.load()
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path / "installed")
    assert thinktalk.load(parts=("thinker",)).directory == tmp_path / "installed" / "nano"
    # every command takes it when no model is named
    assert main(["voices", "list", "--json"]) == 0
    assert main(["chat", "--text", "Hi", "--no-speech", "--max-text-tokens", "2", "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[1]["text_tokens"] == 2


def test_the_command(packed, second, capsys):
    words = ["convert", str(second), str(packed), "--pack", "--json"]
    assert main([*words, "--stages", "vision,talker"]) == 0
    assert json.loads(capsys.readouterr().out)["replaced"] == ["vision", "talker"]
    assert main(words) == 2 and main([*words, "--int8", "thinker"]) == 2
    assert main(["convert", str(second), str(packed) + "2", "--stages", "vision"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and "--int8: not together with --pack" in errors[1]
    assert "--stages: only with --pack" in errors[2]
