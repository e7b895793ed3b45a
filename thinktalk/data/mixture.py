"""Mixture: sources with weights -> an endless series of draws, made from metadata alone; it can stop and go on anywhere.

    Source     shards -> entries with a cost each (seconds, tokens); their order in an epoch is arithmetic on seed and epoch
    Mixture    sources -> draws, each source's share of all cost kept at its weight

What comes of the draws is in plan.py. Media are opened only by those who need them.
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from thinktalk.data.samples import read_record
from thinktalk.data.shards import Entry, Fault, scan
from thinktalk.errors import ConfigError, InputError

__all__ = ["Draw", "Mixture", "Source", "expand", "seconds_of", "weighted"]

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


def weighted(shards: str) -> list[tuple[str, float | None]]:
    """ "a/*.tar, b/train-*.tar@0.25" -> each pattern and the weight behind its @, None where there is none.

    Errors: ConfigError (a weight that is none, no pattern).
    """
    found: list[tuple[str, float | None]] = []
    for item in filter(None, (part.strip() for part in shards.split(","))):
        paths, at, weight = item.rpartition("@")
        try:
            share = float(weight) if at else None
        except ValueError:
            raise ConfigError(f"shards {item!r}: {weight!r} is no weight; write PATTERN@NUMBER, such as speech/*.tar@0.5") from None  # fmt: skip
        if share is not None and not (math.isfinite(share) and share > 0):
            raise ConfigError(f"shards {item!r}: weight {share}, expected more than 0; leave the source out instead")  # fmt: skip
        found.append((paths if at else item, share))
    if not found:
        raise ConfigError("shards: none, expected at least one pattern; make some with: thinktalk data make")  # fmt: skip
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
        self._spent[number] += (self.cost(draw) or float(source.costs.mean())) / source.weight
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
