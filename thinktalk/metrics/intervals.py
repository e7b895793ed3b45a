"""Intervals: one numerator and denominator a sample -> a rate with the interval that resampling samples gives.

    errors, words (N,)      WER = sum(errors) / sum(words)      right, ones (N,)      accuracy = mean

Samples are drawn with replacement, numerator and denominator together. Two systems on the same samples are compared
pair by pair, which is far sharper than two intervals side by side. Efron 1979; for speech Bisani and Ney 2004.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from thinktalk.errors import InputError

__all__ = ["Interval", "bootstrap", "paired_bootstrap", "wilson"]

Numbers = Sequence[float] | np.ndarray


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and where it may lie."""

    value: float
    low: float
    high: float
    samples: int
    """How many samples it was measured on."""

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high

    def percent(self, digits: int = 1) -> str:
        """ "12.3 % (10.1 to 14.6, n 300)"."""
        value, low, high = (f"{100 * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} % ({low} to {high}, n {self.samples})"


def bootstrap(
    numerators: Numbers,
    denominators: Numbers | None = None,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """The rate sum(numerators) / sum(denominators) with its percentile interval; without denominators, the mean.

    The same seed gives the same interval. Errors: InputError (no samples, unequal lengths, denominators that sum to 0).

    >>> bootstrap([0, 1, 0, 2], [5, 7, 4, 6]).value
    0.13636363636363635
    """
    top, bottom = _columns(numerators, denominators)
    low, high = _quantiles(_resample(draws, seed, top, bottom), level)
    return Interval(float(top.sum() / bottom.sum()), low, high, len(top))


def paired_bootstrap(
    numerators: Numbers,
    other_numerators: Numbers,
    denominators: Numbers | None = None,
    other_denominators: Numbers | None = None,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """The first rate minus the other, both on the same samples, with its interval; significant where it excludes 0.

    `other_denominators` are `denominators` where not given (the words of the references are the same).
    """
    top, bottom = _columns(numerators, denominators)
    if other_denominators is None:
        other_denominators = denominators
    other_top, other_bottom = _columns(other_numerators, other_denominators)
    if len(top) != len(other_top):
        raise InputError(
            f"paired bootstrap: {len(top)} and {len(other_top)} samples, expected the same ones in the same order; pair them"
        )
    # one seed: both are drawn together
    differences = _resample(draws, seed, top, bottom) - _resample(draws, seed, other_top, other_bottom)  # fmt: skip
    low, high = _quantiles(differences, level)
    value = top.sum() / bottom.sum() - other_top.sum() / other_bottom.sum()
    return Interval(float(value), low, high, len(top))


def wilson(successes: int, samples: int, *, level: float = 0.95) -> Interval:
    """A proportion with Wilson's interval, which has a width even where all or none succeed.

    Errors: InputError (no samples, more successes than samples).
    """
    if not 0 <= successes <= samples or samples == 0:
        raise InputError(f"wilson: {successes} of {samples}, expected samples and no more successes than there are; count again")  # fmt: skip
    p, z = successes / samples, NormalDist().inv_cdf((1 + level) / 2)
    middle = (p + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * sqrt(p * (1 - p) / samples + z * z / (4 * samples**2))
    return Interval(p, max(0.0, min(middle - half, p)), min(1.0, max(middle + half, p)), samples)


def _columns(numerators: Numbers, denominators: Numbers | None) -> tuple[np.ndarray, np.ndarray]:
    top = np.asarray(numerators, np.float64)
    bottom = np.ones_like(top) if denominators is None else np.asarray(denominators, np.float64)
    if top.ndim != 1 or top.shape != bottom.shape or not len(top):
        raise InputError(f"bootstrap: numerators {top.shape}, denominators {bottom.shape}, expected one of each a sample; give equal lists")  # fmt: skip
    if not (np.isfinite(top).all() and np.isfinite(bottom).all() and (bottom >= 0).all() and bottom.sum() > 0):  # fmt: skip
        raise InputError("bootstrap: numbers that are not finite, or denominators that do not sum to more than 0; drop such samples")  # fmt: skip
    return top, bottom


def _resample(draws: int, seed: int, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Rates (draws,) of samples drawn with replacement; in blocks, so that memory stays bounded."""
    random = np.random.default_rng(seed)
    rates, block = [], max(1, 4_000_000 // len(top))
    for start in range(0, draws, block):
        picks = random.integers(len(top), size=(min(block, draws - start), len(top)))
        below = bottom[picks].sum(1)
        # a draw of empty references only says nothing
        rates.append(top[picks].sum(1)[below > 0] / below[below > 0])
    return np.concatenate(rates)


def _quantiles(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
