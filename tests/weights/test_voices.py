"""Voices: the official pickle, our own file, and hostile versions of both."""

import io
import os
import pickle
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thinktalk import config as cfg
from thinktalk.code2wav.speaker import Voice
from thinktalk.errors import ConfigError, InputError, ThinktalkError, WeightsError
from thinktalk.weights.random import random_voices
from thinktalk.weights.voices import (
    ADDED,
    OFFICIAL,
    add_voice,
    find_voice,
    load_voices,
    next_voice_token,
    read_voice_file,
    remove_voice,
    save_voices,
)  # fmt: skip


@pytest.fixture
def voices():
    return random_voices(cfg.tiny())


def same(left, right):
    assert left.bos_token == right.bos_token
    assert torch.equal(left.cond, right.cond) and torch.equal(left.ref_mel, right.ref_mel)


def test_there_and_back(voices, tmp_path):
    save_voices(voices, tmp_path)
    again = load_voices(tmp_path, cfg.tiny())
    assert list(again) == ["Chelsie", "Ethan", "default"]
    for name, voice in voices.items():
        same(again[name], voice)
    assert again["default"] is again["Chelsie"]
    save_voices(again, tmp_path)
    assert list(torch.load(tmp_path / OFFICIAL, weights_only=True)) == ["Chelsie", "Ethan"]


def test_default_is_the_first_where_there_is_no_chelsie(voices, tmp_path):
    save_voices({"Ethan": voices["Ethan"]}, tmp_path)
    assert load_voices(tmp_path)["default"].name == "Ethan"


