"""Pauses where punctuation asks for them, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinktalk.metrics.pauses import PauseErrors, PauseRules, Word, _places, pause_errors

TEXT = "Well, I think so. It is late; goodbye."
WORDS = ["well", "i", "think", "so", "it", "is", "late", "goodbye"]
GOOD = [0.1, 0.0, 0.0, 0.3, 0.0, 0.0, 0.1]


def said(words, gaps, start=0.2):
    """Words of 0.2 s with gaps between them."""
    heard = []
    for word, gap in zip(words, [*gaps, 0.0], strict=True):
        heard.append(Word(word, start, start + 0.2))
        start += 0.2 + gap
    return heard


def test_what_stands_after_each_word():
    words, marks = _places(TEXT)
    assert words == WORDS
    assert marks == ["clause", "", "", "sentence", "", "", "clause", "sentence"]
    assert _places("It costs $3.50, e.g. twenty-one (or 1,000)...") == (
        ["it", "costs", "3", "point", "50", "dollars", "e", "g", "21", "or", "1000"],
        ["", "", "", "", "", "clause", "", "sentence", "clause", "", "sentence"],
    )
    assert _places("  ... ") == ([], [])


def test_errors_by_kind():
    assert pause_errors(TEXT, said(WORDS, GOOD)) == PauseErrors(0, 0, 7)
    flat = pause_errors(TEXT, said(WORDS, [0.0] * 7))
    assert flat == PauseErrors(3, 0, 7) and flat.rate == pytest.approx(3 / 7)
    slow = pause_errors(TEXT, said(WORDS, [0.1, 0.5, 0.0, 0.3, 0.0, 0.4, 0.1]))
    assert slow == PauseErrors(0, 2, 7)
    assert flat + slow == PauseErrors(3, 2, 14)
    assert pause_errors(TEXT, []) == PauseErrors() and PauseErrors().rate == 0


def test_only_places_whose_words_were_heard_count():
    """A wrong word takes the places on both its sides away; one heard too much takes its place."""
    wrong = said(["well", "i", "sink", "so", "it", "is", "late", "goodbye"], GOOD)
    assert pause_errors(TEXT, wrong) == PauseErrors(0, 0, 5)
    more = said(["well", "uh huh", "i", *WORDS[2:]], [0.0, 0.0, *GOOD[1:]])
    assert pause_errors(TEXT, more) == PauseErrors(0, 0, 6)
    lost = said(WORDS[:4], GOOD[:3])
    assert pause_errors(TEXT, lost) == PauseErrors(0, 0, 3)


def test_a_recording_says_what_is_expected():
    """Its pauses stand in the place of the thresholds, where both heard the words."""
    like = said(WORDS, [0.02, 0.0, 0.3, 0.5, 0.0, 0.0, 0.1])
    assert pause_errors(TEXT, like).missing == 1
    assert pause_errors(TEXT, like).extra == 1
    assert pause_errors(TEXT, like, reference=like) == PauseErrors(0, 0, 7)
    assert pause_errors(TEXT, said(WORDS, GOOD), reference=like) == PauseErrors(2, 0, 7)
    partly = pause_errors(TEXT, said(WORDS, [0.0] * 7), reference=like[:2])
    assert partly == PauseErrors(2, 0, 7)  # the rules hold for the rest
    strict = PauseRules(tolerance_s=0.01)
    assert pause_errors(TEXT, said(WORDS, GOOD), reference=like, rules=strict) == PauseErrors(
        2, 1, 7
    )


def test_words_that_are_several():
    """ "I'm" is heard as one word and counts as two, without a pause inside."""
    heard = [Word("I'm", 0.0, 0.3), Word("late,", 0.35, 0.6), Word("sorry", 0.9, 1.2)]
    assert pause_errors("I'm late, sorry.", heard) == PauseErrors(0, 0, 3)


@given(st.lists(st.floats(0, 1), min_size=7, max_size=7))
def test_longer_pauses_never_miss(gaps):
    """Stretching every pause can only lose misses and gain extras."""
    short, long = (pause_errors(TEXT, said(WORDS, [k * g for g in gaps])) for k in (1.0, 1.5))
    assert long.missing <= short.missing and long.extra >= short.extra
