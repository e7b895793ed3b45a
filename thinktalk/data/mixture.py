"""Mixture: sources with weights -> an endless plan of batches, made from metadata alone; it can stop and go on anywhere.

    Source     shards -> entries with a cost each (seconds, tokens); their order in an epoch is arithmetic on seed and epoch
    Mixture    sources -> draws, each source's share of all cost kept at its weight
    Buckets    draws -> batches of like lengths under a budget of padded cost
    Bins       draws -> batches of rows packed up to a capacity
    Plan       Mixture and one of the two -> batches of Draws, numbered 0, 1, 2, ...

The plan is one for the whole run: rank r of R takes batches r, r + R, ..., so neither ranks nor workers change what is
in a batch, and a run resumes with as many of them as it likes. Media are opened only by those who need them.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from thinktalk.data.samples import read_record
from thinktalk.data.shards import Entry, Fault, scan
from thinktalk.errors import ConfigError, InputError

__all__ = [
    "Bins",
    "Buckets",
    "Draw",
    "Grouping",
    "Mixture",
    "Plan",
    "Source",
    "expand",
    "seconds_of",
]

Measure = Callable[[dict[str, Any]], float]


class Draw(NamedTuple):
    """One sample's turn: the `index`-th of a source in this epoch."""

    source: int
    epoch: int
    index: int


def seconds_of(record: dict[str, Any]) -> float:
    """The cost of a spoken sample."""
    return float(record.get("seconds", 0.0))


def expand(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """Tar files of paths, folders and patterns, in order. Errors: InputError where there are none."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[str] = []
    for path in map(os.fspath, given):
        inside = os.path.join(glob.escape(path), "*.tar") if os.path.isdir(path) else path
        # a plain name stays even where no file has it: scan will say so
        tars = sorted(glob.glob(inside)) or ([path] if not glob.has_magic(inside) else [])
        if not tars:
            raise InputError(f"{path}: holds no .tar file, expected shards; make some with: thinktalk data make")  # fmt: skip
        found += [tar for tar in tars if tar not in found]
    return found


class Source:
    """The samples of some shards, and what each costs.

    Scanning reads headers and records once (about 10,000 samples a second); samples that cannot be used are in `faults`.

    >>> source = Source("corpus/train-*.tar", measure=seconds_of, keep=lambda record: record["seconds"] < 20)
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        weight: float = 1.0,
        measure: Measure = seconds_of,
        keep: Callable[[dict[str, Any]], bool] | None = None,
        shuffle: bool = True,
    ):
        """`measure` gives a record's cost; `keep` says whether it is used at all.

        Errors: ConfigError (weight), InputError (a shard that cannot be opened, no sample left).
        """
        if not weight > 0:
            raise ConfigError(f"weight {weight} of {paths}: expected more than 0; leave the source out instead")  # fmt: skip
        self.paths, self.weight, self.shuffle = expand(paths), weight, shuffle
        self.entries: list[Entry] = []
        self.faults: list[Fault] = []
        costs: list[float] = []
        starts = [0]
        for path in self.paths:
            shard = scan(path)
            self.faults += shard.faults
            for entry in shard.entries:
                try:
                    record = read_record(entry)
                except InputError as error:
                    where, _, reason = str(error).partition(": ")
                    self.faults.append(Fault(where, reason))
                    continue
                if keep is None or keep(record):
                    self.entries.append(entry)
                    costs.append(float(measure(record)))
            starts.append(len(self.entries))
        if not self.entries:
            why = f"; first fault: {self.faults[0]}" if self.faults else ""
            raise InputError(f"{', '.join(self.paths)[:200]}: no sample can be used{why}; see: thinktalk data check")  # fmt: skip
        self.costs = np.asarray(costs, np.float64)
        self._starts = starts
        if not (np.isfinite(self.costs).all() and (self.costs >= 0).all() and self.costs.any()):
            raise ConfigError(f"{', '.join(self.paths)[:200]}: its samples cost nothing or not a number; give a measure that fits them")  # fmt: skip

    def __len__(self) -> int:
        return len(self.entries)

    def order(self, seed: int, number: int, epoch: int, *, window: int = 16) -> np.ndarray:
        """Samples of an epoch in the order they are read: shards shuffled, then samples among `window` shards at a time.

        A function of its arguments alone, so that a place in it is one integer; reads stay within a few files.
        """
        if not self.shuffle:
            return np.arange(len(self))
        random = np.random.default_rng([seed, number, epoch])
        shards = random.permutation(len(self.paths))
        pieces = []
        for first in range(0, len(shards), window):
            near = [
                np.arange(self._starts[s], self._starts[s + 1])
                for s in shards[first : first + window]
            ]
            pieces.append(random.permutation(np.concatenate(near)))
        return np.concatenate(pieces)


class Mixture:
    """Draws from sources so that each one's part of the cost so far stays at its weight.

    No dice: the source furthest behind its share is next, so shares hold from the first batch on.
    """

    def __init__(self, sources: Sequence[Source], *, seed: int = 0):
        if not sources:
            raise ConfigError("mixture: no sources, expected at least one; give shards")
        self.sources, self.seed = list(sources), seed
        self._epochs = [0] * len(sources)
        self._places = [0] * len(sources)
        self._spent = [0.0] * len(sources)  # cost drawn, over weight
        self._orders: list[tuple[int, np.ndarray] | None] = [None] * len(sources)

    def entry(self, draw: Draw) -> Entry:
        """The sample that is meant."""
        return self.sources[draw.source].entries[draw.index]

    def cost(self, draw: Draw) -> float:
        """What it costs."""
        return float(self.sources[draw.source].costs[draw.index])

    def draw(self) -> Draw:
        """The next sample."""
        number = min(range(len(self.sources)), key=lambda n: (self._spent[n], n))
        source, epoch, place = self.sources[number], self._epochs[number], self._places[number]
        cached = self._orders[number]
        if cached is None or cached[0] != epoch:
            cached = self._orders[number] = (epoch, source.order(self.seed, number, epoch))
        draw = Draw(number, epoch, int(cached[1][place]))
        # a sample without a cost still moves its source on: the mean of them all stands in
        self._spent[number] += (self.cost(draw) or source.costs.mean()) / source.weight
        self._places[number] += 1
        if self._places[number] == len(source):
            self._epochs[number], self._places[number] = epoch + 1, 0
        return draw

    def state_dict(self) -> dict[str, Any]:
        """Where every source stands."""
        return {
            "sizes": [len(s) for s in self.sources],
            "seed": self.seed,
            "epochs": list(self._epochs),
            "places": list(self._places),
            "spent": list(self._spent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there. Errors: ConfigError when the data are not those of the state."""
        have = [len(s) for s in self.sources]
        if state["sizes"] != have or state["seed"] != self.seed:
            raise ConfigError(
                f"data: the checkpoint read sources of {state['sizes']} samples with seed {state['seed']}, these have {have} with seed {self.seed}; give it the same shards and seed"
            )
        self._epochs, self._places = list(state["epochs"]), list(state["places"])
        self._spent = list(state["spent"])


# ------------------------------------------------------------------------------------------------------------ batches


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
        if (waiting and longest * (len(waiting) + 1) > self.budget) or len(
            waiting
        ) == self.max_samples:
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
