"""A reply whose words are fixed in part: begun with given tokens, stopped at a string, silent from a string on."""

from __future__ import annotations

import pytest
from engine_rig import (
    Ear,
    answer,
    make_engine,
    make_options,
    random_ids,
    rig_model,
    rig_tokenizer,
    text_reading,
)
from hypothesis import given
from hypothesis import strategies as st

from thinktalk import pipeline
from thinktalk.engine import replying
from thinktalk.engine.wording import Watch, Wording

LONG = dict(tokens=30, codes=20)


def reply(wording: Wording, prompt: int = 0, **options) -> Ear:
    engine = make_engine(rig_model(ends=False))
    seat = engine.open(voice="Chelsie")
    seat.read(text_reading(random_ids(prompt, 12), model=rig_model(ends=False)))
    return answer(seat, make_options(**{**LONG, **options}), wording=wording)


# ------------------------------------------------------------------------------------------------------------- the watch


@given(
    st.text("ab", max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
    st.data(),
)
def test_any_cutting_of_a_text_stops_at_the_same_place(text, stops, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    watch = Watch(Wording(stop=tuple(stops)))
    said = "".join(map(watch.push, pieces)) + watch.flush()
    ends = [text.find(stop) for stop in stops if stop in text]
    # in pieces, whichever is complete first decides; at once, whichever begins first
    assert text.startswith(said)
    assert watch.stopped == bool(ends)
    if len(pieces) == 1 or len(stops) < 2:
        assert said == (text[: min(ends)] if ends else text)
    assert not any(stop in said for stop in stops)


def test_what_may_become_a_stop_string_waits() -> None:
    watch = Watch(Wording(stop=("END",)))
    assert [watch.push(p) for p in ("the E", "N", "joy E", "ND of")] == ["the ", "", "ENjoy ", ""]
    assert watch.stopped and watch.push("more") == watch.flush() == ""


def test_a_mark_is_found_across_pieces() -> None:
    watch = Watch(Wording(unspoken=("<call>",)))
    assert watch.push("Well <ca") == "Well <ca" and not watch.silent
    assert watch.push("ll>") == "ll>" and watch.silent  # written all the same


# ------------------------------------------------------------------------------------------------------------- the engine


def test_a_given_beginning_is_read_like_a_chosen_one() -> None:
    free = reply(Wording())
    half = tuple(free.reply.token_ids[:7])
    led = reply(Wording(given=half))
    assert led.reply.token_ids == free.reply.token_ids and led.reply.codes == free.reply.codes
    other = tuple(random_ids(9, 5))
    assert tuple(reply(Wording(given=other)).reply.token_ids[:5]) == other


@pytest.mark.parametrize("seed", range(3))
def test_said_word_for_word_as_the_offline_path_recites(seed: int) -> None:
    model, words = rig_model(ends=False), random_ids(seed + 50, 11)
    ear = reply(Wording(given=tuple(words), ends=True), seed)
    options = make_options(**LONG)
    thoughts = pipeline.recite(model, [text_reading(random_ids(seed, 12), model=model)], [words])
    (codes,) = pipeline.talk(model, thoughts, [model.voices["Chelsie"]], options)
    assert ear.reply.token_ids == words and ear.reply.finish == "stop"
    assert ear.reply.codes == codes


def test_a_stop_string_ends_text_and_speech(monkeypatch) -> None:
    free = reply(Wording()).reply
    stop = rig_tokenizer().decode(free.token_ids[8:9])
    at = free.text.index(stop)
    assert 0 < at < len(free.text) - 1, "the fixture has a stop string in the middle"
    ear = reply(Wording(stop=(stop,)))
    assert ear.reply.text == free.text[:at] and ear.reply.finish == "stop"
    assert ear.text == ear.reply.text
    assert len(ear.reply.token_ids) < len(free.token_ids)

    # planted fault: a watch that never stops
    monkeypatch.setattr(replying.Watch, "push", lambda self, piece: piece)
    assert reply(Wording(stop=(stop,))).reply.text != free.text[:at]


def test_from_a_mark_on_it_is_written_and_not_spoken() -> None:
    free = reply(Wording()).reply
    tokenizer = rig_tokenizer()
    mark = tokenizer.decode(free.token_ids[6:7])
    first = next(n for n in range(30) if mark in tokenizer.decode(free.token_ids[: n + 1]))
    assert 0 < first < 25
    ear = reply(Wording(unspoken=(mark,))).reply
    assert ear.token_ids == free.token_ids and ear.text == free.text
    # what is spoken is what would be spoken of the text before the mark
    cut = reply(Wording(given=tuple(free.token_ids[:first]), ends=True)).reply
    assert ear.codes == cut.codes != free.codes


def test_a_reply_that_begins_with_the_mark_is_silent() -> None:
    free = reply(Wording()).reply
    mark = rig_tokenizer().decode(free.token_ids[:1])
    ear = reply(Wording(unspoken=(mark,))).reply
    assert ear.text == free.text and ear.codes == [] and len(ear.audio) == 0


def test_after_a_given_beginning_it_is_drawn_from_the_seed() -> None:
    begin = Wording(given=tuple(random_ids(3, 4)))
    one, same = (reply(begin, greedy=False).reply for _ in range(2))
    assert one.token_ids == same.token_ids and one.codes == same.codes
    assert reply(begin, greedy=False, seed=1).reply.token_ids != one.token_ids
