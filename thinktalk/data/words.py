"""Words in time: phones and durations -> when each word is said; two recordings -> one that nobody ever said.

    "First three words of one." + "And the rest of another."  --splice-->  "First three rest of another."

A small corpus is soon known by heart, whole sentences at a time. Cut between words, where both voices are the same, it has as
many sentences as pairs of words: what is left to learn is how words sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from thinktalk.data.samples import FRAME_SECONDS

__all__ = ["Splice", "Times", "splice", "word_times"]

Times = Sequence[tuple[float, float]]
"""Start and end of each word in seconds."""


def word_times(record: Mapping[str, Any], prefix: str = "") -> Times | None:
    """Times of the words of a record's speech, `prefix` "answer_" for an answer's; None where its phones are not known."""
    phones, durations = record.get(prefix + "phones"), record.get(prefix + "durations")
    if not phones or not durations or len(durations) != len(phones) + 2:
        return None
    ends = np.cumsum(durations) * float(record.get("frame_seconds", FRAME_SECONDS))
    spaces = [-1, *(i for i, phone in enumerate(phones) if phone == " "), len(phones)]
    # ends[i] is where phone i begins: what comes first is the silence before
    return [(float(ends[a + 1]), float(ends[b])) for a, b in pairwise(spaces) if b > a + 1]


@dataclass(frozen=True)
class Splice:
    """The beginning of one recording and the rest of another."""

    text: str
    times: Times
    """Of its words, in the new recording."""
    until_s: float
    """How much of the first is heard."""
    from_s: float
    """Where the second goes on."""


def splice(
    first: Mapping[str, Any], second: Mapping[str, Any], generator: torch.Generator, *, rate: float
) -> Splice | None:
    """Two records cut between words, drawn, each cut in the middle of its pause and at a whole 1 / `rate` of a second.

    None where a record's words are not known one by one.
    """
    known = [(record.get("text", "").split(), word_times(record)) for record in (first, second)]
    if any(not times or len(words) != len(times) for words, times in known):
        return None
    (words, times), (others, later) = known
    assert times is not None and later is not None
    # the first gives at least its first word, the second its last
    stop = 1 + int(torch.randint(len(words), (), generator=generator))
    start = int(torch.randint(len(others), (), generator=generator))
    until_s, from_s = _cut(first, times, stop, rate), _cut(second, later, start, rate)
    moved = [(a + until_s - from_s, b + until_s - from_s) for a, b in later[start:]]
    return Splice(" ".join(words[:stop] + others[start:]), [*times[:stop], *moved], until_s, from_s)


def _cut(record: Mapping[str, Any], times: Times, place: int, rate: float) -> float:
    """The second before word `place`, in the middle of the pause; the beginning before the first, the end after the last."""
    if place == 0:
        return 0.0
    if place < len(times):
        return round(0.5 * (times[place - 1][1] + times[place][0]) * rate) / rate
    frame = float(record.get("frame_seconds", FRAME_SECONDS))
    return int(sum(record["durations"]) * frame * rate) / rate
