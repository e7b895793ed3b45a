"""Controls: they take away what they say and nothing else, and whoever does not look or listen is found out by them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from thinktalk.config import tiny
from thinktalk.data.synth import omni, pictures
from thinktalk.errors import InputError
from thinktalk.eval import controls, report
from thinktalk.eval.bench import Bench
from thinktalk.eval.heldout import HeldOut
from thinktalk.eval.suites import asked
from thinktalk.eval.suites.asked import measure, question_of, questions, rows_of
from thinktalk.prompt import Prompt

RED, SOUND = {"type": "image", "image": b"red"}, {"type": "audio", "audio": b"beep"}
WORDS = {"type": "text", "text": "What is it?"}
ASKED = [{"role": "user", "content": [RED, WORDS, SOUND]}]


# --------------------------------------------------------------------------------------------------------------- prompts


@pytest.fixture
def prompt() -> Prompt:
    """Three moments of four picture tokens each, sound in between, text around."""
    ids = tiny().thinker.ids
    picture, sound = [ids.video] * 4, [ids.audio] * 25
    token_ids = torch.tensor([5, 6, *picture, *sound, *picture, *sound, *picture, 7])
    times = [0, 1, *[2] * 4, *range(2, 27), *[27] * 4, *range(27, 52), *[52] * 4, 60]
    positions = torch.tensor([times] * 3)
    for row in (1, 2):
        positions[row, token_ids == ids.video] += torch.tensor([0, 1, 0, 1] * 3)
    mel = torch.zeros(128, 500)
    mel[:, 40:60] = 1.0
    return Prompt(token_ids, positions, 61, audio=[mel])


def test_a_shifted_sound_is_the_same_sound_at_another_time(prompt):
    for seed in range(20):
        moved = controls.shifted_sound(prompt, seed=seed)
        assert torch.equal(moved.positions, prompt.positions)
        (was,), (now,) = prompt.audio, moved.audio
        assert torch.equal(was.sum(1), now.sum(1))
        peak, before = (int(mel[0].cumsum(0).argmax()) for mel in (now, was))
        turned = (peak - before) % 500
        assert 100 <= turned <= 400, "less than a second away from where it was"
    short = controls.shifted_sound(Prompt(prompt.token_ids, prompt.positions, 61, audio=[prompt.audio[0][:, :80]]), seed=0)  # fmt: skip
    assert short.audio[0][0].argmax() == 0  # 40 + 80 / 2, turned round


def test_scrambled_times_are_the_same_times_of_whole_moments(prompt):
    ids = tiny().thinker.ids
    scrambled = controls.scrambled_times(prompt, ids, seed=1)
    assert torch.equal(scrambled.token_ids, prompt.token_ids)
    assert sorted(scrambled.positions[0].unique()) == sorted(prompt.positions[0].unique())
    text = (prompt.token_ids != ids.audio) & (prompt.token_ids != ids.video)
    assert torch.equal(scrambled.positions[:, text], prompt.positions[:, text])
    video, sound = prompt.token_ids == ids.video, prompt.token_ids == ids.audio
    assert torch.equal(scrambled.positions[1:, video], prompt.positions[1:, video])
    assert torch.equal(scrambled.positions[0, sound], scrambled.positions[1, sound])
    for block in scrambled.positions[0, video].view(3, 4):
        assert len(block.unique()) == 1, "a picture was torn apart"
    moved = (scrambled.positions[0] != prompt.positions[0]).float().mean()
    assert moved > 0.8
    assert torch.equal(prompt.positions[0, :3], torch.tensor([0, 1, 2])), "the prompt itself changed"  # fmt: skip


def test_a_prompt_without_media_stays(prompt):
    plain = Prompt(torch.arange(4), torch.arange(4).expand(3, 4), 4)
    assert controls.scrambled_times(plain, tiny().thinker.ids, seed=0) is plain


# -------------------------------------------------------------------------------------------------------------- messages


def test_media_are_taken_away_or_exchanged():
    assert controls.without_media(ASKED)[0]["content"] == [WORDS]
    other = [{"role": "user", "content": [{**RED, "image": b"blue"}, {**SOUND, "audio": b"bark"}]}]
    changed = controls.others_media(ASKED, other)[0]["content"]
    assert [p.get("image") or p.get("audio") or p["text"] for p in changed] == [b"blue", "What is it?", b"bark"]  # fmt: skip
    film = [{"role": "user", "content": [{"type": "video", "video": b"x", "use_audio": True}]}]
    assert controls.deaf(film)[0]["content"][0]["use_audio"] is False
    assert film[0]["content"][0]["use_audio"] is True
    assert controls.without_media([{"role": "user", "content": "Hello"}])[0]["content"] == "Hello"


def test_every_item_lends_its_media_about_equally_often():
    answers = ["red"] * 20 + ["blue"] * 20 + ["only one of its kind"]
    groups = ["colour"] * 40 + ["lonely"]
    lender = controls.others(answers, groups, seed=3)
    assert lender[40] == 40
    assert all(answers[m] != answers[n] and groups[m] == groups[n] for n, m in enumerate(lender[:40]))  # fmt: skip
    assert max(lender.count(m) for m in range(40)) <= 2
    assert lender == controls.others(answers, groups, seed=3)


# ------------------------------------------------------------------------------------------------------- who is found out


@pytest.fixture
def bench(tmp_path: Path, tiny_checkpoint: str) -> Bench:
    import thinktalk

    held = HeldOut(folder=tmp_path / "data", n=12)
    return Bench(omni=thinktalk.load(tiny_checkpoint, parts=("thinker",)), model="tiny", sum="0", held=held, out=tmp_path / "out", n=12)  # fmt: skip


def seen(messages):
    return [p[p["type"]] for p in controls.media_of(messages)]


def test_one_who_looks_is_right_with_the_picture_alone(bench, monkeypatch):
    asked_of = questions(bench, "colours", pictures.colour)
    knows = {seen(q.messages)[0]: q.expected for q in asked_of}

    def looks(bench, messages, *, alter=None):
        return knows[seen(messages)[0]] if seen(messages) else "I see nothing."

    monkeypatch.setattr(asked, "ask", looks)
    row, alone, shuffled = rows_of(bench, "colour", "colour", measure(bench, "colour", asked_of))
    assert row.value.value == 1.0 and row.value.low < 1.0, "all right has an interval, too"
    assert alone.value.value == 0.0 and shuffled.value.value == 0.0
    page = report.markdown([row, alone, shuffled], about={})
    assert "0.0 % |" in page and "(not clearly less)" not in page.partition("| ---")[2]


def test_planted_fault_one_who_knows_the_questions_by_heart_is_found_out(bench, monkeypatch):
    asked_of = questions(bench, "colours", pictures.colour)
    heart = {q.words: q.expected for q in asked_of}

    def recalls(bench, messages, *, alter=None):
        words = next(p["text"] for p in messages[-1]["content"] if p["type"] == "text")
        return heart[words]

    monkeypatch.setattr(asked, "ask", recalls)
    rows = rows_of(bench, "colour", "colour", measure(bench, "colour", asked_of))
    assert len({tuple(row.tops) for row in rows}) == 1
    assert "(not clearly less)" in report.markdown(rows, about={}).partition("| ---")[2]


def test_every_arm_asks_a_real_model(bench):
    bench.n = 2
    timed = questions(bench, "timed", omni.which)
    arms = measure(bench, "omni/which", timed, arms=("text only", "shuffled", "eyes only", "shifted sound", "scrambled times"))  # fmt: skip
    assert [len(a.results) for a in arms.values()] == [2] * 6
    assert all("said" in r for a in arms.values() for r in a.results)
    again = measure(bench, "omni/which", timed)
    assert (
        again[""].results == arms[""].results
    )  # from disk: seconds are the same to the last digit


def test_without_making_what_is_missing_is_named(bench):
    from dataclasses import replace

    bench.held = replace(bench.held, make=False)
    with pytest.raises(InputError, match="--no-make"):
        questions(bench, "colours", pictures.colour)


def test_a_question_is_the_sample_without_its_answer():
    from thinktalk.data.samples import Sample
    from thinktalk.data.synth.world import record_of

    draw = random.Random(2)
    item = pictures.colour(draw)
    sample = Sample(where="x/1", record=record_of(item, "test", draw), media=dict(item.media()))
    question = question_of("k", sample)
    assert item.answer == question.expected
    assert item.answer not in str(question.messages)
    assert len(seen(question.messages)) == 1 and question.words
