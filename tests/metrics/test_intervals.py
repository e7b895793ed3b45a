"""Intervals: they cover what they promise, are the same for the same seed, and pairs see what single ones cannot."""

from __future__ import annotations

import numpy as np
import pytest

from thinktalk.errors import InputError
from thinktalk.metrics.intervals import bootstrap, paired_bootstrap, wilson


def corpus(random, utterances=120):
    words = random.integers(3, 15, utterances)
    return random.binomial(words, 0.2), words


def test_it_covers_the_truth_as_often_as_it_says():
    """95 % of 200 corpora, with three standard deviations (0.015 each) of room: between 0.90 and 1."""
    random = np.random.default_rng(0)
    covered = np.mean([0.2 in bootstrap(*corpus(random), draws=400) for _ in range(200)])
    assert 0.90 <= covered < 1
    narrow = np.mean([0.2 in bootstrap(*corpus(random), level=0.5, draws=400) for _ in range(200)])
    assert 0.4 < narrow < 0.6


def test_its_width_is_that_of_the_normal_theory():
    random = np.random.default_rng(1)
    right = random.random(1000) < 0.3
    interval = bootstrap(right)
    p = right.mean()
    half = 1.96 * np.sqrt(p * (1 - p) / 1000)
    # the percentiles of 2000 draws are known to some per cent of the half width
    assert (
        abs(interval.high - p - half) < 0.15 * half and abs(p - interval.low - half) < 0.15 * half
    )
    assert interval.value == p and interval.samples == 1000


def test_the_same_seed_gives_the_same_interval():
    errors, words = corpus(np.random.default_rng(2))
    assert bootstrap(errors, words) == bootstrap(errors, words)
    assert bootstrap(errors, words) != bootstrap(errors, words, seed=1)
    assert bootstrap(errors, words).value == errors.sum() / words.sum()


def test_pairs_see_what_two_intervals_cannot():
    """A system one word better on each tenth utterance: the intervals overlap widely, the pairs are certain."""
    random = np.random.default_rng(3)
    words = np.full(300, 10)
    good = random.binomial(words, 0.2 * random.random(300))
    bad = good + (np.arange(300) % 10 == 0)
    one, other = bootstrap(good, words), bootstrap(bad, words)
    assert one.high > other.low
    difference = paired_bootstrap(bad, good, words)
    assert difference.value == pytest.approx(0.01) and difference.low > 0
    assert 0 in paired_bootstrap(good, good, words)
    # drawn apart, the difference would drown
    apart = bootstrap(bad, words, seed=1).low - bootstrap(good, words, seed=2).high
    assert apart < 0


def test_empty_references_are_no_division_by_zero():
    interval = bootstrap([0, 1], [0, 4])
    assert interval.value == 0.25 and np.isfinite([interval.low, interval.high]).all()


def test_wilson():
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for (k, n), (low, high) in {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0, 0.1611), (1, 29): (0.0061, 0.1718)}.items():  # fmt: skip
        interval = wilson(k, n)
        assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert wilson(20, 20).high == 1 and wilson(20, 20).low < 0.9
    assert wilson(1, 4).percent() == "25.0 % (4.6 to 69.9, n 4)"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: bootstrap([]),
        lambda: bootstrap([1, 2], [1]),
        lambda: bootstrap([1], [0]),
        lambda: bootstrap([float("nan")]),
        lambda: paired_bootstrap([1, 2], [1]),
        lambda: wilson(3, 2),
        lambda: wilson(0, 0),
    ],
)
def test_what_has_no_interval_is_refused(wrong):
    with pytest.raises(InputError):
        wrong()
