"""The small tokenizer: official files, ids at the configuration's places, the same bytes every time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from thinktalk import config as cfg
from thinktalk.errors import ConfigError
from thinktalk.media.text import SPECIAL_TOKENS
from thinktalk.weights.tokenizer import ADDED_TOKENS, SAMPLE_TEXT, build_tokenizer


@pytest.mark.parametrize("config", [cfg.tiny(), cfg.nano()], ids=["tiny", "nano"])
def test_special_tokens_stand_where_the_configuration_says(
    config: cfg.OmniConfig, tmp_path: Path
) -> None:
    tokenizer = build_tokenizer(config, tmp_path)
    ids = config.thinker.ids
    names = list(SPECIAL_TOKENS)
    shown = tokenizer.decode([getattr(ids, name) for name in names], skip_special=False)
    assert shown == "".join(SPECIAL_TOKENS[name] for name in names)
    assert tokenizer.vocab_size == ids.pad + len(ADDED_TOKENS) <= config.thinker.text.vocab_size


def test_the_official_order() -> None:
    official = cfg.TokenIds()
    for name, content in SPECIAL_TOKENS.items():
        assert 151643 + ADDED_TOKENS.index(content) == getattr(official, name)


def test_the_same_corpus_gives_the_same_files(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        build_tokenizer(cfg.tiny(), tmp_path / folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]  # fmt: skip


def test_the_corpus_decides_the_merges(tmp_path: Path) -> None:
    ours = build_tokenizer(cfg.tiny(), tmp_path / "ours")
    other = build_tokenizer(cfg.tiny(), tmp_path / "other", ["zyx zyx zyx zyx"])
    assert len(ours.encode(SAMPLE_TEXT)) < len(other.encode(SAMPLE_TEXT))
    assert len(other.encode("zyx zyx")) == 2
    assert other.vocab_size == ours.vocab_size  # fillers where merges ran out
    assert other.decode(other.encode(SAMPLE_TEXT)) == SAMPLE_TEXT


def test_every_id_of_a_text_is_below_the_special_ones(tmp_path: Path) -> None:
    config = cfg.tiny()
    tokenizer = build_tokenizer(config, tmp_path)
    assert max(tokenizer.encode(SAMPLE_TEXT + "".join(map(chr, range(32, 0x400))))) < 700


def test_the_settings_name_the_media_tokens(tmp_path: Path) -> None:
    build_tokenizer(cfg.tiny(), tmp_path)
    content = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert content["extra_special_tokens"]["audio_token"] == "<|AUDIO|>"
    assert content["eos_token"] == "<|im_end|>"
    assert "add_generation_prompt" in content["chat_template"]


def test_ids_in_another_order_are_refused(tmp_path: Path) -> None:
    config = cfg.tiny()
    ids = replace(config.thinker.ids, image=config.thinker.ids.video, video=config.thinker.ids.image)  # fmt: skip
    with pytest.raises(ConfigError, match=r"ids\.image 713 must be 712"):
        build_tokenizer(replace(config, thinker=replace(config.thinker, ids=ids)), tmp_path)


def test_fewer_ids_than_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ids\.pad 200 must be at least 256"):
        build_tokenizer(cfg.tiny(base=200), tmp_path)
