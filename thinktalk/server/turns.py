"""Turns: pcm at 16 kHz -> when somebody begins to speak, and when it is the other one's turn.

    pcm --frames of 32 ms--> probability of speech --> Started(at) ... Stopped(at)

    server_vad      speech begins at `threshold`, and ends when it stayed 0.15 below for silence_duration_ms
    semantic_vad    the same, where the silence that ends a turn depends on `finished`: how likely the words are complete.
                    An utterance that seems complete ends soon, one that breaks off is waited for, at most 8, 4 or 2 s.

`finished` is given by whoever can judge words (judging.py). Without it, and as long as it does not know, semantic_vad is silence
alone, of a length that eagerness sets, and no better than server_vad with that length: nothing here pretends otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from thinktalk.server.vad import FRAME, RATE, Vad

__all__ = ["EAGERNESS", "FRAME_MS", "Patience", "Started", "Stopped", "Turns", "patience"]

FRAME_MS = 1000 * FRAME // RATE
HYSTERESIS = 0.15  # below the threshold by this much is silence: words have quiet moments
LEAST_FRAMES = 2  # of speech in a row before a turn begins: one frame may be a click
GLANCE_MS = 200  # silence after which the words are judged

EAGERNESS = {"low": (1000, 8000), "medium": (700, 4000), "auto": (700, 4000), "high": (450, 2000)}
"""Silence (ms) that ends a turn whose words nobody judges, and the longest one that may be waited for."""


@dataclass(frozen=True)
class Started:
    """Somebody speaks since `at` (samples since the first one)."""

    at: int


@dataclass(frozen=True)
class Stopped:
    """He has ended; `at` is where this became known (samples)."""

    at: int


@dataclass(frozen=True)
class Patience:
    """How much silence ends a turn."""

    silence_ms: float = 500.0
    """Where nobody judges the words, or not in time."""
    complete_ms: float | None = None
    """Where they are judged complete; they are judged after so much. None: they are not judged."""
    incomplete_ms: float | None = None
    """Where they are judged incomplete."""


def patience(eagerness: str, *, judged: bool) -> Patience:
    """What eagerness means. `judged`: whether somebody can tell if words are complete.

    >>> patience("high", judged=False)
    Patience(silence_ms=450, complete_ms=None, incomplete_ms=None)
    """
    silence_ms, longest_ms = EAGERNESS[eagerness]
    return Patience(silence_ms, GLANCE_MS, longest_ms) if judged else Patience(silence_ms)


class Turns:
    """The turns of one stream.

    `finished(since)` -> probability that what was said is complete, where a silence began `since` samples after the first one;
    None: not known yet, it is asked again 32 ms later. From `complete` on it is.
    """

    def __init__(
        self,
        vad: Vad,
        *,
        threshold: float = 0.5,
        patience: Patience | None = None,
        finished: Callable[[int], float | None] | None = None,
        complete: float = 0.5,
    ):
        self.vad, self.threshold = vad, threshold
        self.patience, self.finished, self.complete = patience or Patience(), finished, complete
        self.speaking = False
        self.position = 0  # samples that went through the detector
        self._state = vad.init_state()
        self._rest = np.zeros(0, np.float32)  # the frame under way
        self._loud = 0  # frames of speech in a row
        self._silent = 0  # frames of silence in a row, while a turn lasts
        self._wait_ms: float | None = None  # for this silence, once it was judged

    def feed(self, pcm: np.ndarray) -> Iterator[tuple[np.ndarray, Started | Stopped | None]]:
        """Each finished frame (512,), and what became known by it. pcm (S,) float32 in -1..1."""
        pcm = np.concatenate([self._rest, pcm])
        whole = len(pcm) // FRAME * FRAME
        self._rest = pcm[whole:]
        for frame in pcm[:whole].reshape(-1, FRAME):
            yield frame, self._frame(frame)

    def reset(self) -> None:
        """The turn under way, if any, is forgotten: what comes next begins in silence."""
        self.speaking, self._loud, self._silent, self._wait_ms = False, 0, 0, None

    def _frame(self, frame: np.ndarray) -> Started | Stopped | None:
        speech = float(self.vad.step(torch.from_numpy(frame)[None], self._state))
        self.position += FRAME
        if not self.speaking:
            self._loud = self._loud + 1 if speech >= self.threshold else 0
            if self._loud < LEAST_FRAMES:
                return None
            start = self.position - self._loud * FRAME
            self.reset()
            self.speaking = True
            return Started(start)
        if speech >= self.threshold:
            self._silent, self._wait_ms = 0, None
        elif speech < self.threshold - HYSTERESIS or self._silent:
            self._silent += 1
        if self._silent * FRAME_MS < self._needed_ms():
            return None
        self.reset()
        return Stopped(self.position)

    def _needed_ms(self) -> float:
        """How long this silence must be to end the turn."""
        patience, silence_ms = self.patience, self._silent * FRAME_MS
        if self.finished is None or patience.complete_ms is None:
            return max(patience.silence_ms, FRAME_MS)
        if self._wait_ms is None and silence_ms >= patience.complete_ms:
            likely = self.finished(self.position - self._silent * FRAME)
            if likely is not None:
                complete = likely >= self.complete
                self._wait_ms = patience.complete_ms if complete else patience.incomplete_ms
        return max(patience.silence_ms, FRAME_MS) if self._wait_ms is None else self._wait_ms
