"""Interruption: what was not heard was never said, whenever it comes; the words are found in the sound."""

from __future__ import annotations

import numpy as np
import pytest
from session_house import (
    Script,
    assert_same_reply,
    engine,
    offline,
    omni,
    options,
    reply_of,
    speech,
)

from thinktalk.engine.alignment import Pace, Spoken, anchored, warped, word_seconds, words
from thinktalk.engine.session import Session
from thinktalk.events import AudioChunk, Done, TextDelta

NEXT = "And now?"


def interrupted(steps: int, heard_s: float | None, *, speak: bool = True):
    """A session interrupted after so many units of work; the reply to the next turn, and whether it was over before."""
    house = engine()
    session = Session(house, options=options(speech=speak))
    session.hear(speech(2.2))
    events = session.respond_sync()
    for _ in range(steps):
        house.tick()
    kept = session.interrupt(heard_s=heard_s)
    tokens = session.tokens  # with the end of the turn
    assert list(events) == []  # nothing comes after it
    session.text(NEXT)
    return session, kept, tokens, reply_of(session.respond_sync())


def total_steps() -> int:
    house = engine()
    session = Session(house, options=options())
    session.hear(speech(2.2))
    events = session.respond_sync()
    steps = 0
    while house.tick():
        steps += 1
    assert isinstance(list(events)[-1], Done)
    return steps


def expected(session, kept_tokens: list[int]):
    script = Script().turn("user", speech(2.2)).turn("assistant", kept_tokens).turn("user", NEXT)
    return offline(script.prompt(), session._options)


def whole_reply():
    session = Session(engine(), options=options())
    session.hear(speech(2.2))
    return reply_of(session.respond_sync())


def test_at_every_step_the_next_turn_is_as_if_the_rest_was_never_said():
    reply, steps = whole_reply(), total_steps()
    _, tokenizer = omni()
    lengths = set()
    for step in range(0, steps + 1, 3):
        for heard_s in (0.0, 0.17):
            session, kept, tokens, ours = interrupted(step, heard_s)
            script = Script().turn("user", speech(2.2)).turn("assistant", [])
            count = tokens - (len(script.ids) - 1)  # the line end waits for the next turn
            assert kept == tokenizer.decode(reply.token_ids[:count])
            assert session.history[2] == {"role": "assistant", "content": kept}
            if ((step, count) not in lengths and step % 6 == 0) or count not in {
                c for _, c in lengths
            }:
                assert_same_reply(ours, expected(session, reply.token_ids[:count]))
            lengths.add((step, count))
    assert len({count for _, count in lengths}) >= 2  # some were cut to nothing, some were not


def test_all_that_was_heard_stays():
    session, kept, _, ours = interrupted(10_000, 1e3)
    reply = whole_reply()
    assert kept == reply.text
    assert_same_reply(ours, expected(session, reply.token_ids))


def test_without_heard_s_what_was_taken_counts():
    session = Session(engine(), options=options())
    session.text("Hello")
    events = session.respond_sync()
    for event in events:
        if isinstance(event, AudioChunk):
            break
    answer = session._answer
    taken = event.start_s + len(event.pcm) / event.sample_rate
    assert answer.taken_s == pytest.approx(taken)
    twin = Session(engine(), options=options())
    twin.text("Hello")
    all_events = twin.respond_sync()
    while not isinstance(next(all_events), AudioChunk):
        pass
    assert session.interrupt() == twin.interrupt(heard_s=taken)


def test_written_words_count_when_they_were_taken():
    session = Session(engine(), options=options(speech=False))
    session.text("Hello")
    events = session.respond_sync()
    read = ""
    for event in events:
        if isinstance(event, TextDelta):
            read += event.text
        if len(read) > 2:
            break
    for _ in range(50):
        session._engine.tick()  # more is written, nobody reads it
    assert session.interrupt() == read
    assert session.history[-1]["content"] == read


def test_after_done_while_the_sound_is_still_played():
    """Generation is faster than speech: the words are cut although all of them were made and the user speaks already."""
    session = Session(engine(), options=options())
    session.hear(speech(2.2))
    reply = reply_of(session.respond_sync())
    session.hear(speech(0.7, 5))  # not read yet: less than a block
    kept = session.interrupt(heard_s=0.0)
    assert kept == "" and session.history[-1] == {"role": "assistant", "content": ""}
    session.text(NEXT)
    ours = reply_of(session.respond_sync())
    script = Script().turn("user", speech(2.2)).turn("assistant", []).turn("user", speech(0.7, 5), NEXT)  # fmt: skip
    assert_same_reply(ours, offline(script.prompt(), options()))
    assert reply.token_ids


def test_too_late_changes_nothing():
    session = Session(engine(), options=options())
    session.text("Hello")
    reply = reply_of(session.respond_sync())
    session.hear(speech(2.5))  # a block of it is read
    assert session.interrupt(heard_s=0.0) == reply.text
    assert session.history[-1]["content"] == reply.text
    assert session.interrupt(heard_s=0.0) == reply.text


