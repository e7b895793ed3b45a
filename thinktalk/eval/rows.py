"""Rows: one number an item -> a line of the table: a rate or a mean with its interval, how many, how long, who judged.

tops (N,) errors, bottoms (N,) words     WER = sum / sum, items drawn again for the interval
tops (N,) and other_tops (N,)            the first minus the other on the same items (paired)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from thinktalk.metrics.intervals import Interval, bootstrap, paired_bootstrap

__all__ = ["Row"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    key: str
    """Its name for machines: "hear/voices"."""
    title: str
    tops: Sequence[float] = ()
    """A number an item: errors, or 1 for right, or a score."""
    bottoms: Sequence[float] | None = None
    """What `tops` are counted in: words; None for a mean."""
    other_tops: Sequence[float] | None = None
    """Of the system that is compared with, on the same items in the same order."""
    other_bottoms: Sequence[float] | None = None
    interval: Interval | None = None
    """Where the number is no rate of items: given by who measured it."""
    keys: Sequence[str] = ()
    """Names of the items, so that two runs can be compared pair by pair."""
    unit: str = "%"
    """ "%": a share, shown times a hundred; "": as it is."""
    lower_is_better: bool = False
    reach: tuple[str, str, str] = ("", "", "")
    """What was asked for: with CPU hours only, with GPU minutes, the aim."""
    judge: str = "exact"
    """Who said so, with its version."""
    seed: int = 0
    seconds: float = 0.0
    """What asking and judging took."""
    chance: float | None = None
    """What guessing gets, where it can be guessed."""
    faults: int = 0
    """Items that could not be answered; they count as wrong."""
    note: str = ""
    missing: str = ""
    """Why there is no number."""
    published: float | None = None
    """The report's own figure as it is printed there: 61.2 for 61.2 %."""
    published_at: str = ""
    """Where it stands in the report: "table 4"."""
    tokens: int = 0
    """Text tokens and codes that the model made."""
    worst: Sequence[Mapping[str, Any]] = ()
    """Results of the items it did worst on; "sound" is a file beside the report (eval/worst.py)."""

    @property
    def scale(self) -> float:
        """What a number is times in the table: 100 for a share."""
        return 100.0 if self.unit == "%" else 1.0

    @cached_property
    def value(self) -> Interval | None:
        """The number with its 95 % interval; None where it is missing."""
        if self.missing or (self.interval is None and not len(self.tops)):
            return None
        if self.interval is not None:
            return self.interval
        if self.other_tops is not None:
            return paired_bootstrap(
                self.tops, self.other_tops, self.bottoms, self.other_bottoms, seed=self.seed
            )
        return bootstrap(self.tops, self.bottoms, seed=self.seed)
