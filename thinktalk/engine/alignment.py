"""Alignment: a reply's text and the sound of it -> how many of its words were spoken after so many seconds.

    text    -> words, each with the seconds it takes to say        (a model of its letters)
    sound   -> level every 10 ms -> which moments are voiced       (silence takes no words)
    pauses  -> the commas and full stops they belong to            (the best chain of pairs)
    word i is spoken when the voiced time since the last pair reaches the seconds of the words since then, at this voice's pace

The Talker says codes and never which word they belong to, so this is an estimate; docs/conversation.md has its measured
error. When the sound is whole, its end is the text's end and the pace follows from it. Before that the pace is that of the
replies before, and of an average voice at first.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Pace", "Spoken", "anchored", "warped", "word_seconds", "words"]

FRAME_S = 0.01
SILENCE_BELOW = 10 ** (-40 / 20)
"""A moment is silent when it is 40 dB below the loudest level so far."""
# least squares over 4884 utterances of 22 English voices whose durations are known (benchmarks/alignment.py)
VOWELS_S, CONSONANT_S = 0.079, 0.068
SLACK_S = 0.02
"""A word was heard when all but this of it was: levels are known by frames of 10 ms."""
PAUSE_S = 0.15
"""A silence as long as this may be a comma or a full stop."""
STRAIN = 0.3
"""Voice between two pauses that is off its expected length by e ** 0.3 costs as much as a pair of them earns."""
STOPS = set(".,!?;:…—。，！？；：、")
REACH = 8
"""Pauses and stops in a row that may go unpaired."""
WIDE_S = 0.2
"""A Chinese, Japanese or Korean character: about five a second."""
PACE_PRIOR_S = 5.0
"""Seconds of speech that the average voice counts for beside what was heard of this one."""

_WIDE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_WIDE}][^\w\s]*|[^\s{_WIDE}]+")
_VOWELS = re.compile(r"[aeiouyäöüàâéèêëîïôûùáíóúãõåæøœаеёиоуыэюя]+")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def words(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word in the text, with the punctuation that clings to it; a wide character is a word.

    >>> [text[a:b] for a, b in words(text := "Yes, I know.")]
    ['Yes,', 'I', 'know.']
    """
    return [match.span() for match in _WORD.finditer(text)]


def word_seconds(word: str) -> float:
    """How long an average voice takes to say it, pauses aside.

    >>> word_seconds("strawberry") > word_seconds("a") > word_seconds("...") == 0
    True
    """
    if re.match(rf"[{_WIDE}]", word):
        return WIDE_S
    letters = "".join(c for c in word.lower() if c.isalnum())
    letters = "".join(_DIGITS[int(c)] if c in "0123456789" else c for c in letters)
    if not letters:
        return 0.0
    if letters.endswith("e") and len(letters) > 3 and letters[-2] not in "aeiouy":
        letters = letters[:-1]  # silent
    vowels = len(_VOWELS.findall(letters))
    consonants = len(_VOWELS.sub("", letters))
    return VOWELS_S * max(1, vowels) + CONSONANT_S * consonants


@dataclass
class Pace:
    """How fast a voice speaks, from its replies so far."""

    expected_s: float = 0.0
    """What an average voice would have taken."""
    voiced_s: float = 0.0
    """What it took."""

    def add(self, expected_s: float, voiced_s: float) -> None:
        """A reply was spoken to its end."""
        if expected_s > 0 and voiced_s > 0:
            self.expected_s += expected_s
            self.voiced_s += voiced_s

    @property
    def speed(self) -> float:
        """Average seconds said in a second of voice; 1 is the average voice."""
        return (self.expected_s + PACE_PRIOR_S) / (self.voiced_s + PACE_PRIOR_S)


