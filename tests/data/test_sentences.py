"""Sentences: plain, once, of their split, and written as they are said."""

from __future__ import annotations

import json
import random
import re

import pytest

from thinktalk.data.prompts import split_of
from thinktalk.data.synth import sentences as sources
from thinktalk.data.synth.sentences import sentences
from thinktalk.data.synth.wording import aloud, in_words
from thinktalk.errors import InputError
from thinktalk.metrics.wer import normalise

MADE = ("templates", "questions")


def test_numbers_as_they_are_said():
    draw = random.Random(0)
    for number in [*range(121), *(draw.randrange(1_000_000) for _ in range(300))]:
        # another reader turns the words into digits again
        assert normalise(in_words(number)) == str(number)
    assert aloud("From 3 to 12, 40007.") == "From three to twelve, forty thousand and seven."
    assert aloud("E L P P A.") == "E, L, P, P, A." and aloud("I see A B C") == "I see A, B, C"
    assert aloud("A cat. I AM") == "A cat. I AM"


@pytest.fixture(scope="module")
def splits() -> dict[str, list[tuple[str, str]]]:
    return {split: sentences(MADE, split, seed=3) for split in ("train", "dev", "test")}


def leaks(splits: dict[str, list[tuple[str, str]]]) -> list[str]:
    """Sentences that are of another split, or there twice."""
    wrong = [s for split, found in splits.items() for s, _ in found if split_of(s) != split]
    everything = [s.casefold() for found in splits.values() for s, _ in found]
    return wrong + [s for s in set(everything) if everything.count(s) > 1]


def test_splits_do_not_share_sentences(splits):
    few = {split: found[:400] for split, found in splits.items()}
    assert leaks(few) == []
    moved = {**few, "train": [*few["train"], few["test"][0]]}
    assert leaks(moved) == [few["test"][0][0], few["test"][0][0].casefold()]


def test_sentences_are_plain_and_of_every_source(splits):
    train = splits["train"]
    assert [source for _, source in train[:4]] == ["templates", "questions"] * 2, "they take turns"
    assert len(train) > 2000 and min(len(splits["dev"]), len(splits["test"])) > 50
    assert not [s for s, _ in train if re.search(r"[\d{}]|  | [.?!,]", s)]
    assert train != sentences(MADE, "train", seed=4) and train == sentences(MADE, "train", seed=3)


def test_what_people_typed_is_sieved():
    good = "That's a nice dog, isn't it?"
    said = [good, "lower case.", "No stop", "URLS.COM is it.", "Zyzzx is a word.", "Too few.", "WHAT a nice dog."]  # fmt: skip
    chats = {
        str(n): {"messages": [[{"text": s} for s in said[: 7 if n == 0 else 1]]]} for n in range(6)
    }
    assert set(sources._chitchat(chats)) == {good}


def test_examples_of_a_dictionary():
    line = b'00001740 29 v 01 breathe 0 | draw air into; "I can breathe now"; "two words"; "he took in 3 drafts of it"\n'
    assert list(sources._wordnet(iter([line]))) == ["I can breathe now."]


def test_a_file_of_sentences(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("".join(f"This is line {in_words(n)} of mine.\n\n" for n in range(100)))
    found = {split: sentences([str(path)], split) for split in ("train", "test")}
    assert leaks(found) == [] and found["train"][0][1] == "mine.txt"
    path.write_text("One only.")
    with pytest.raises(InputError, match="hold no sentences of the split"):
        sentences([str(path)], next(s for s in ("train", "dev") if s != split_of("One only.")))
    with pytest.raises(InputError, match=r"wordnets: is no text file, expected .* templates"):
        sentences(["wordnets"], "train")


def test_the_packages_are_pinned():
    for package in (sources.CHITCHAT, sources.WORDNET):
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256) and json.dumps(package.version)
