"""Published sets: each is read in its own schema, item by item with its sound; what is missing says what to fetch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from published_sets import MAKERS, put, tsv

from thinktalk.errors import InputError
from thinktalk.eval.bench import Bench
from thinktalk.eval.heldout import HeldOut
from thinktalk.eval.public import ALL, PUBLISHED
from thinktalk.eval.public.asking import Ask, drawn
from thinktalk.eval.public.published import FIGURES
from thinktalk.eval.public.sets import Clips, need, table
from thinktalk.eval.suites import abilities
from thinktalk.media.audio import load_audio

SEED = "seed-tts"  # its own tests


class Answers:
    """A model that writes down what it is asked and answers what it is told to."""

    can_speak = False

    def __init__(self, *words: str):
        self.words, self.asked, self.batches, self.options = words, [], [], {}

    def chat_batch(self, batch, **options):
        self.batches.append(len(batch))
        self.options = options
        replies = []
        for messages in batch:
            parts = messages[-1]["content"]
            sound = load_audio(next(p["audio"] for p in parts if p["type"] == "audio"))
            assert 1000 < len(sound) < 12_000
            self.asked.append((parts[-1].get("text", ""), messages[0]["content"] if len(messages) > 1 else ""))  # fmt: skip
            said = self.words[(len(self.asked) - 1) % len(self.words)]
            if said == "!":
                self.asked.pop()
                raise InputError("no answer, expected one; ask again")
            replies.append(SimpleNamespace(text=f" {said}\n", token_ids=[1, 2]))
        return replies


def bench(tmp_path: Path, omni, **more) -> Bench:
    return Bench(omni=omni, model="it", sum="abc", held=HeldOut(folder=tmp_path / "data"), out=tmp_path / "out", **{"n": ALL, **more})  # fmt: skip


def measured(suite: str, tmp_path: Path, *words: str, **more):
    MAKERS[suite](tmp_path / "data")
    omni = Answers(*words)
    rows = list(abilities(suite)[suite](bench(tmp_path, omni, **more)))
    return {row.key: row for row in rows}, omni


@pytest.mark.parametrize(
    ("suite", "said", "key", "rate", "n"),
    [
        ("librispeech", "He hoped there would be stew.", "librispeech/test-clean", 6 / 10, 2),
        ("commonvoice", "Is it you? he asked", "commonvoice/en", 0.0, 1),
        ("fleurs", "你好！", "fleurs/zh", 6 / 8, 2),
        ("wenetspeech", "错", "wenetspeech/net", 1.0, 2),
        ("voxpopuli", "And we know.", "voxpopuli/en", 0.0, 1),
        ("covost2", "Er ist ein Mann.", "covost2/en-de", 1.0, 1),
        ("meld", "Surprised.", "meld", 1.0, 1),
        ("vocalsound", "Coughing", "vocalsound", 1.0, 1),
        ("giantsteps", "It has 64 bpm.", "giantsteps", 1.0, 1),
        (
            "musiccaps",
            "the low quality recording features a ballad song",
            "musiccaps/rouge-l",
            1.0,
            1,
        ),
        ("mmau", "(B) A cat", "mmau", 1.0, 2),
        ("voicebench", "B.", "voicebench/mmsu", 1.0, 3),
    ],
)
def test_each_set_is_read_asked_and_counted(suite, said, key, rate, n, tmp_path):
    rows, omni = measured(suite, tmp_path, said)
    row = rows[key]
    assert row.value is not None and row.value.value == pytest.approx(rate)
    assert (row.value.samples, row.tokens, row.faults) == (n, 2 * n, 0)
    assert row.published == FIGURES[key].value and row.published_at
    if rate in (0.0, 1.0) and not row.lower_is_better:
        assert not row.worst
    assert omni.options == {"speech": False, "greedy": True, "max_text_tokens": 512}
    assert suite == "voicebench" or all(question for question, _ in omni.asked)


def test_every_suite_has_its_set_and_every_figure_a_place():
    assert set(MAKERS) == set(PUBLISHED) & set(MAKERS) and len(MAKERS) >= 13
    assert all(figure.table.startswith("table") and figure.metric for figure in FIGURES.values())


@pytest.mark.parametrize("suite", [name for name in MAKERS if name != SEED])
def test_a_missing_set_says_what_to_fetch(suite, tmp_path):
    try:
        missing = [row.missing for row in abilities(suite)[suite](bench(tmp_path, Answers("x")))]
    except InputError as error:
        missing = [str(error)]
    assert missing and all(missing)
    assert any("is not there, expected " in line and "; fetch " in line and str(tmp_path / "data") in line for line in missing)  # fmt: skip
    assert not any("\n" in line for line in missing)


def test_one_part_that_is_missing_stops_no_other(tmp_path):
    rows, _ = measured("librispeech", tmp_path, "he hoped")
    assert "dev-clean.tar.gz" in rows["librispeech/dev-clean"].missing
    assert rows["librispeech/test-clean"].value is not None


def test_the_worst_can_be_read_and_heard(tmp_path):
    rows, _ = measured("librispeech", tmp_path, "he hoped there would be stew", "stuff it in")
    (worst,) = rows["librispeech/test-clean"].worst
    assert (worst["key"], worst["said"], worst["score"]) == ("1089-134686-0001", "stuff it in", 0.5)
    assert len(load_audio(str(tmp_path / "out" / worst["sound"]))) == 1600
    rows, _ = measured("meld", tmp_path, "joy")
    assert [w["text"] for w in rows["meld"].worst] == ["surprise"]


def test_octaves_count_in_accuracy_2_only(tmp_path):
    rows, _ = measured("giantsteps", tmp_path, "About 64 beats per minute")
    assert rows["giantsteps"].tops == [1.0] and rows["giantsteps/1"].tops == [0.0]


def test_what_cannot_be_found_is_wrong_and_told(tmp_path):
    rows, _ = measured("mmau", tmp_path, "I hear something.", "(C)")
    assert rows["mmau"].tops == [0.0, 0.0]
    assert rows["mmau"].note == "no choice was found in 1 of 2 answers (50.0%)"
    assert set(rows) == {"mmau", "mmau/sound", "mmau/music"}


def test_answers_come_together_and_one_fault_takes_no_other(tmp_path):
    rows, omni = measured("voicebench", tmp_path, "B", "B", "!", "B", "A", "Queen Victoria", "Sorry, I can't.", batch=2)  # fmt: skip
    # sd-qa, then mmsu: a batch of two, whose second one fails, is asked one by one
    assert max(omni.batches) == 2 and omni.batches.count(1) >= 2
    assert all(row.faults <= 3 for row in rows.values())
    again = Answers("C")
    after = list(abilities("voicebench")["voicebench"](bench(tmp_path, again)))
    assert again.asked == [], "what is on disk is not asked again, faults neither"
    assert [r.tops for r in after if r.value] == [r.tops for r in rows.values() if r.value]


def test_another_question_is_another_measurement(tmp_path):
    _, omni = measured("meld", tmp_path, "joy")
    _, other = measured("meld", tmp_path, "surprise", question="How does it feel?")
    assert omni.asked[0][0].startswith("Recognize") and omni.asked[0][1].startswith("You are")
    assert other.asked == [("How does it feel?", "")], "and without the system prompt"


def test_a_few_are_drawn_the_same_and_more_hold_them():
    asks = [Ask(key=f"speaker-{n // 50}-{n}", target="") for n in range(200)]
    few, more = drawn(asks, 20), drawn(asks, 60)
    assert few == drawn(asks, 20) and {a.key for a in few} < {a.key for a in more}
    assert [a.key for a in few] == sorted((a.key for a in few), key=lambda k: int(k.split("-")[2]))
    assert len({a.key.split("-")[1] for a in few}) == 4, "not all of one speaker"


def test_broken_files_are_named(tmp_path):
    put(tmp_path / "test.tsv", tsv("path words", "a.mp3|x"))
    with pytest.raises(InputError, match=r"columns path, words, expected 'sentence' in each"):
        table(tmp_path / "test.tsv", ("path", "sentence"))
    put(tmp_path / "test.tar.gz", b"no tar")
    with pytest.raises(InputError, match="expected a folder or a tar"):
        Clips(tmp_path / "test.tar.gz")
    with pytest.raises(InputError, match=r"expected the X; fetch Y"):
        need(tmp_path, "nowhere/*.tsv", what="the X", fetch="Y")
