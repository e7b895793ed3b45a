"""Checkpoints of a run: named tensors of all ranks -> DIRECTORY/step-00000100, whole or not there at all.

    save       copies, then writes in the background (DCP: each rank its shards) into step-N.partial
    settle     when that has ended: renames it to step-N, then removes the oldest; a failed one is removed and counted
    load       into the tensors of a run of any number of ranks

A process killed at any moment leaves the last step-N untouched; so does a disk that fills up.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from thinktalk.errors import WeightsError
from thinktalk.training.parallel import World

__all__ = ["Checkpoints", "pack", "unpack"]

NAME = re.compile(r"step-(\d{8})")


class Checkpoints:
    """The checkpoints of one run; every rank has one and calls the same methods in the same order."""

    def __init__(self, directory: str | Path, *, world: World = World(), keep: int = 2):  # noqa: B008
        self.directory, self.world, self.keep = Path(directory), world, max(1, keep)
        self.failures: list[str] = []
        """What went wrong with saves that failed, on the leading rank's word."""
        self._pending: tuple[int, Future] | None = None
        # DCP says so of every save of one process, from its own thread, where a passing filter would race
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        if world.leads:
            self.directory.mkdir(parents=True, exist_ok=True)
            for partial in self.directory.glob("step-*.partial"):  # of a run that was killed
                shutil.rmtree(partial, ignore_errors=True)
        world.gather(None)  # nobody looks before it is tidy

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, oldest first."""
        found = (NAME.fullmatch(path.name) for path in self.directory.iterdir())
        return sorted(int(m[1]) for m in found if m and (self.path(int(m[1])) / ".metadata").exists())  # fmt: skip

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.directory / f"step-{step:08d}"

    def save(self, step: int, tensors: Mapping[str, Tensor], *, wait: bool = False) -> None:
        """Begin to save: tensors (plain or sharded) may change as soon as this returns. `wait` until it is there.

        A save still under way is waited for first. Failure is no exception: see `failures`; the run goes on.
        """
        self.settle(wait=True)
        partial = self._partial(step)
        try:
            future = dcp.async_save(
                dict(tensors),
                storage_writer=dcp.FileSystemWriter(partial, overwrite=True),
                process_group=self.world.saving,
                no_dist=self.world.size == 1,
            )
        except (
            Exception,
            CheckpointException,
        ) as error:  # staging or planning: the disk, memory, another rank
            future = Future()
            future.set_exception(error)
        assert isinstance(future, Future)
        self._pending = step, future
        if wait:
            self.settle(wait=True)

    def settle(self, *, wait: bool = False) -> None:
        """See to a save that has ended (or wait for its end): keep it and drop the oldest, or clean up and count it."""
        if self._pending is None or not (wait or self._pending[1].done()):
            return
        step, future = self._pending
        self._pending = None
        error = future.exception()
        if error is not None:
            self.failures.append(f"step {step}: {_root_cause(error)}")
            if self.world.leads:
                shutil.rmtree(self._partial(step), ignore_errors=True)
            return
        if not self.world.leads:
            return
        if self.path(step).exists():  # saved before, by a run that was taken back
            shutil.rmtree(self.path(step))
        self._partial(step).rename(self.path(step))
        _flush(self.directory)
        for old in self.steps()[: -self.keep]:
            # renamed first: a kill in the middle of the removal leaves no half checkpoint under a good name
            doomed = self._partial(old)
            self.path(old).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _partial(self, step: int) -> Path:
        return self.path(step).with_suffix(".partial")

    def latest(self) -> int | None:
        """The newest whole checkpoint, the same on every rank, or None."""
        steps = self.steps() if self.world.leads else []
        return self.world.gather(steps[-1] if steps else None)[0]

    def sizes(self, step: int) -> dict[str, torch.Size]:
        """Name -> whole shape of every tensor of a checkpoint. WeightsError where it cannot be read."""
        try:
            metadata = dcp.FileSystemReader(self.path(step)).read_metadata()
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise WeightsError(
                f"{self.path(step)}: {_root_cause(error)}; expected a checkpoint; remove it to use the one before"
            ) from error
        return {
            name: entry.size
            for name, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }

    def load(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Read the tensors by name, in place, however the run that saved them was sharded.

        WeightsError names what the checkpoint lacks and whose shape differs.
        """
        sizes = self.sizes(step)
        missing = [name for name in tensors if name not in sizes]
        other = [name for name, t in tensors.items() if name in sizes and sizes[name] != t.shape]
        if missing or other:
            raise WeightsError(
                f"{self.path(step)}: lacks {_some(missing)}, has other shapes for {_some(other)}; "
                f"expected the checkpoint of the same model and stage; give the run another --out"
            )
        try:
            dcp.load(
                dict(tensors),
                storage_reader=dcp.FileSystemReader(self.path(step)),
                process_group=self.world.saving,
                no_dist=self.world.size == 1,
            )
        except (Exception, CheckpointException) as error:
            raise WeightsError(
                f"{self.path(step)}: {_root_cause(error)}; expected a whole checkpoint; remove it to use the one before"
            ) from error


def pack(value: Any) -> Tensor:
    """Numbers, strings, tensors, dicts and lists of them as bytes (N,) uint8, which DCP stores as it stores weights."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def unpack(packed: Tensor) -> Any:
    """What `pack` packed; nothing in it is executed."""
    return torch.load(io.BytesIO(packed.numpy().tobytes()), weights_only=True)


def _root_cause(error: BaseException) -> str:
    """The innermost reason in one line; DCP wraps what happened on each rank."""
    failures = getattr(error, "failures", None)
    if failures:
        first = next(iter(failures.values()))
        return _root_cause(first[0] if isinstance(first, tuple) else first)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "nothing"
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _flush(directory: Path) -> None:
    """Make a rename last through a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
