"""Wording: what is written -> the words in which it is said: numbers, letters."""

from __future__ import annotations

import re

from thinktalk.metrics.wer import ONES, TENS

__all__ = ["aloud", "in_words"]


def in_words(number: int) -> str:
    """A number below a million as it is said.

    >>> in_words(121), in_words(40_007)
    ('one hundred and twenty one', 'forty thousand and seven')
    """
    assert 0 <= number < 1_000_000, f"{number} is no number below a million"
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return TENS[tens - 2] + (f" {ONES[rest]}" if rest else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    many, rest = divmod(number, size)
    link = " and " if rest < 100 else " "
    return f"{in_words(many)} {name}" + (link + in_words(rest) if rest else "")


def aloud(written: str) -> str:
    """A text as it is said: numbers in words; letters one by one with a breath between them.

    >>> aloud("E L P P A."), aloud("3 times 4 is 12.")
    ('E, L, P, P, A.', 'three times four is twelve.')
    """
    numbers = re.sub(r"\d{1,6}", lambda m: in_words(int(m[0])), written)
    return re.sub(r"\b([A-Z]) (?=[A-Z]\b)", r"\1, ", numbers)
