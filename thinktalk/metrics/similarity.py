"""Similarity: voices as directions (D,) -> how alike two are, and whose a voice is.

cosine(a, b)                          1 the same direction, 0 nothing in common
centre([v1, v2, ...])                 the voice of several recordings
nearest(v, {"ann": ..., "bob": ...})  "ann"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from thinktalk.errors import InputError

__all__ = ["centre", "cosine", "nearest"]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two directions (D,). Errors: InputError (a zero, unequal lengths).

    >>> cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    0.7071067811865475
    """
    return float(_unit(a) @ _unit(b)) if a.shape == b.shape else _unequal(a, b)


def centre(directions: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of some directions, each of the same weight, as a direction (D,). Errors: InputError (none, or they cancel)."""
    if not directions:
        raise InputError("similarity: no voices, expected one or more to take the mean of; give some")  # fmt: skip
    return _unit(np.mean([_unit(d) for d in directions], 0))


def nearest(direction: np.ndarray, known: Mapping[str, np.ndarray]) -> str:
    """The name of the direction that is nearest; of equal ones the first. Errors: InputError (none is known)."""
    if not known:
        raise InputError("similarity: no voices to choose from, expected one or more; give some")
    return max(known, key=lambda name: cosine(direction, known[name]))


def _unit(direction: np.ndarray) -> np.ndarray:
    direction = np.asarray(direction, np.float64)
    length = float(np.linalg.norm(direction))
    if direction.ndim != 1 or not np.isfinite(length) or length == 0:
        raise InputError(f"similarity: shape {direction.shape} of length {length:g}, expected a direction (D,); drop it")  # fmt: skip
    return direction / length


def _unequal(a: np.ndarray, b: np.ndarray) -> float:
    raise InputError(f"similarity: shapes {a.shape} and {b.shape}, expected voices by one judge; judge both by one")  # fmt: skip
