"""Recordings with transcripts become shards: every layout, split by sentence, what cannot be used by name."""

from __future__ import annotations

import pytest
from sample_house import tone

from thinktalk.data.checking import check_shards
from thinktalk.data.making import make_corpus
from thinktalk.data.mixture import expand
from thinktalk.data.prompts import split_of
from thinktalk.data.samples import parse
from thinktalk.data.shards import scan
from thinktalk.errors import InputError


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "corpus"
    for folder in ("anna", "lj/wavs", "libri"):
        (root / folder).mkdir(parents=True)
    for i in range(6):
        (root / f"anna/{i}.wav").write_bytes(tone(0.2 + i / 50))
        (root / f"anna/{i}.txt").write_text(f"Sentence number {i}.\n", encoding="utf-8")
    for i in range(3):
        (root / f"lj/wavs/LJ{i}.wav").write_bytes(tone(0.3))
        (root / f"libri/1-2-{i}.flac").write_bytes(tone(0.3, form="FLAC"))
    (root / "lj/metadata.csv").write_text("LJ0|No. 1|Number one\nLJ1|Two\nLJ2||\nLJ9|Nine|Nine\n")
    (root / "libri/1-2.trans.txt").write_text("1-2-0 HELLO THERE\n1-2-1 YES\n1-2-2\n")
    (root / "anna/7.wav").write_bytes(b"RIFF, but not really")
    (root / "anna/7.txt").write_text("Broken.")
    (root / "anna/8.txt").write_text("Nobody says this.")
    (root / "anna/9.wav").write_bytes(tone(0.2))
    (root / "anna/9.lab").write_text(" \n")
    return root


def samples(out) -> dict[str, tuple[str, str | None]]:
    """text -> (split, voice)"""
    return {
        s.text: (path.rpartition("/")[2].partition("-")[0], s.voice)
        for path in expand(out)
        for s in map(parse, scan(path).entries)
    }


def test_every_layout_is_read(corpus, tmp_path):
    made = make_corpus(corpus, tmp_path / "out")
    found = samples(tmp_path / "out")
    voices = {text: voice for text, (_, voice) in found.items()}
    assert voices == {
        **{f"Sentence number {i}.": "anna" for i in range(6)},
        "Number one": "lj", "Two": "lj", "HELLO THERE": "libri", "YES": "libri",
    }  # fmt: skip
    assert all(split == split_of(text) for text, (split, _) in found.items())
    assert sum(made.samples.values()) == 10
    assert {str(f).removeprefix(f"{corpus}/").partition(":")[0] for f in made.faults} == {
        "anna/7.wav", "anna/9.lab", "lj/metadata.csv", "libri/1-2.trans.txt",
    }  # fmt: skip
    report = check_shards(tmp_path / "out")
    assert report.faults == [] and report.samples == 10
    assert report.seconds == pytest.approx(sum(made.seconds.values()), abs=1e-3)


def test_the_same_folder_gives_the_same_bytes(corpus, tmp_path):
    one, two = (make_corpus(corpus, tmp_path / name).paths for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        with open(a, "rb") as first, open(b, "rb") as second:
            assert first.read() == second.read()


def test_test_voices_are_in_no_other_split(corpus, tmp_path):
    make_corpus(corpus, tmp_path / "out", test_voices=["anna"])
    found = samples(tmp_path / "out")
    assert {split for split, voice in found.values() if voice == "anna"} == {"test"}
    make_corpus(corpus, tmp_path / "all", voice="me", source="mine")
    assert {voice for _, voice in samples(tmp_path / "all").values()} == {"me"}


def test_nothing_to_make(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        make_corpus(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(InputError, match="holds no recordings with transcripts"):
        make_corpus(tmp_path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