@dataclass
class Spoken:
    """The sound of one reply, as far as it was made."""

    levels: list[np.ndarray] = field(default_factory=list)
    """Root mean square of each 10 ms."""
    rest: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """Samples of the frame under way."""
    samples: int = 0
    rate: int = 24_000

    @property
    def seconds(self) -> float:
        """How long it is so far."""
        return self.samples / self.rate

    def add(self, pcm: np.ndarray, rate: int) -> None:
        """More sound (S,)."""
        self.rate, frame = rate, round(rate * FRAME_S)
        self.samples += len(pcm)
        pcm = np.concatenate([self.rest, pcm])
        whole = len(pcm) // frame * frame
        self.levels.append(np.sqrt(np.square(pcm[:whole].reshape(-1, frame)).mean(1)))
        self.rest = pcm[whole:]

    def _voiced(self) -> np.ndarray:
        """Which frames of 10 ms are not silent."""
        levels = np.concatenate(self.levels) if self.levels else np.zeros(0)
        return levels > levels.max(initial=0.0) * SILENCE_BELOW

    def voiced_s(self, until_s: float = math.inf) -> float:
        """Seconds of voice before a moment."""
        voiced = self._voiced()
        if not len(voiced):
            return min(until_s, self.seconds)
        frames = until_s / FRAME_S
        if frames >= len(voiced):
            return float(voiced.sum()) * FRAME_S
        whole = int(frames)
        return (float(voiced[:whole].sum()) + (frames - whole) * bool(voiced[whole])) * FRAME_S

    def pauses_s(self) -> list[float]:
        """Seconds of voice before each pause between voices."""
        voiced = self._voiced()
        edges = np.flatnonzero(np.diff(voiced.astype(np.int8), prepend=0, append=0))
        starts, stops = edges[1:-1:2], edges[2:-1:2]  # silent from .. to
        so_far = np.cumsum(voiced) * FRAME_S
        long = stops - starts >= round(PAUSE_S / FRAME_S)
        return [float(so_far[start - 1]) for start in starts[long]]

    def characters(self, text: str, heard_s: float, pace: Pace, *, complete: bool) -> int:
        """Characters of the text that were spoken after `heard_s`, up to the end of a word.

        `complete`: text and sound are whole; then all of the sound is all of the text.
        """
        if complete and heard_s >= self.seconds - FRAME_S:
            return len(text)
        spans = words(text)
        ends_s = np.cumsum([word_seconds(text[a:b]) for a, b in spans])
        voiced, whole, speed = self.voiced_s(heard_s), self.voiced_s(), pace.speed
        if not len(ends_s) or not voiced:
            return 0
        if complete:
            speed = float(ends_s[-1]) / whole
        stops = [float(ends_s[n]) for n, (_, b) in enumerate(spans[:-1]) if text[b - 1] in STOPS]
        anchors = [(0.0, 0.0), *anchored(self.pauses_s(), stops, speed)]
        if complete:
            anchors.append((whole, float(ends_s[-1])))
        said_s = warped(voiced, anchors, speed)
        if said_s <= 0:
            return 0
        count = int(np.searchsorted(ends_s, said_s + SLACK_S, side="right"))
        return spans[count - 1][1] if count else 0


def anchored(pauses: list[float], stops: list[float], speed: float) -> list[tuple[float, float]]:
    """Pauses (voiced seconds) and the stops of the text (expected seconds) that belong together, in order.

    The best chain: each pair earns 1 and costs the square of how far the voice between two pairs is from the expected pace.
    """
    if not pauses or not stops or speed <= 0:
        return []
    best = np.full((len(pauses), len(stops)), -np.inf)
    came = np.full((len(pauses), len(stops)), -1)
    for p, pause in enumerate(pauses):
        for s, stop in enumerate(stops):
            best[p, s] = 1 - _strain(pause * speed, stop)
            if p and s:
                p0, s0 = max(0, p - REACH), max(0, s - REACH)
                spans = (pause - np.array(pauses[p0:p])[:, None]) * speed
                chains = best[p0:p, s0:s] + 1 - _strain(spans, stop - np.array(stops[s0:s]))
                row, column = np.unravel_index(int(chains.argmax()), chains.shape)
                if chains[row, column] > best[p, s]:
                    best[p, s] = chains[row, column]
                    came[p, s] = (p0 + row) * len(stops) + s0 + column
    at, chain = int(best.argmax()), []
    if best.flat[at] <= 0:
        return []
    while at >= 0:
        p, s = divmod(at, len(stops))
        chain.append((pauses[p], stops[s]))
        at = int(came[p, s])
    return chain[::-1]


def _strain(voiced: Any, expected: Any) -> Any:
    """How badly so many seconds of voice fit so many of text."""
    return np.square(np.log((voiced + 0.1) / (expected + 0.1)) / STRAIN)


def warped(voiced: float, anchors: list[tuple[float, float]], speed: float) -> float:
    """Expected seconds of text after so many of voice: straight between anchors, at `speed` after the last one."""
    last_voiced, last_said = anchors[-1]
    if voiced >= last_voiced:
        return last_said + (voiced - last_voiced) * speed
    return float(np.interp(voiced, *zip(*anchors, strict=True)))
