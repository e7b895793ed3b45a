"""Codes into shards: whose, of what, resumed, refused; everything else stays byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sample_house import record, tone

from thinktalk.config import Wav2CodeConfig
from thinktalk.data.answers import Answers, spoken_sources
from thinktalk.data.coding import code_shards, fingerprint
from thinktalk.data.samples import parse
from thinktalk.data.shards import ShardWriter, scan
from thinktalk.errors import InputError
from thinktalk.layers.mel import log_mel
from thinktalk.wav2code.encoder import SpeechTokenizer

CONFIG = Wav2CodeConfig(width=16, num_layers=1, num_heads=2, ffn_width=16)

DIALOGUE = {
    "messages": [
        {"role": "user", "content": [{"type": "audio", "audio": "question.wav"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "It is four."}]},
    ],
    "text": "What is two and two?", "voice": "voice1", "seconds": 0.5,
    "answer_voice": "voice0", "answer_seconds": 0.7, "kept": [1],
}  # fmt: skip


def make(seed: int = 0) -> SpeechTokenizer:
    torch.manual_seed(seed)
    tokenizer = SpeechTokenizer(CONFIG).eval()
    tokenizer.conv1.weight.data.mul_(
        30
    )  # random ears hardly hear: without it all tones get the same codes
    return tokenizer


@pytest.fixture
def shards(tmp_path) -> Path:
    folder = tmp_path / "shards"
    with ShardWriter(folder / "a") as writer:
        plain = {k: v for k, v in record(1).items() if k != "codes"}
        writer.write("000", {"json": json.dumps(plain).encode(), "wav": tone(0.5)})
        members = {"question.wav": tone(0.5, hertz=300), "answer.wav": tone(0.7, hertz=500)}
        writer.write("001", {"json": json.dumps(DIALOGUE).encode(), **members})
    with ShardWriter(folder / "b") as writer:
        bell = {"messages": [{"role": "user", "content": [{"type": "audio", "audio": "wav"}]}, {"role": "assistant", "content": "A bell."}], "seconds": 0.5}  # fmt: skip
        writer.write("000", {"json": json.dumps(bell).encode(), "wav": tone(0.5, hertz=900)})
        writer.write("001", {"json": json.dumps(record(2)).encode(), "wav": b"no sound at all"})
    return folder


def read(path: Path) -> dict[str, tuple[dict, dict]]:
    found = {}
    for entry in scan(path).entries:
        members = entry.read()
        found[entry.key] = json.loads(members.pop("json")), members
    return found


def test_all_speech_gets_its_codes_and_nothing_else_changes(shards, tmp_path):
    tokenizer = make()
    done = code_shards(tokenizer, str(shards), tmp_path / "out")
    assert [Path(p).name for p in done.paths] == ["a-00000.tar", "b-00000.tar"]
    assert (done.samples, done.kept, len(done.faults)) == (3, 0, 1)
    assert "b-00000.tar/001" in str(done.faults[0])
    before, after = read(shards / "a-00000.tar"), read(tmp_path / "out/a-00000.tar")
    assert list(before) == list(after)
    for key, (told, members) in after.items():
        assert members == before[key][1]
        new = {"codes", "answer_codes", "codes_by"}
        assert {k: v for k, v in told.items() if k not in new} == before[key][0]
        assert told["codes_by"] == fingerprint(tokenizer)
    # each recording as if it were alone
    for entry in scan(shards / "a-00000.tar").entries:
        sample, got = parse(entry), after[entry.key][0]
        names = {"codes": None, **({"answer_codes": "answer.wav"} if entry.key == "001" else {})}
        for name, member in names.items():
            mel = log_mel(torch.from_numpy(sample.pcm(16_000, member=member))[None])[0]
            assert got[name] == tokenizer.encode([mel])[0].tolist()
    assert after["001"][0]["codes"] != after["001"][0]["answer_codes"][:12]
    others = read(tmp_path / "out/b-00000.tar")
    assert "codes" not in others["000"][0]  # a bell says nothing
    assert others["001"][0]["codes"] == record_codes(2)  # what cannot be decoded stays as it was


def record_codes(number: int) -> list[int]:
    return record(number)["codes"]


def test_it_goes_on_and_keeps_tokenizers_apart(shards, tmp_path):
    out = tmp_path / "out"
    code_shards(make(), str(shards / "a-00000.tar"), out)
    stamp = (out / "a-00000.tar").stat().st_mtime_ns
    again = code_shards(make(), str(shards), out)
    assert (again.kept, len(again.paths)) == (1, 2)
    assert (out / "a-00000.tar").stat().st_mtime_ns == stamp
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    with pytest.raises(InputError, match=r"a-00000.tar: has codes of the tokenizer \w+, expected \w+; move it away"):  # fmt: skip
        code_shards(make(1), str(shards), out)
    with pytest.raises(InputError, match="is where the shards lie"):
        code_shards(make(), str(shards), shards)


def test_a_shard_that_fails_is_not_there(shards, tmp_path, monkeypatch):
    tokenizer = make()
    monkeypatch.setattr(tokenizer, "encode", lambda mels: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        code_shards(tokenizer, str(shards), tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_answer_is_a_sample_of_its_own(shards):
    (answers,) = [Answers(str(shards))]
    (entry,) = answers.entries
    answer, question = parse(entry), parse(scan(shards / "a-00000.tar").entries[1])
    assert (answer.text, answer.voice, answer.seconds) == ("It is four.", "voice0", 0.7)
    assert len(answer.pcm(16_000)) == round(0.7 * 16_000)
    # and the dialogue's first sound is the question, whatever the order of names
    assert len(question.pcm(16_000)) == 8_000 and question.voice == "voice1"
    assert answer.where != question.where
    speech, spoken = spoken_sources(str(shards))
    assert len(speech) == 3 and len(spoken) == 1  # a bell is no speech
    assert speech.weight == pytest.approx(speech.costs.sum())
    assert spoken.weight == pytest.approx(0.7)
    with pytest.raises(InputError, match="no sample can be used"):
        spoken_sources(str(shards), keep=lambda record: False)