def test_twice_is_once():
    session, _, _, _ = interrupted(6, 0.0)
    assert session.interrupt(heard_s=0.1) is not None
    assert Session(engine(), options=options()).interrupt() == ""


def test_planted_fault_is_caught(monkeypatch):
    """A seat that keeps the whole reply in memory is found out by the next turn."""
    from thinktalk.engine.seat import Seat

    reply = whole_reply()
    steps = total_steps()

    def check():
        session, _, _, ours = interrupted(steps - 1, 0.0)
        assert_same_reply(ours, expected(session, []))

    check()
    monkeypatch.setattr(Seat, "keep", lambda self, tokens: None)
    with pytest.raises(AssertionError):
        check()
    assert reply.token_ids


# -------------------------------------------------------------------------------------------------------- alignment


def test_words_cling_to_their_punctuation():
    text = 'He said: "Yes, 25 times!" 你好，世界。 …'
    assert [text[a:b] for a, b in words(text)] == [
        "He", "said:", '"Yes,', "25", 'times!"', "你", "好，", "世", "界。", "…",
    ]  # fmt: skip
    assert word_seconds("…") == 0
    assert word_seconds("25") > word_seconds("2")


def spoken_as(text: str, *, speed: float = 1.0, pause_s: float = 0.3):
    """Sound in which each word is a tone of just its seconds, with a pause after it; and where each word ends."""
    rate, pcm, ends = 24_000, [], []
    for a, b in words(text):
        n = round(word_seconds(text[a:b]) / speed * 100) * rate // 100  # whole frames of 10 ms
        pcm += [0.3 * np.sin(np.arange(n) * 0.1), np.zeros(round(pause_s * rate))]
        ends.append((sum(map(len, pcm)) - len(pcm[-1])) / rate)
    return np.concatenate(pcm).astype(np.float32), rate, ends


@pytest.mark.parametrize("chunk", [240, 1000, 24_000])
@pytest.mark.parametrize(("speed", "complete"), [(1.0, False), (1.3, True), (0.7, True)])
def test_words_are_found_where_they_are(chunk, speed, complete):
    text = "The quick brown fox jumps over the lazy dog, twice."
    pcm, rate, ends = spoken_as(text, speed=speed)
    spoken = Spoken()
    for start in range(0, len(pcm), chunk):
        spoken.add(pcm[start : start + chunk], rate)
    assert spoken.seconds == pytest.approx(len(pcm) / rate)
    for (_, stop), end_s in zip(words(text), ends, strict=True):
        # words are rounded to frames of 10 ms: within half a pause of their ends
        assert spoken.characters(text, end_s + 0.15, Pace(), complete=complete) == stop
        assert spoken.characters(text, end_s - 0.15, Pace(), complete=complete) < stop


def test_the_pace_of_a_voice_is_learned():
    pace = Pace()
    assert pace.speed == 1
    for _ in range(20):
        pace.add(expected_s=13.0, voiced_s=10.0)
    assert pace.speed == pytest.approx(1.3, abs=0.01)
    pace.add(0.0, 5.0)
    assert pace.speed == pytest.approx(1.3, abs=0.01)


def test_silence_and_empty_text():
    spoken = Spoken()
    assert spoken.characters("Hello", 0.0, Pace(), complete=False) == 0
    spoken.add(np.zeros(24_000, np.float32), 24_000)
    assert spoken.characters("Hello", 0.5, Pace(), complete=True) == 0
    assert spoken.characters("Hello", 1.0, Pace(), complete=True) == 5
    assert spoken.characters("", 0.5, Pace(), complete=False) == 0


def test_pauses_find_their_stops():
    """Two of three pauses are at commas, one is a hesitation; the voice is a tenth faster than thought."""
    stops, speed = [2.0, 5.0, 9.0], 1.0
    pauses = [1.8, 3.1, 4.5, 8.1]
    assert anchored(pauses, stops, speed) == [(1.8, 2.0), (4.5, 5.0), (8.1, 9.0)]
    assert anchored([], stops, speed) == anchored(pauses, [], speed) == []
    anchors = [(0.0, 0.0), (1.8, 2.0), (4.5, 5.0)]
    assert warped(3.15, anchors, speed) == pytest.approx(3.5)
    assert warped(5.5, anchors, speed) == pytest.approx(6.0)


def test_drift_ends_at_a_pause():
    """A voice that slows down: without its pauses the estimate would run ahead of it."""
    first, second = "one two three four five six seven eight nine ten,", " one two three four."
    fast, rate, _ = spoken_as(first, speed=1.2, pause_s=0.02)
    slow, _, ends = spoken_as(second, speed=0.8, pause_s=0.02)
    gap = np.zeros(round(0.4 * rate), np.float32)
    spoken = Spoken()
    spoken.add(np.concatenate([fast, gap, slow]), rate)
    base_s = (len(fast) + len(gap)) / rate
    text = first + second
    for (_, stop), end_s in list(zip(words(second), ends, strict=True))[:2]:
        heard = spoken.characters(text, base_s + end_s + 0.15, Pace(), complete=False)
        assert heard == len(first) + stop
