"""Words in time, and sentences that nobody ever said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thinktalk.data.words import splice, word_times

ONE = {
    "text": "Red is nice.",
    "phones": "rd s ns.",
    "durations": [4, 2, 2, 2, 2, 2, 2, 2, 2, 4],
    "frame_seconds": 0.1,
}
"""Words at 0.4 to 0.8, 1.0 to 1.2, 1.4 to 2.0 s, all in all 2.4 s."""
TWO = {
    "text": "So what?",
    "phones": "so wt?",
    "durations": [2, 2, 2, 2, 1, 1, 1, 3],
    "frame_seconds": 0.1,
}
"""Words at 0.2 to 0.6 and 0.8 to 1.1 s, all in all 1.4 s."""


def told(record: dict) -> np.ndarray:
    """Numbers that stand for the recording: 100 a second, each its own time, the second recording's negative."""
    seconds = np.arange(round(sum(record["durations"]) * 10)) / 100
    return seconds if record is ONE else -seconds


def test_times() -> None:
    assert np.allclose(word_times(ONE), [(0.4, 0.8), (1.0, 1.2), (1.4, 2.0)])
    assert np.allclose(word_times(TWO), [(0.2, 0.6), (0.8, 1.1)])
    assert word_times({"text": "Hm."}) is None


def test_all_that_can_be_said() -> None:
    """Whole beginnings, whole ends; each word keeps its sound, and every cut is drawn."""
    generator = torch.Generator().manual_seed(0)
    seen = {}
    for _ in range(100):
        both = splice(ONE, TWO, generator, rate=10)
        sound = np.concatenate([told(ONE)[: round(both.until_s * 100)], told(TWO)[round(both.from_s * 100) :]])  # fmt: skip
        words = both.text.split()
        assert len(words) == len(both.times)
        for word, (start, end) in zip(words, both.times, strict=True):
            of = ONE if word in ONE["text"] else TWO
            own = dict(zip(of["text"].split(), word_times(of), strict=True))[word]
            heard = np.abs(sound[round(start * 100) : round(end * 100)])
            assert heard[0] == pytest.approx(own[0]) and heard[-1] == pytest.approx(own[1] - 0.01)
        seen[both.text] = (both.until_s, both.from_s)
    assert set(seen) == {
        f"{a} {b}" for a in ("Red", "Red is", "Red is nice.") for b in ("So what?", "what?")
    }
    assert seen["Red So what?"] == (0.9, 0.0) and seen["Red is nice. what?"] == (2.4, 0.7)


def test_what_is_not_timed_is_not_cut() -> None:
    generator = torch.Generator()
    for other in (
        {"text": "So."},
        TWO | {"text": "So what then?"},
        TWO | {"text": "", "phones": ""},
    ):
        assert splice(ONE, other, generator, rate=10) is None
        assert splice(other, ONE, generator, rate=10) is None
