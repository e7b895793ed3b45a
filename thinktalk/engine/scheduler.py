"""Scheduler: who waits for what -> the next unit of work, by deadline.

Somebody who is being listened to and would soon run dry goes first, whoever is first to run dry before the others. Then those
who could join the others' steps but for a little work of their own. Everybody else is served by due time: a new reply shortly
after it was asked for, words at reading pace, prompts at the pace of prefill, so that a long document neither stalls those who
speak nor waits for ever. Whatever the most urgent one needs is done for all who can use it, in one step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from thinktalk.engine.replying import Stage
from thinktalk.engine.seat import Seat

__all__ = ["Cost", "Costs", "Unit", "next_unit"]

LITTLE = 256  # tokens of prompt that are read before others go on: one unit of work
TOGETHER = (Stage.THINK, Stage.TALK, Stage.SOUND)


class Unit(NamedTuple):
    """One step of work."""

    stage: Stage
    seats: list[Seat]  # the most urgent one first


def next_unit(
    seats: Iterable[Seat], now: float, *, guard_s: float = 0.2, most_blocks: int = 256
) -> Unit | None:
    """The next unit; None when nothing can be done. `guard_s`: how close to running dry is close."""
    best: Seat | None = None
    stage, first = Stage.READ, (9, 0.0)
    for seat in seats:
        wish = seat.next_stage()
        if wish is None:
            continue
        wanted, due = wish
        rank = (_class(seat, wanted, due - now < guard_s), due)
        if rank < first:
            best, stage, first = seat, wanted, rank
    if best is None:
        return None
    if stage not in TOGETHER:
        return Unit(stage, [best])
    return Unit(stage, company(best, seats, stage, most_blocks))


def _class(seat: Seat, stage: Stage, is_close: bool) -> int:
    """0: somebody is about to run dry; 1: a little work lets him join the others; 2: in turn."""
    reply = seat.replying
    if reply is None:
        return 2
    if is_close and reply.speaking and reply.dry_at is not None:
        return 0
    if stage is Stage.READ:
        return 1 if seat.pieces[0].left <= LITTLE else 2
    return 1 if stage in (Stage.BEGIN, Stage.OPEN) else 2


def company(best: Seat, seats: Iterable[Seat], stage: Stage, most_blocks: int) -> list[Seat]:
    """All who can take part in the step that `best` needs, `best` among them."""
    first = best.replying
    assert first is not None
    able = [s for s in seats if s.replying is not None and s.replying.can(stage)]
    if stage is Stage.SOUND:  # the most urgent ones, as long as there is something to win by it
        able = [s for s in able if s.replying.speech is first.speech]
        able.sort(key=lambda s: s.replying.due)
        blocks, count = 0, 0
        while count < len(able) and (count == 0 or blocks < most_blocks):
            blocks += able[count].replying.blocks
            count += 1
        return able[: max(1, count - (blocks > most_blocks))]
    row = "text_row" if stage is Stage.THINK else "code_row"
    lane = getattr(first, row).lane
    together = [s for s in able if getattr(s.replying, row).lane is lane]
    return sorted(together, key=lambda s: getattr(s.replying, row).index)


class Cost:
    """Seconds of a step over n conversations, as measured lately: a + b n, least squares with fading memory."""

    FADE = 0.98

    def __init__(self) -> None:
        self.w = self.n = self.nn = self.s = self.ns = 0.0

    def add(self, n: int, seconds: float) -> None:
        """One step was measured."""
        f = self.FADE
        self.w, self.n, self.nn = f * self.w + 1, f * self.n + n, f * self.nn + n * n
        self.s, self.ns = f * self.s + seconds, f * self.ns + n * seconds

    def of(self, n: float) -> float:
        """Seconds that a step over n would take; 0 when none was measured."""
        if not self.w:
            return 0.0
        mean, seconds = self.n / self.w, self.s / self.w
        spread = self.nn / self.w - mean * mean
        if spread < 1e-6 * mean * mean:  # one size was seen: half of it taken as fixed
            return seconds * (0.5 + 0.5 * n / mean)
        slope = max(0.0, (self.ns / self.w - mean * seconds) / spread)
        slope = min(slope, seconds / mean)
        return seconds + slope * (n - mean)


class Costs:
    """What the stages have cost lately, and so what one more speaker would mean."""

    def __init__(self) -> None:
        self.steps = {stage: Cost() for stage in Stage}
        self.sound_s = self.sound_work_s = 0.0  # fading: sound made, and what making it took
        self.longest = 0.0  # a unit of work, fading

    def add(self, stage: Stage, n: int, seconds: float, sound_s: float = 0.0) -> None:
        """A unit of work over n conversations took so long and gave so much sound."""
        self.steps[stage].add(n, seconds)
        self.longest = max(seconds, 0.95 * self.longest)
        if stage is Stage.SOUND:  # the first windows give little or nothing, and cost
            self.sound_s = Cost.FADE * self.sound_s + sound_s
            self.sound_work_s = Cost.FADE * self.sound_work_s + seconds

    def load(self, speakers: int, codes_per_second: float) -> float:
        """Seconds of work each second if so many spoke at once; 0 while nothing was measured."""
        talk, think = self.steps[Stage.TALK].of(speakers), self.steps[Stage.THINK].of(speakers)
        # lock-step: never more tokens than codes; most replies write a third as many
        sound = self.sound_work_s / self.sound_s if self.sound_s else 0.0
        return codes_per_second * (talk + think / 3) + speakers * sound