def test_added_voices(voices, tmp_path):
    save_voices(voices, tmp_path)
    mine = Voice(
        name="Ada", cond=voices["Ethan"].cond * 2, ref_mel=voices["Ethan"].ref_mel, bos_token=929
    )
    add_voice(tmp_path / ADDED, mine, config=cfg.tiny())
    same(load_voices(tmp_path)["Ada"], mine)
    with pytest.raises(InputError, match="already"):
        add_voice(tmp_path / ADDED, mine)
    add_voice(tmp_path / ADDED, mine, replace=True)
    with pytest.raises(InputError, match="Chelsie"):
        remove_voice(tmp_path / ADDED, "Chelsie")
    remove_voice(tmp_path / ADDED, "Ada")
    assert "Ada" not in load_voices(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [OFFICIAL, ADDED]


def test_a_users_own_file_is_read_last(voices, tmp_path):
    save_voices(voices, tmp_path)
    mine = Voice(
        name="default", cond=voices["Ethan"].cond, ref_mel=voices["Ethan"].ref_mel, bos_token=5
    )
    add_voice(tmp_path / "mine" / "voices.safetensors", mine)
    assert (
        load_voices(tmp_path, extra=tmp_path / "mine" / "voices.safetensors")["default"].bos_token
        == 5
    )


def test_find(voices):
    assert find_voice(voices, "ethan").name == "Ethan"
    with pytest.raises(InputError, match="have Chelsie, Ethan"):
        find_voice(voices, "Nobody")


def test_none_at_all(tmp_path):
    with pytest.raises(WeightsError, match=OFFICIAL):
        load_voices(tmp_path)


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch /tmp/thinktalk_was_here",))


def store(value, path):
    torch.save(value, path / OFFICIAL)


GOOD = dict(cond=torch.randn(1, 192), ref_mel=torch.randn(1, 40, 80), bos_token=3)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_hostile_pickle_is_not_run(tmp_path, legacy):
    torch.save(
        {"Chelsie": {**GOOD, "bos_token": Hostile()}},
        tmp_path / OFFICIAL,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(WeightsError, match="nothing in it was run"):
        load_voices(tmp_path)
    (tmp_path / OFFICIAL).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(WeightsError, match="nothing in it was run"):
        load_voices(tmp_path)
    assert not os.path.exists("/tmp/thinktalk_was_here")


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(
        tmp_path / OFFICIAL, "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as archive:
        piece = bytes(1 << 20)
        for part in range(257):
            archive.writestr(f"x/data/{part}", piece)
    with pytest.raises(WeightsError, match="limit"):
        load_voices(tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        "Chelsie",
        {"Chelsie": 3},
        {"Chelsie": {"cond": GOOD["cond"]}},
        {7: GOOD},
        {"": GOOD},
        {"two\nlines": GOOD},
        {"x" * 65: GOOD},
        {"Chelsie": {**GOOD, "cond": torch.randn(1, 191)}},
        {"Chelsie": {**GOOD, "cond": torch.zeros(1).expand(1, 192)}},
        {"Chelsie": {**GOOD, "cond": torch.full((1, 192), float("nan"))}},
        {"Chelsie": {**GOOD, "cond": torch.zeros(1, 192, dtype=torch.int64)}},
        {"Chelsie": {**GOOD, "ref_mel": torch.randn(1, 40, 79)}},
        {"Chelsie": {**GOOD, "ref_mel": torch.randn(2, 40, 80)}},
        {"Chelsie": {**GOOD, "ref_mel": torch.randn(1, 3, 80)}},
        {"Chelsie": {**GOOD, "ref_mel": torch.zeros(1).expand(1, 1 << 40, 80)}},
        {"Chelsie": {**GOOD, "ref_mel": torch.full((1, 40, 80), float("inf"))}},
        {"Chelsie": {**GOOD, "ref_mel": torch.randn(1, 40, 80).to_sparse()}},
        {"Chelsie": {**GOOD, "bos_token": -1}},
        {"Chelsie": {**GOOD, "bos_token": 1024}},
        {"Chelsie": {**GOOD, "bos_token": 2.5}},
        {"Chelsie": {**GOOD, "bos_token": True}},
    ],
)  # fmt: skip
def test_what_is_no_voice(value, tmp_path):
    store(value, tmp_path)
    with pytest.raises(WeightsError) as caught:
        load_voices(tmp_path, cfg.tiny())
    assert "\n" not in str(caught.value)


def test_shapes_without_the_leading_one(tmp_path):
    store(
        {
            "Chelsie": {
                "cond": GOOD["cond"][0].half(),
                "ref_mel": GOOD["ref_mel"][0],
                "bos_token": torch.tensor(3),
            }
        },
        tmp_path,
    )
    voice = load_voices(tmp_path)["Chelsie"]
    assert (voice.cond.shape, voice.ref_mel.shape, voice.bos_token) == ((1, 192), (1, 40, 80), 3)
    assert voice.cond.dtype == torch.float32


@given(data=st.data())
def test_damaged_voice_files(data, tmp_path_factory):
    """Truncate or flip bytes of either format: a one-line error, or voices that pass every check."""
    directory = tmp_path_factory.mktemp("voices")
    save_voices(random_voices(cfg.tiny()), directory)
    add_voice(directory / ADDED, Voice(name="Ada", **GOOD))
    path = directory / data.draw(st.sampled_from([OFFICIAL, ADDED]))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, min(2000, len(content)) - 1))] = data.draw(
                st.integers(0, 255)
            )
    path.write_bytes(content)
    try:
        for voice in load_voices(directory, cfg.tiny()).values():
            assert voice.cond.isfinite().all()
    except ThinktalkError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_a_missing_voice_file(tmp_path):
    with pytest.raises(WeightsError, match="not there"):
        read_voice_file(tmp_path / "x.safetensors")
    buffer = io.BytesIO()
    torch.save({}, buffer)
    (tmp_path / "x.safetensors").write_bytes(buffer.getvalue())
    with pytest.raises(WeightsError):
        read_voice_file(tmp_path / "x.safetensors")


def test_a_new_voice_gets_a_token_of_its_own(voices):
    """Ethan has the first, Chelsie the third; new ones come between and after, until the vocabulary ends."""
    config = cfg.tiny()
    first = voices["Ethan"].bos_token
    for wanted in (first + 1, first + 3):
        token = next_voice_token(config, voices)
        assert token == wanted
        voices[f"new{token}"] = Voice(name="new", **{**GOOD, "bos_token": token})
    rest = range(first, config.thinker.text.vocab_size)
    full = {str(t): Voice(name="new", **{**GOOD, "bos_token": t}) for t in rest}
    with pytest.raises(ConfigError, match="vocabulary of 1024 is full"):
        next_voice_token(config, full)
