"""Windows: which blocks of codes go through the DiT together when speech is streamed; a fixed function of the block's index.

    groups (1, 1, 2, 4, 6, 6, ...)      own blocks    0 | 1 | 2 3 | 4 5 6 7 | 8 ...
    computed for window 3 (look ahead 1)                          4 5 6 7 + 8        4 5 6 7 are kept, 8 is computed again
    ... with 2 blocks of look-back                          2 3 + 4 5 6 7 + 8

Timing never moves a boundary, so however the codes come, the sound is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from thinktalk.errors import ConfigError

__all__ = ["Windows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """How codes are cut for streaming, and how the flow walks in each window."""

    look_back_blocks: int | None = None
    """Blocks (240 ms) before its own that a window computes anew; None computes none and remembers what its look-back
    layers heard of the block before at every evaluation, so that the past is heard exactly as it was spoken."""
    look_ahead_blocks: int = 1
    """Blocks after its own that a window waits for."""
    groups: tuple[int, ...] = (1, 1, 2, 4, 6)
    """Own blocks of the first windows: small for an early first sound, then growing for speed; the last one repeats."""
    vocoder_lookahead: int | None = None
    """Mel frames the vocoder waits for; None is what its convolutions reach (24 officially: the rest is below float32)."""
    points: int = 10
    """Times of the flow's walk."""
    guidance: float = 0.5
    """Strength of the classifier-free guidance."""
    sway: float | None = -1.0
    """Sway of the walk's times."""
    method: str = "rk4"
    """Solver of the flow: rk4, midpoint, euler."""

    def __post_init__(self) -> None:
        if not self.groups or min(self.groups) < 1:
            raise ConfigError(f"windows: groups {self.groups}, expected one or more blocks each")
        for name in ("look_back_blocks", "look_ahead_blocks", "vocoder_lookahead"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"windows: {name} {value}, expected 0 or more")

    def own(self, index: int) -> tuple[int, int]:
        """First block of window number `index` and the one after its last."""
        told = len(self.groups) - 1
        start = sum(self.groups[: min(index, told)]) + max(0, index - told) * self.groups[-1]
        return start, start + self.groups[min(index, told)]

    def computed(self, index: int) -> tuple[int, int]:
        """The same with what it looks back and ahead at."""
        start, stop = self.own(index)
        return max(0, start - (self.look_back_blocks or 0)), stop + self.look_ahead_blocks
