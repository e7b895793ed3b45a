"""Scoring: ways to say one text, and what a judge heard of each -> what is wrong with them, the best and the worst.

error = WER + pause_weight x wrong pauses a place + what the length is out of bounds + 1 if it did not stop
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from thinktalk.errors import ConfigError
from thinktalk.metrics.pauses import pause_errors
from thinktalk.metrics.wer import word_errors
from thinktalk.training.judges import Heard

__all__ = ["MiningConfig", "Said", "Score", "best_and_worst", "score"]


@dataclass(frozen=True, kw_only=True)
class MiningConfig:
    """How preferences are found."""

    prompts: int = 2000
    """Tasks that are tried."""
    samples: int = 6
    """Times each is said."""
    rows: int = 16
    """Tasks that are said side by side."""
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    """Sampling; wider than when people listen, so that there is something to choose from."""
    pause_weight: float = 0.5
    """How much wrong pauses count beside WER."""
    shortest: float = 0.8
    longest: float = 1.25
    """Length against the recording's, or the median of the samples: beyond, each e-fold costs 1."""
    gap: float = 0.1
    """Least difference in error between the two of a pair."""
    worst_chosen: float = 0.5
    """A best sample with a larger error teaches nothing; below 1 it has stopped by itself."""
    length_ratio: float = 2.0
    """The two of a pair differ at most by this factor in length: else length is all that is learned."""

    def __post_init__(self) -> None:
        if self.samples < 2 or self.rows < 1 or self.prompts < 1:
            raise ConfigError(f"mining: {self.samples} samples of {self.prompts} prompts, {self.rows} rows; expected at least 2, 1 and 1")  # fmt: skip
        if not 0 < self.shortest <= 1 <= self.longest or self.length_ratio < 1:
            raise ConfigError(f"mining: lengths {self.shortest} to {self.longest}, ratio {self.length_ratio}; expected bounds around 1 and a ratio of at least 1")  # fmt: skip


@dataclass(frozen=True)
class Said:
    """One way an answer was said."""

    codes: list[int]
    complete: bool
    """Whether it stopped by itself."""


@dataclass(frozen=True)
class Score:
    """What is wrong with it."""

    error: float
    """Everything, weighed; 0 is faultless."""
    wer: float
    pauses: float
    """Errors a place."""
    heard: str


def score(
    text: str,
    said: Sequence[Said],
    heard: Sequence[Heard],
    config: MiningConfig,
    *,
    reference: tuple[int, Heard] | None = None,
) -> list[Score]:
    """What is wrong with each; `reference`: codes of a recording of the same text, and what the judge heard of it."""
    lengths = [len(one.codes) for one in said]
    expected = reference[0] if reference is not None else statistics.median(lengths)
    scores = []
    for one, ears, length in zip(said, heard, lengths, strict=True):
        wrong = min(1.0, word_errors(text, ears.text).rate)
        pauses = pause_errors(text, ears.words, reference=reference[1].words if reference else None)
        ratio = max(length, 1) / max(expected, 1)
        out = max(0.0, math.log(config.shortest / ratio), math.log(ratio / config.longest))
        error = wrong + config.pause_weight * pauses.rate + min(1.0, out) + (not one.complete)
        scores.append(Score(error, wrong, pauses.rate, ears.text))
    return scores


def best_and_worst(
    said: Sequence[Said], scores: Sequence[Score], config: MiningConfig
) -> tuple[int, int] | None:
    """Numbers of the chosen and the rejected one; None where there is nothing to learn."""
    usable = [n for n, one in enumerate(said) if one.codes]
    if not usable:
        return None
    best = min(usable, key=lambda n: scores[n].error)
    if scores[best].error > config.worst_chosen:
        return None
    length = len(said[best].codes)

    def comparable(n: int) -> bool:
        ratio = len(said[n].codes) / length
        return 1 / config.length_ratio <= ratio <= config.length_ratio

    others = [n for n in usable if comparable(n) and scores[n].error >= scores[best].error + config.gap]  # fmt: skip
    return (best, max(others, key=lambda n: scores[n].error)) if others else None
