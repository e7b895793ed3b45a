"""Plan: draws -> batches, numbered 0, 1, 2, ...; what waits for its batch is part of the place.

    Buckets    batches of like lengths under a budget of padded cost
    Bins       batches of rows packed up to a capacity
    Plan       a Mixture and one of the two

The plan is one for the whole run: rank r of R takes batches r, r + R, ..., so neither ranks nor workers change what is
in a batch, and a run resumes with as many of them as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from thinktalk.data.mixture import Draw, Mixture
from thinktalk.errors import ConfigError, InputError

__all__ = ["Bins", "Buckets", "Grouping", "Plan"]


class Grouping(Protocol):
    """Draws into batches."""

    def add(self, draw: Draw, cost: float) -> list[Draw] | None:
        """Take one more draw; a batch where one is complete."""

    def state_dict(self) -> dict[str, Any]:
        """What waits."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let this wait."""


class Buckets:
    """Batches of like lengths: a draw waits among its like until they fill `budget` (longest x count).

    `edges` are upper ends of the buckets, the last one open: (2, 4, 8) makes four. `max_samples` bounds a batch of short
    ones; what alone is over the budget is a batch of its own.
    """

    def __init__(self, budget: float, *, edges: Sequence[float] = (), max_samples: int = 1024):
        if budget <= 0 or max_samples < 1 or list(edges) != sorted(set(edges)):
            raise ConfigError(f"buckets: budget {budget}, edges {tuple(edges)}, max_samples {max_samples}; expected a budget above 0, rising edges and at least one sample")  # fmt: skip
        self.budget, self.edges, self.max_samples = budget, list(edges), max_samples
        self._waiting: list[list[tuple[Draw, float]]] = [[] for _ in range(len(self.edges) + 1)]

    def add(self, draw: Draw, cost: float) -> list[Draw] | None:
        """A full batch, or None; the draw that did not fit any more begins the next one."""
        number = int(np.searchsorted(self.edges, cost))
        waiting = self._waiting[number]
        longest = max([cost, *(c for _, c in waiting)])
        count = len(waiting)
        if count and (longest * (count + 1) > self.budget or count == self.max_samples):
            self._waiting[number] = [(draw, cost)]
            return [d for d, _ in waiting]
        waiting.append((draw, cost))
        return None

    def state_dict(self) -> dict[str, Any]:
        """What waits in each bucket."""
        return {"waiting": [[[*d, c] for d, c in bucket] for bucket in self._waiting]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let this wait."""
        if len(state["waiting"]) != len(self._waiting):
            raise ConfigError(f"buckets: the checkpoint has {len(state['waiting'])}, here are {len(self._waiting)}; give the same edges")  # fmt: skip
        self._waiting = [[(Draw(*d[:3]), d[3]) for d in bucket] for bucket in state["waiting"]]


class Bins:
    """Batches of `rows` rows, each packed with draws of at most `capacity` cost together, first fit among open rows.

    The draws of a batch come row after row, so that packing.pack finds the rows again. What alone is over the capacity is
    dropped and counted in `dropped`.
    """

    def __init__(self, capacity: float, *, rows: int = 1, open_rows: int = 16):
        if capacity <= 0 or rows < 1 or open_rows < 1:
            raise ConfigError(f"packing: capacity {capacity}, rows {rows}, open_rows {open_rows}; expected all above 0")  # fmt: skip
        self.capacity, self.rows, self.open_rows = capacity, rows, open_rows
        self.dropped = 0
        self._open: list[list[tuple[Draw, float]]] = []
        self._full: list[list[Draw]] = []

    def add(self, draw: Draw, cost: float) -> list[Draw] | None:
        """A batch where `rows` rows are full, or None."""
        if cost > self.capacity:
            self.dropped += 1
            return None
        fits = (row for row in self._open if sum(c for _, c in row) + cost <= self.capacity)
        row = next(fits, None)
        if row is not None:
            row.append((draw, cost))
            return None
        if len(self._open) == self.open_rows:
            fullest = max(range(self.open_rows), key=lambda n: sum(c for _, c in self._open[n]))
            self._full.append([d for d, _ in self._open.pop(fullest)])
        self._open.append([(draw, cost)])
        if len(self._full) < self.rows:
            return None
        batch, self._full = [d for row in self._full for d in row], []
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The rows that are open, those that are full, and the count of dropped draws."""
        return {
            "open": [[[*d, c] for d, c in row] for row in self._open],
            "full": [[list(d) for d in row] for row in self._full],
            "dropped": self.dropped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let these wait."""
        self._open = [[(Draw(*d[:3]), d[3]) for d in row] for row in state["open"]]
        self._full = [[Draw(*d) for d in row] for row in state["full"]]
        self.dropped = state["dropped"]


class Plan:
    """The batches of a run, without end; `state_dict` is its place.

    >>> plan = Plan(Mixture([Source("speech"), Source("chat", weight=0.2)]), Buckets(30.0, edges=(2, 4, 8)))
    """

    def __init__(self, mixture: Mixture, grouping: Grouping):
        self.mixture, self.grouping = mixture, grouping
        self.number = 0
        """Batches planned so far."""

    def __iter__(self) -> Iterator[list[Draw]]:
        while True:
            yield self.next()

    def next(self) -> list[Draw]:
        """The next batch. Errors: InputError when a whole epoch of every source fills none."""
        idle = 2 * sum(map(len, self.mixture.sources)) + 100_000
        for _ in range(idle):
            draw = self.mixture.draw()
            batch = self.grouping.add(draw, self.mixture.cost(draw))
            if batch:
                self.number += 1
                return batch
        raise InputError(f"data: {idle} samples filled no batch, they are too long or too short for it; change capacity or budget")  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Its place: plain numbers, whose size does not grow with the data."""
        return {
            "number": self.number,
            "mixture": self.mixture.state_dict(),
            "grouping": self.grouping.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.mixture.load_state_dict(state["mixture"])
        self.grouping.load_state_dict(state["grouping"])
        self.number = state["number"]
