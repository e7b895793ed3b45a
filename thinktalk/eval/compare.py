"""Compare: the rows of two reports -> what changed, item by item, and whether that is more than chance.

    compare(now, before)  ->  [Change]      one a row that both have; significant where its 95 % interval excludes 0

The same items are drawn for both (paired bootstrap), which is far sharper than two intervals side by side. int8 against float32,
a part before and after it was replaced, a model before and after a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thinktalk.eval.rows import Row
from thinktalk.eval.suites.asked import ARM
from thinktalk.metrics.intervals import Interval, paired_bootstrap

__all__ = ["Change", "compare", "table"]


@dataclass(frozen=True, slots=True)
class Change:
    """One row of two reports."""

    row: Row
    before: Row
    gain: Interval
    """How much better it is now: a lower error rate is a gain, too."""

    @property
    def verdict(self) -> str:
        """ "better" or "worse" where that is significant, else "as before"."""
        return "better" if self.gain.low > 0 else "worse" if self.gain.high < 0 else "as before"


def compare(rows: Sequence[Row], before: Sequence[Row]) -> list[Change]:
    """Changes of the rows that both have, on the items that both have; rows without items, or with none in common, are left out."""
    known = {row.key: row for row in before}
    changes = []
    for row in rows:
        other = known.get(row.key)
        if other is None or row.other_tops is not None or ARM in row.key:
            continue  # a difference of differences, or a control, says nothing
        common = [key for key in row.keys if key in set(other.keys)]
        if not common:
            continue
        tops, bottoms = _of(row, common)
        other_tops, other_bottoms = _of(other, common)
        gain = paired_bootstrap(tops, other_tops, bottoms, other_bottoms, seed=row.seed)
        if row.lower_is_better:
            gain = Interval(-gain.value, -gain.high, -gain.low, gain.samples)
        changes.append(Change(row, other, gain))
    return changes


def _of(row: Row, keys: Sequence[str]) -> tuple[list[float], list[float] | None]:
    place = {key: n for n, key in enumerate(row.keys)}
    bottoms = None if row.bottoms is None else [row.bottoms[place[key]] for key in keys]
    return [row.tops[place[key]] for key in keys], bottoms


def table(before: Sequence[Row], rows: Sequence[Row]) -> str:
    """A line a row, for a terminal; those that are significantly worse now are counted at the end."""
    changes = compare(rows, before)
    lines = [f"{'':<58} {'before':>8}{'now':>8}   {'gain (95 %)':<26}{'n':>5}"]
    for change in changes:
        scale = 100 if change.row.unit == "%" else 1
        was, now = (_value(row, scale) for row in (change.before, change.row))
        gain = change.gain
        span = f"{scale * gain.value:+.2f} ({scale * gain.low:+.2f} to {scale * gain.high:+.2f})"
        lines.append(f"{change.row.title[:58]:<58} {was:>8}{now:>8}   {span:<26}{gain.samples:>5}  {change.verdict}")  # fmt: skip
    worse = sum(change.verdict == "worse" for change in changes)
    return "\n".join([*lines, f"{worse} of {len(changes)} rows significantly worse"])


def _value(row: Row, scale: float) -> str:
    return "" if row.value is None else f"{scale * row.value.value:.2f}"
