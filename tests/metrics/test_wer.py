"""Word errors: a cheapest alignment, counted by kind, after a normalisation that speech cannot tell from none."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinktalk.metrics.wer import (
    Errors,
    align,
    cer,
    character_errors,
    normalise,
    wer,
    word_errors,
)

WORDS = st.lists(st.sampled_from("abc"), max_size=7)


def distance(a: tuple, b: tuple) -> int:
    """The definition, word for word."""

    @functools.cache
    def d(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return d(len(a), len(b))


def check(pairs, reference, hypothesis):
    assert [r for r, _ in pairs if r is not None] == reference
    assert [h for _, h in pairs if h is not None] == hypothesis
    assert (None, None) not in pairs
    assert sum(r != h for r, h in pairs) == distance(tuple(reference), tuple(hypothesis))


@given(WORDS, WORDS)
def test_an_alignment_is_complete_and_cheapest(reference, hypothesis):
    check(align(reference, hypothesis), reference, hypothesis)


def test_planted_fault_a_greedy_alignment_is_found():
    reference, hypothesis = list("abcab"), list("bcab")
    greedy = [*zip(reference, hypothesis, strict=False), ("b", None)]
    with pytest.raises(AssertionError):
        check(greedy, reference, hypothesis)


def test_errors_by_kind():
    errors = word_errors("the cat sat on the mat", "the cat sit on mat now")
    assert errors == Errors(hits=4, substitutions=1, deletions=1, insertions=1)
    assert errors.count == 3 and errors.length == 6 and errors.rate == 0.5
    assert errors + Errors(hits=6) == Errors(10, 1, 1, 1)
    assert character_errors("cat", "cut") == Errors(2, 1, 0, 0)


def test_the_rate_of_a_corpus_is_no_mean_of_rates():
    assert wer(["a b c d e f g h i", "x"], ["a b c d e f g h i", "y"]) == 1 / 10
    assert cer(["abc", "d"], ["abc", ""]) == 1 / 4
    assert wer([""], [""]) == 0 and wer([""], ["x"]) == float("inf")
    assert wer(["Yes."], ["yes"], normal=False) == 1
    with pytest.raises(ValueError, match="zip"):
        wer(["a"], [])


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Good  morning, Sir!", "good morning sir"),
        ("It’s O’Neil's café — fine.", "it's o'neil's cafe fine"),
        ("I won't; you can't, they're", "i will not you can not they are"),
        ("Uh, um: Dr. Who & Mr. X", "doctor who and mister x"),
        ("twenty-one", "21"),
        ("one hundred and five apples and pears", "105 apples and pears"),
        ("two hundred and", "200 and"),
        ("three thousand two hundred forty seven", "3247"),
        ("one million two thousand", "1002000"),
        ("two three five", "2 3 5"),
        ("twenty twenty", "20 20"),
        ("forty two hundred", "42 hundred"),
        ("zero zero seven", "0 0 7"),
        ("twenty zero", "20 0"),
        ("hundred thousand", "hundred thousand"),
        ("1,000 and 2,50", "1000 and 2 50"),
        ("3.5 %", "3 point 5 percent"),
        ("$5.50 or £1,000", "5 point 50 dollars or 1000 pounds"),
        ("'quoted' words_here", "quoted words here"),
        ("", ""),
    ],
)
def test_normalise(written: str, normal: str):
    assert normalise(written) == normal


@given(st.text(max_size=30))
def test_normalise_takes_any_text_and_settles(text: str):
    once = normalise(text)
    assert once == " ".join(once.split())


@given(st.integers(0, 999_999))
def test_every_number_in_words_is_its_digits(number: int):
    assert normalise(in_words(number)) == str(number)


def in_words(n: int) -> str:
    ones = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ]
    tens = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    if n < 20:
        return ones[n]
    if n < 100:
        return tens[n // 10] + (f"-{ones[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{ones[n // 100]} hundred" + (f" and {in_words(n % 100)}" if n % 100 else "")
    return f"{in_words(n // 1000)} thousand" + (f" {in_words(n % 1000)}" if n % 1000 else "")
