"""Pointing: an answer about things -> which of them each of its words is about, and where that thing is.

    "The green shape is a circle."  things: a green circle, a black ring  ->  "green", "circle": the first
    box (x0, y0, x1, y1) in a picture of 8 x 8 tokens    --cells-->  the tokens of the row through its middle
    from 0.2 s to 2.8 s in a sound of 25 tokens a second --slots-->  the tokens of that time

What worlds made from seeds know of their pictures and sounds (a record's `things` and `events`); guided attention learns from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["about", "cells", "slots"]

_WORD = re.compile(r"[a-z0-9]+")
Span = tuple[int, int]


def about(answer: str, question: str, things: Sequence[Mapping[str, Any]]) -> list[tuple[Span, int]]:  # fmt: skip
    """Letters (from, to) of the words of `answer` that are about a thing, and the number of the thing.

    A word is about a thing whose name or colour it is. Of several such things the one of which most is said, in question and
    answer, is meant; of like ones the first, then the second ("a bark, then a bark").
    """
    own = [{*_WORD.findall(f"{t.get('name', '')} {t.get('colour', '')}".lower())} for t in things]
    told = {*_WORD.findall(f"{question} {answer}".lower())}
    found: list[tuple[Span, int]] = []
    used: set[tuple[str, int]] = set()
    for match in _WORD.finditer(answer.lower()):
        like = [k for k, words in enumerate(own) if match[0] in words]
        if like:
            most = max(len(own[k] & told) for k in like)
            like = [k for k in like if len(own[k] & told) == most]
            chosen = next((k for k in like if (match[0], k) not in used), like[0])
            used.add((match[0], chosen))
            found.append((match.span(), chosen))
    return found


def cells(box: Sequence[float], rows: int, columns: int) -> Span:
    """From and to of the tokens, row by row, that lie in the box and in the row through its middle; box from 0 to 1."""
    x0, y0, x1, y1 = (min(max(float(value), 0.0), 1.0) for value in box)
    row = min(int((y0 + y1) / 2 * rows), rows - 1)
    first = min(int(x0 * columns), columns - 1)
    last = max(first + 1, min(math.ceil(x1 * columns), columns))
    return row * columns + first, row * columns + last


def slots(start_s: float, end_s: float, rate: float, count: int) -> Span:
    """From and to of `count` tokens of sound, `rate` a second, that are heard in that time; at least one."""
    first = min(max(math.floor(start_s * rate), 0), count - 1)
    return first, max(first + 1, min(math.ceil(end_s * rate), count))
