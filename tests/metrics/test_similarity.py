"""Similarity: cosines as the formula has them, a centre in which each recording weighs the same, the nearest voice."""

from __future__ import annotations

import numpy as np
import pytest

from thinktalk.errors import InputError
from thinktalk.metrics.similarity import centre, cosine, nearest


def test_cosine_is_the_formula():
    random = np.random.default_rng(0)
    for _ in range(20):
        a, b = random.normal(size=(2, 8))
        told = sum(x * y for x, y in zip(a, b, strict=True)) / np.sqrt((a**2).sum() * (b**2).sum())
        assert cosine(a, b) == pytest.approx(told, abs=1e-12)  # float64, eight products
        assert cosine(3 * a, 0.1 * b) == pytest.approx(told, abs=1e-12)


def test_each_recording_weighs_the_same():
    east, north = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    both = centre([100 * east, north])
    assert np.allclose(both, np.sqrt(0.5))
    assert not np.allclose(100 * east + north, both * 100), (
        "planted: a plain mean is the loud one's"
    )


def test_nearest():
    known = {"ann": np.array([1.0, 0.1]), "bob": np.array([0.1, 1.0])}
    assert nearest(np.array([0.9, 0.3]), known) == "ann"
    assert nearest(np.array([0.2, 50.0]), known) == "bob"  # length says nothing
    assert nearest(np.ones(2), {"b": np.ones(2), "a": np.ones(2)}) == "b"


def test_what_is_refused():
    for call in (
        lambda: cosine(np.zeros(2), np.ones(2)),
        lambda: cosine(np.ones(2), np.ones(3)),
        lambda: cosine(np.array([np.nan, 1]), np.ones(2)),
        lambda: centre([]),
        lambda: centre([np.ones(2), -np.ones(2)]),
        lambda: nearest(np.ones(2), {}),
    ):
        with pytest.raises(InputError, match="similarity"):
            call()
