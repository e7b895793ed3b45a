"""Sharing: items of one measurement, split among processes that share a folder -> the results of all, each asked once.

    torchrun --nproc-per-node 8 thinktalk eval ...       RANK, WORLD_SIZE  ->  Share(rank, world)
    item n is asked by process n % world                 NAME.part0of8-HASH.jsonl ... NAME.part7of8-HASH.jsonl

Each process writes a file of its own, so none waits for another; the first one waits for the results of all and makes the
table. What any earlier run has written counts, however many processes it had: eight that were killed go on as one.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinktalk.errors import ConfigError, InputError
from thinktalk.eval.items import Item, Result, Work, journal_path, read_results, run_items

__all__ = ["ALONE", "Share", "run_shared"]

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 3600.0
"""How long the first process waits without a new result before it says who is missing."""


@dataclass(frozen=True, slots=True)
class Share:
    """One process of several."""

    rank: int = 0
    world: int = 1
    gathers: bool = True
    """Whether the first one waits for the others; else somebody else makes the table."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ConfigError(f"process {self.rank} of {self.world}: expected a RANK below WORLD_SIZE; start it with torchrun")  # fmt: skip

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] = os.environ) -> Share:
        """RANK and WORLD_SIZE, as torchrun and Slurm's launchers set them; alone where they are not set. ConfigError."""
        said = environ.get("RANK", "0"), environ.get("WORLD_SIZE", "1")
        try:
            return cls(int(said[0]), int(said[1]), environ.get("THINKTALK_GATHER") != "0")
        except ValueError:
            raise ConfigError(f"RANK {said[0]!r}, WORLD_SIZE {said[1]!r}: expected two numbers; start it with torchrun") from None  # fmt: skip

    @property
    def leads(self) -> bool:
        """Whether this process makes the table."""
        return self.rank == 0 and self.gathers


ALONE = Share()


def run_shared(
    items: Sequence[Item],
    work: Work,
    folder: str | os.PathLike[str],
    name: str,
    *,
    identity: Mapping[str, Any],
    share: Share = ALONE,
    watch: Callable[[int, int], None] | None = None,
    patience: float = PATIENCE_SECONDS,
) -> list[Result]:
    """As `run_items`, by `share.world` processes; the results of all items in their order, in the first process.

    The others get what is there when their own part is done, and do not wait.
    Errors: InputError (as run_items; no new result for `patience` seconds while some are missing).
    """
    known = _written(folder, name, identity)
    twice = len({item.key for item in items}) < len(items)  # which run_items says in words
    if twice or (
        share == ALONE and not any(_is_part(path) for path in _files(folder, name, identity))
    ):
        return run_items(items, work, folder, name, identity=identity, watch=watch)
    own = [item for n, item in enumerate(items) if n % share.world == share.rank]
    mine = f"{name}.part{share.rank}of{share.world}"
    left = [item for item in own if item.key not in known]
    if left:
        run_items(left, work, folder, mine, identity=identity, watch=watch)
    if not share.leads:
        known = _written(folder, name, identity)
        return [known[item.key] for item in items if item.key in known]
    return _all(items, folder, name, identity, patience)


def _all(
    items: Sequence[Item], folder: str | os.PathLike[str], name: str, identity: Mapping[str, Any], patience: float
) -> list[Result]:  # fmt: skip
    """The results of every process, when they are there."""
    seen, since = -1, time.monotonic()
    while True:
        known = _written(folder, name, identity)
        missing = [item.key for item in items if item.key not in known]
        if not missing:
            return [known[item.key] for item in items]
        if len(known) != seen:
            seen, since = len(known), time.monotonic()
        if time.monotonic() - since >= patience:
            raise InputError(f"{name}: {len(missing)} of {len(items)} results are missing ({missing[0]!r} first) and none came for {patience:g} s, expected the other processes to go on; start the same command again")  # fmt: skip
        time.sleep(min(POLL_SECONDS, patience))


def _written(folder: str | os.PathLike[str], name: str, identity: Mapping[str, Any]) -> dict[str, Result]:  # fmt: skip
    """All results of this measurement by key, whoever wrote them; the first written where there are two."""
    found: dict[str, Result] = {}
    for path in _files(folder, name, identity):
        for result in read_results(path):
            found.setdefault(result["key"], result)
    return found


def _files(folder: str | os.PathLike[str], name: str, identity: Mapping[str, Any]) -> list[Path]:
    """The file of a single process and those of parts."""
    whole = journal_path(folder, name, identity)
    stem, _, digest = whole.stem.rpartition("-")
    part = re.compile(rf"{re.escape(stem)}\.part\d+of\d+-{digest}\.jsonl")
    parts = sorted(p for p in whole.parent.iterdir() if part.fullmatch(p.name)) if whole.parent.is_dir() else []  # fmt: skip
    return [p for p in [whole, *parts] if p.exists()]


def _is_part(path: Path) -> bool:
    return ".part" in path.name
