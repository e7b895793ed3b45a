"""The guard: the length of a gradient and its loss -> whether to take the step.

What is not finite, or many times what is usual, is skipped and counted; too many in a row stop the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from thinktalk.errors import ThinktalkError

__all__ = ["DivergedError", "Guard"]

WARM = 20  # steps before "usual" means anything: gradients fall fast at the start
MEMORY = 0.95  # of the running means: 20 steps


class DivergedError(ThinktalkError):
    """Too many steps in a row had to be skipped."""


class Guard:
    """Knows what is usual for each turn, by running means of accepted steps."""

    def __init__(self, explosion: float, patience: int):
        self.explosion, self.patience = explosion, patience
        self.usual: dict[str, list[float]] = {}  # turn -> [steps, mean log norm, mean |loss|]
        self.in_a_row = 0
        self.last = (0.0, 0.0)

    def allows(self, turn: str, norm: float, loss: float) -> bool:
        """Whether a step of this turn may be taken; taken ones shape what is usual."""
        self.last = (norm, loss)
        if not (math.isfinite(norm) and math.isfinite(loss)):
            return False
        steps, log_norm, size = self.usual.get(turn, [0.0, 0.0, 0.0])
        if self.explosion and steps >= WARM:
            limit = log_norm + math.log(self.explosion)
            if math.log(max(norm, 1e-30)) > limit or abs(loss) > self.explosion * max(size, 1e-3):
                return False
        keep = min(MEMORY, steps / (steps + 1))  # the plain mean at first
        self.usual[turn] = [
            steps + 1,
            keep * log_norm + (1 - keep) * math.log(max(norm, 1e-30)),
            keep * size + (1 - keep) * abs(loss),
        ]
        return True

    def count(self, lost: bool) -> None:
        """One step has ended."""
        self.in_a_row = self.in_a_row + 1 if lost else 0

    def check(self, step: int, last_good: Callable[[], int | None]) -> None:
        """DivergedError if too many steps in a row were lost; `last_good` names the checkpoint to go back to."""
        if self.in_a_row < self.patience:
            return
        good = last_good()
        raise DivergedError(
            f"step {step}: {self.in_a_row} steps in a row had a loss or gradient that is not finite or far too large "
            f"(last: loss {self.last[1]:g}, gradient {self.last[0]:g}); the last checkpoint is "
            f"{'none' if good is None else f'of step {good}'}; lower optim.lr, or look at the data of these steps"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"usual": self.usual, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.usual, self.in_a_row = dict(state["usual"]), state["in_a_row"]
