"""Ledger: what was done for one reply, and when -> Latency, what its listener waited for.

    asked ---- input ----> first token -- text to code --> first code -- code to sound --> first sound ------> last sound
          [READ] [BEGIN]               [THINK] [OPEN]                 [TALK] [THINK] [SOUND]   [TALK] [SOUND] ...
          what stands in [ ] are steps of the model; between them a reply waits for others, or for the engine itself

The four causes of the first sound's delay that the report names (arXiv 2503.20215, "Designs for Streaming"): input, text to
code and code to sound follow one another and add up to the first sound; the fourth, the model itself, is what the steps
took of these three. Then the sound is played: a listener hears each stretch when it has come and the one before is over.

A ledger runs nothing and asks no clock: whoever works tells it the time. Its memory does not grow. Times are seconds here,
milliseconds in Latency.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from thinktalk.events import Latency

__all__ = ["Ledger", "Steps"]


@dataclass
class Steps:
    """Steps of one kind that a reply took part in."""

    count: int = 0
    seconds: float = 0.0
    """From their beginning to their end."""
    share: float = 0.0
    """Its own part of that: a step over n replies counts 1 / n for each."""


@dataclass(eq=False)
class Ledger:
    """The times of one reply. Clock: any, as long as it is one."""

    asked_at: float
    moments: dict[str, float] = field(default_factory=dict)
    """Seconds from asked_at until something happened first."""
    steps: dict[str, Steps] = field(default_factory=dict)
    """By kind of work."""
    sound_s: float = 0.0
    """Sound given out."""
    dry_at: float | None = None
    """When the listener will have heard all that was given out; None before the first sound."""
    underruns: int = 0
    """How often he had heard all of it and waited for more."""
    underrun_s: float = 0.0
    margin_s: float | None = None
    """The least time by which a stretch of sound was early (0 when one was late); None before the second one."""
    _step: tuple[str, float, int] | None = None  # the one under way: kind, since, over how many
    _before_sound_s: float = 0.0  # of all steps before the first sound

    # ---------------------------------------------------------------------------------------------------------- writing

    def enter(self, kind: str, now: float, company: int = 1) -> None:
        """A step over `company` replies, this one among them, begins."""
        self._step = (kind, now, company)

    def leave(self, now: float) -> None:
        """It has ended; nothing happens when none was under way."""
        if self._step is None:
            return
        (kind, since, company), self._step = self._step, None
        steps = self.steps.get(kind)
        if steps is None:
            steps = self.steps[kind] = Steps()
        steps.count += 1
        steps.seconds += now - since
        steps.share += (now - since) / company
        if "first_sound" not in self.moments:
            self._before_sound_s += now - since

    def note(self, name: str, now: float) -> None:
        """Something happened; only its first time counts."""
        if name not in self.moments:
            self.moments[name] = now - self.asked_at

    def sound(self, seconds: float, now: float) -> None:
        """A stretch of sound was given out."""
        if self.dry_at is None:
            if self._step is not None:  # of the step that made it, what led to this moment
                self._before_sound_s += now - self._step[1]
            self.note("first_sound", now)
            self.dry_at = now
        elif now > self.dry_at:  # he has waited; from now on he hears this
            self.underruns += 1
            self.underrun_s += now - self.dry_at
            self.margin_s, self.dry_at = 0.0, now
        else:
            early = self.dry_at - now
            self.margin_s = early if self.margin_s is None else min(self.margin_s, early)
        self.dry_at += seconds
        self.sound_s += seconds
        self.moments["last_sound"] = now - self.asked_at

    # ---------------------------------------------------------------------------------------------------------- reading

    def latency(self, now: float) -> Latency:
        """How it stands; a step under way counts as far as it has come."""
        work_s = {kind: steps.share for kind, steps in self.steps.items()}
        if self._step is not None:
            kind, since, company = self._step
            work_s[kind] = work_s.get(kind, 0.0) + (now - since) / company
        token, code, sound = (
            self.moments.get(f"first_{name}") for name in ("token", "code", "sound")
        )
        waited = self.moments.get("last_sound")
        return Latency(
            input_ms=_ms(token),
            text_to_code_ms=_ms(code, token),
            code_to_sound_ms=_ms(sound, code),
            steps_ms=None if sound is None else 1e3 * self._before_sound_s,
            first_sound_ms=_ms(sound),
            total_ms=1e3 * self.moments.get("done", now - self.asked_at),
            real_time_factor=None if waited is None else waited / self.sound_s,
            work_factor=None if waited is None else sum(work_s.values()) / self.sound_s,
            work_ms={kind: 1e3 * seconds for kind, seconds in work_s.items()},
            underruns=self.underruns,
            underrun_ms=1e3 * self.underrun_s,
            margin_ms=_ms(self.margin_s),
        )


def _ms(moment: float | None, since: float | None = 0.0) -> float | None:
    return None if moment is None or since is None else 1e3 * (moment - since)
