"""The first checkpoint: from nothing, and from random tiny Qwen2.5 and Whisper directories; transformers opens it."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    Qwen2_5OmniForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from thinktalk.cli.main import main
from thinktalk.config import tiny
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.messages import Embedded
from thinktalk.prompt import Tokenizer
from thinktalk.recipes import init as recipe
from thinktalk.training.init import first_checkpoint, mute_voices, texts_of
from thinktalk.weights import hf
from thinktalk.weights.tokenizer import build_tokenizer
from thinktalk.weights.wav2code import load_tokenizer


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """Checkpoints of tiny's sizes; the vocabulary is 700 byte pairs, as tiny's."""
    qwen, whisper = tmp_path_factory.mktemp("qwen"), tmp_path_factory.mktemp("whisper")
    torch.manual_seed(1)
    rope = dict(rope_type="default", rope_theta=1e6)
    text = Qwen2Config(
        vocab_size=900, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, rope_parameters=rope,
    )  # fmt: skip
    ears = WhisperConfig(
        vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=128, max_source_positions=100,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Qwen2ForCausalLM(text).save_pretrained(qwen)
        WhisperForConditionalGeneration(ears).save_pretrained(whisper)
    build_tokenizer(tiny(), qwen, ["another corpus than the page of our own, corpus, corpus"])
    return {"thinker": qwen, "audio": whisper}


def test_from_nothing_by_command(tmp_path, capsys):
    assert main(["train", "init", "--out", str(tmp_path), "--set", 'voices=["Ada","Bob"]', "--json"]) == 0  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    model = hf.load(told["model"])
    assert set(model.voices) == {"Ada", "Bob", "default"} and model.voices["default"].name == "Ada"
    assert len({v.bos_token for v in model.voices.values()}) == 2
    assert model.config == recipe.tiny() and load_tokenizer(told["model"]).config.num_codes == 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Qwen2_5OmniForConditionalGeneration.from_pretrained(told["model"])
    assert model.thinker is not None and model.dit is not None
    assert torch.equal(theirs.thinker.lm_head.weight, model.thinker.lm_head.weight)


@torch.no_grad()
def test_weights_to_start_from(tmp_path):
    """The first loss is that of a guess, every layer is the identity, and the flow's velocity is zero."""
    first_checkpoint(recipe.tiny(), tmp_path / "a", seed=5)
    model = hf.load(tmp_path / "a")
    thinker, dit = model.thinker, model.dit
    assert thinker is not None and dit is not None
    ids = torch.arange(20)[None]
    embedded = Embedded(thinker.embed(ids), torch.arange(20).expand(1, 3, -1))
    hidden = thinker(embedded)
    assert hidden.square().mean().sqrt() == pytest.approx(1, abs=0.05)
    assert torch.allclose(hidden, thinker.norm(thinker.embed(ids)), atol=1e-6)
    loss = torch.nn.functional.cross_entropy(thinker.logits(hidden)[0], ids[0])
    assert float(loss) == pytest.approx(math.log(1024), abs=0.02)
    assert not dit.output.weight.any() and not dit.layers[0].modulation.weight.any()
    assert (
        dit.layers[0].attn.o.weight.std() > 0.05
    )  # planted fault: closed gates before zeros never open
    first_checkpoint(recipe.tiny(), tmp_path / "b", seed=5)
    assert (tmp_path / "a/talker.safetensors").read_bytes() == (tmp_path / "b/talker.safetensors").read_bytes()  # fmt: skip
    first_checkpoint(recipe.tiny(), tmp_path / "b", seed=6)
    assert (tmp_path / "a/talker.safetensors").read_bytes() != (tmp_path / "b/talker.safetensors").read_bytes()  # fmt: skip


def test_from_other_models(sources, tmp_path):
    copied = first_checkpoint(tiny(), tmp_path / "m", sources=sources, dtype=torch.bfloat16)
    model = hf.load(tmp_path / "m")
    assert copied["thinker"] == len(model.thinker.state_dict())
    qwen = Qwen2ForCausalLM.from_pretrained(sources["thinker"])
    for ours, theirs in (
        (model.thinker.layers[2].mlp.up.weight, qwen.model.layers[2].mlp.up_proj.weight),
        (model.thinker.embed.weight[:900], qwen.model.embed_tokens.weight),
    ):
        assert torch.equal(ours, theirs.bfloat16())
    words = Tokenizer.load(tmp_path / "m", config=tiny().thinker)
    assert words.encode("another corpus") == Tokenizer.load(sources["thinker"], config=tiny().thinker).encode("another corpus")  # fmt: skip
    added = json.loads((tmp_path / "m" / "tokenizer.json").read_text())["added_tokens"]
    assert tiny().thinker.ids.audio in [t["id"] for t in added if t["content"] == "<|AUDIO|>"]


def test_mistakes_are_told(sources, tmp_path):
    with pytest.raises(ConfigError, match="source of 'talker': expected one of thinker, vision"):
        first_checkpoint(tiny(), tmp_path / "m", sources={"talker": tmp_path})
    text = replace(tiny().thinker.text, num_layers=4)
    deeper = replace(tiny().thinker, text=text)
    with pytest.raises(ConfigError, match="its settings differ"):
        first_checkpoint(replace(tiny(), thinker=deeper), tmp_path / "m", sources=sources)
    with pytest.raises(WeightsError, match="has 700 tokens before the special ones, expected 600"):
        first_checkpoint(tiny(base=600), tmp_path / "m", sources=sources)
    with pytest.raises(ConfigError, match="98 voices: expected 1 to 97"):
        mute_voices(tiny(), [str(i) for i in range(98)])
    assert not list(tmp_path.iterdir())


def test_texts_of_files_and_shards(tmp_path):
    from thinktalk.data.shards import ShardWriter

    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    records = [
        {"text": "three"},
        {"messages": [{"role": "user", "content": "four"}, {"role": "assistant", "content": [{"type": "text", "text": "five"}]}]},
    ]  # fmt: skip
    with ShardWriter(tmp_path / "s") as writer:
        for key, record in enumerate(records):
            writer.write(str(key), {"json": json.dumps(record).encode()})
    found = list(texts_of([str(tmp_path / "a.txt"), str(tmp_path / "s*.tar")]))
    assert found == ["one", "two", "three", "four", "five"]
    assert list(texts_of([str(tmp_path / "a.txt")], limit=1)) == ["one"]
