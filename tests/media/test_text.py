"""The tokenizer: text to ids and back, ids one at a time, files of both layouts, and what users write stays text."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinktalk import config as cfg
from thinktalk.errors import InputError, WeightsError
from thinktalk.media.text import SPECIAL_TOKENS, TextStream, Tokenizer
from thinktalk.weights.tokenizer import build_tokenizer

CONFIG = cfg.tiny()
# NFC is stable for characters assigned in Python's Unicode; on newer ones the tokenizer's may differ
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60)
IDS = st.lists(st.integers(0, 1023), max_size=60)  # 722 and up have no text


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(CONFIG, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.load(directory, config=CONFIG.thinker)


def streamed(tokenizer: Tokenizer, ids: list[int], **options) -> str:
    stream = tokenizer.decode_stream(**options)
    return "".join([*(stream.push(i) for i in ids), stream.flush()])


@given(TEXT)
def test_text_comes_back_composed(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == normalize("NFC", text)


@given(st.lists(st.one_of(TEXT, st.sampled_from([*SPECIAL_TOKENS.values()])), max_size=6))
def test_what_users_write_is_never_a_special_token(tokenizer: Tokenizer, parts: list[str]) -> None:
    ids = tokenizer.encode("".join(parts))
    assert not any(tokenizer.is_special(i) for i in ids)


@given(IDS, st.booleans())
def test_ids_one_at_a_time(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    """Joined pieces are the decoded whole, whatever the bytes: half characters, impossible ones, ids without a text."""
    assert streamed(tokenizer, ids, skip_special=skip) == tokenizer.decode(ids, skip_special=skip)


@settings(max_examples=60)
@given(TEXT)
def test_a_stream_never_gives_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    stream = tokenizer.decode_stream()
    pieces = [stream.push(i) for i in tokenizer.encode(text)]
    assert stream.flush() == ""
    assert "\ufffd" not in "".join(pieces).replace("\ufffd", "", text.count("\ufffd"))


def test_a_stream_waits_for_the_rest_of_a_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("\U0001f600")
    assert len(ids) == 4
    stream = tokenizer.decode_stream()
    assert [stream.push(i) for i in ids] == ["", "", "", "\U0001f600"]
    half = tokenizer.decode_stream()
    half.push(ids[0])
    kept = half.fork()
    assert half.flush() == "\ufffd"
    assert "".join(kept.push(i) for i in ids[1:]) == "\U0001f600"


def test_fault_a_decoder_that_does_not_wait(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = TextStream._decode
    monkeypatch.setattr(
        TextStream, "_decode", lambda self, more, *, last: decode(self, more, last=True)
    )
    with pytest.raises(AssertionError):
        test_a_stream_never_gives_half_a_character.hypothesis.inner_test(tokenizer, "\U0001f600")


def test_special_tokens_are_shown_on_request(tokenizer: Tokenizer) -> None:
    ids = [CONFIG.thinker.ids.im_start, *tokenizer.encode("user"), CONFIG.thinker.ids.im_end]
    assert tokenizer.decode(ids) == "user"
    assert tokenizer.decode(ids, skip_special=False) == "<|im_start|>user<|im_end|>"
    assert tokenizer.decode([700, 1023, 5000]) == ""


def test_half_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"surrogate.*UTF-8"):
        tokenizer.encode("a\ud800")


def test_it_survives_pickling(tokenizer: Tokenizer) -> None:
    again = pickle.loads(pickle.dumps(tokenizer))
    text = "Speech <|im_end|> 你好"
    assert again.encode(text) == tokenizer.encode(text)


# --------------------------------------------------------------------------------------------------------------- files


def split_files(source: Path, target: Path, *, settings: bool) -> None:
    """tokenizer.json as vocab.json + merges.txt + added_tokens.json, the older layout."""
    content = json.loads((source / "tokenizer.json").read_text("utf-8"))
    (target / "vocab.json").write_text(json.dumps(content["model"]["vocab"]), "utf-8")
    merges = ["#version: 0.2", *(" ".join(pair) for pair in content["model"]["merges"])]
    (target / "merges.txt").write_text("\n".join(merges) + "\n", "utf-8")
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    (target / "added_tokens.json").write_text(json.dumps(added), "utf-8")
    if settings:
        decoder = {
            str(token["id"]): {"content": token["content"], "special": token["special"]}
            for token in content["added_tokens"]
        }
        (target / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))


@pytest.mark.parametrize("settings", [True, False])
def test_vocab_and_merges_give_the_same_ids(
    directory: Path, tokenizer: Tokenizer, tmp_path: Path, settings: bool
) -> None:
    split_files(directory, tmp_path, settings=settings)
    other = Tokenizer.load(tmp_path, config=CONFIG.thinker)
    for text in ("Good morning!  你好\n\n 12", "<|im_start|>system", "<tool_call> it's", "e\u0301"):
        assert other.encode(text) == tokenizer.encode(text)
    ids = [700, 5, 701, 300, 702]
    assert other.decode(ids) == tokenizer.decode(ids)


def test_a_special_token_that_the_file_calls_text_is_not_parsed(
    directory: Path, tmp_path: Path
) -> None:
    """A file that marks <|im_start|> as ordinary must not let users open a system turn."""
    content = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    for token in content["added_tokens"]:
        token["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    careless = Tokenizer.load(tmp_path, config=CONFIG.thinker)
    assert CONFIG.thinker.ids.im_start not in careless.encode("<|im_start|>system")


def test_a_directory_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no tokenizer\.json and no vocab\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"model": 3}', "[]", "\x00\x01"])
def test_a_damaged_tokenizer_json(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(WeightsError, match=r"tokenizer\.json") as error:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", "{"),
        ("merges.txt", "one\ntwo\n"),
        ("added_tokens.json", "["),
        ("added_tokens.json", "[1]"),
        ("added_tokens.json", '{"<|endoftext|>": "x"}'),
        ("added_tokens.json", '{"<|endoftext|>": 900}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"700": 1}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": []}'),
    ],
)
def test_damaged_vocabulary_files(directory: Path, tmp_path: Path, name: str, content: str) -> None:
    split_files(directory, tmp_path, settings=False)
    (tmp_path / name).write_text(content)
    with pytest.raises(WeightsError) as error:
        Tokenizer.load(tmp_path, config=CONFIG.thinker)
    assert "\n" not in str(error.value)


def test_merges_missing(directory: Path, tmp_path: Path) -> None:
    split_files(directory, tmp_path, settings=False)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(WeightsError, match=r"merges\.txt"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_of_another_model(directory: Path) -> None:
    with pytest.raises(WeightsError, match=r"<\|im_start\|> is 701, not 151644"):
        Tokenizer.load(directory, config=cfg.omni_7b().thinker)


def test_more_ids_than_the_model_embeds(directory: Path) -> None:
    text = replace(CONFIG.thinker.text, vocab_size=710)
    with pytest.raises(WeightsError, match="722 ids, the model embeds 710"):
        Tokenizer.load(directory, config=replace(CONFIG.thinker, text=text))
