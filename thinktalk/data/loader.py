"""Loader: a plan of batches -> batches, read by this rank's workers; its place is exact to the batch, whoever reads.

    plan (all batches) -> this rank's -> workers: read, parse, `make` each sample -> `collate` -> batch

Each sample has its own random numbers, seeded by its draw, so augmentation does not depend on who makes it, or when.
A sample that cannot be read or made is passed by, counted and named; a batch that loses all of them takes their
neighbours, so that ranks stay in step.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from thinktalk.data.mixture import Draw, Mixture
from thinktalk.data.plan import Plan
from thinktalk.data.samples import Sample, parse
from thinktalk.data.shards import Fault
from thinktalk.errors import ConfigError, InputError

__all__ = ["Loader", "Reader"]

Make = Callable[[Sample, torch.Generator], Any]
SNAPSHOT = 64  # batches from one full state of the plan to the next
NEIGHBOURS = 64  # samples tried for a batch that lost all of its own


class Reader(Dataset):
    """draws -> (batch, faults): what a worker does; it remembers nothing."""

    def __init__(self, mixture: Mixture, make: Make, collate: Callable[[list[Any]], Any]):
        self.sources, self.seed = mixture.sources, mixture.seed
        self.make, self.collate = make, collate

    def __getitem__(self, draws: Sequence[Draw]) -> tuple[Any, int, list[Fault]]:
        """The batch, how many samples it was to have, and those that are missing."""
        faults: list[Fault] = []
        made = [x for draw in draws if (x := self._make(Draw(*draw), faults)) is not None]
        tried = len(draws)
        source, epoch, index = draws[0]
        for step in range(1, NEIGHBOURS + 1):
            if made:
                return self.collate(made), tried, faults
            neighbour = Draw(source, epoch, (index + step) % len(self.sources[source]))
            tried += 1
            if (x := self._make(neighbour, faults)) is not None:
                made.append(x)
        raise InputError(f"{tried} samples in a row cannot be used, the last one: {faults[-1]}; see: thinktalk data check")  # fmt: skip

    def _make(self, draw: Draw, faults: list[Fault]) -> Any:
        entry = self.sources[draw.source].entries[draw.index]
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence([self.seed, *draw]).generate_state(1, np.uint64)[0] >> 1)
        )
        try:
            return self.make(parse(entry), generator)
        except InputError as error:
            where, _, reason = str(error).partition(": ")
            faults.append(Fault(where if where.startswith(entry.where) else entry.where, reason))
            return None


class Loader:
    """This rank's batches, without end; `state_dict` is its place, good for any number of ranks and workers.

    >>> loader = Loader(plan, make=lambda sample, generator: sample.pcm(16_000), collate=list, workers=2)
    >>> batches = iter(loader); first = next(batches); place = loader.state_dict()
    """

    def __init__(
        self,
        plan: Plan,
        make: Make,
        collate: Callable[[list[Any]], Any],
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        prefetch: int = 4,
        max_faults: float = 0.2,
    ):
        """`make(sample, generator)` raises InputError for a sample it cannot use; `collate` joins what it gave.

        `max_faults`: the part of the samples that may be passed by; with more, InputError.
        """
        if not 0 <= rank < world or workers < 0:
            raise ConfigError(f"loader: rank {rank} of {world} with {workers} workers; expected 0 <= rank < world, workers 0 or more")  # fmt: skip
        self.plan, self.rank, self.world, self.workers = plan, rank, world, workers
        self.prefetch, self.max_faults = prefetch, max_faults
        self.reader = Reader(plan.mixture, make, collate)
        self.samples = 0
        """Samples asked for so far, by this rank."""
        self.skipped = 0
        """Those of them that were passed by."""
        self.faults: deque[Fault] = deque(maxlen=1000)
        """The latest of them, by name."""
        self._number = plan.number  # batches of the whole plan that are delivered
        self._snapshots: deque[dict[str, Any]] = deque([plan.state_dict()])

    def __iter__(self) -> Iterator[Any]:
        """Go on from the place of the loader; what an earlier iterator prefetched and did not deliver comes again."""
        self._rewind()
        with warnings.catch_warnings():
            # more workers than cores is the caller's wish
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            items = DataLoader(
                self.reader,
                batch_size=None,
                sampler=_Turns(self),
                collate_fn=_as_it_is,
                num_workers=self.workers,
                prefetch_factor=self.prefetch if self.workers else None,
            )
            delivered = iter(items)
        for batch, tried, faults in delivered:
            self._number += self.world
            while len(self._snapshots) > 1 and self._snapshots[1]["number"] <= self._number:
                self._snapshots.popleft()
            self._count(tried, faults)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The place after the batch delivered last: a state of the plan, and how far beyond it."""
        return {
            "number": self._number,
            "plan": self._snapshots[0],
            "samples": self.samples,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there, with as many ranks and workers as there are now; iterate anew."""
        self._number = state["number"]
        self._snapshots = deque([state["plan"]])
        self.samples, self.skipped = state["samples"], state["skipped"]
        self._rewind()

    def reshard(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from the states of all former ranks, whatever their number. Errors: ConfigError (they had parted)."""
        numbers = sorted({state["number"] for state in states})
        if len(numbers) != 1:
            raise ConfigError(f"data: the former ranks stood at batches {numbers}, expected one place; resume from a checkpoint that all of them wrote together")  # fmt: skip
        self.load_state_dict(states[0])
        for name in ("samples", "skipped"):  # the part of the former work that is this rank's
            setattr(self, name, sum(state[name] for state in states) // self.world)

    def _rewind(self) -> None:
        """Put the plan where the deliveries are."""
        first = self._snapshots[0]
        self._snapshots = deque([first])
        self.plan.load_state_dict(first)
        while self.plan.number < self._number:
            self.plan.next()

    def _plan_turn(self) -> list[Draw]:
        """The next batch of this rank, those of the others passed by."""
        turn: list[Draw] = []
        for rank in range(self.world):
            draws = self.plan.next()
            if rank == self.rank:
                turn = draws
        if self.plan.number - self._snapshots[-1]["number"] >= SNAPSHOT * self.world:
            self._snapshots.append(self.plan.state_dict())
        return turn

    def _count(self, tried: int, faults: list[Fault]) -> None:
        self.samples += tried
        self.skipped += len(faults)
        self.faults.extend(faults)
        if self.samples >= 100 and self.skipped > self.max_faults * self.samples:
            raise InputError(f"data: {self.skipped} of {self.samples} samples cannot be used, the last one: {self.faults[-1]}; see: thinktalk data check")  # fmt: skip


def _as_it_is(item: Any) -> Any:
    return item


class _Turns:
    """What DataLoader takes for a sampler: the draws of one batch after the other."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def __iter__(self) -> Iterator[list[Draw]]:
        while True:
            yield self.loader._plan_turn()
