"""Jobs over shards: one tar is one piece of work, done by whoever is free; on this machine, or on a cluster by Ray Data.

    filtering(folder of tars, keep)      which samples stay, with what record: Work, a shard for each that is read
    making(world, count, ...)            a world made from a seed: Work, shard i from the random numbers of (seed, i)

    run(tasks, work, out, on="ray")      OUT/NAME.tar whole or not at all, OUT/.job/NAME.json when it is done -> Report

A task that is done is passed by, so a job that was killed, or whose machines were, is started again with the same line. What
cannot be read is passed by, counted and named. `work` may be a class: each worker makes one and keeps it (a judge on a GPU).
"""

from __future__ import annotations

import importlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from thinktalk.data.mixture import expand
from thinktalk.data.samples import Sample, parse
from thinktalk.data.shards import Fault, ShardWriter, scan
from thinktalk.data.synth.world import World, draw_item, record_of
from thinktalk.errors import ConfigError, InputError

__all__ = ["Report", "Task", "Work", "filtering", "making", "run"]

Keep = Callable[[Sample], bool | Mapping[str, Any]]
"""Whether a sample stays: true, or a record in the place of its own; InputError says why it does not."""


@dataclass(frozen=True)
class Task:
    """One shard to write."""

    name: str
    """Of the tar, without its ending."""
    source: str = ""
    """The tar it is made of."""
    number: int = 0
    """Which shard of a world."""
    count: int = 0
    """Samples of it."""


Work = Callable[[Task], Iterator[tuple[str, Mapping[str, bytes]] | Fault]]
"""The samples of a shard (key, members), and what was passed by."""


@dataclass
class Report:
    """What a job did; tasks done by an earlier one count."""

    shards: int = 0
    """Tars that hold something."""
    samples: int = 0
    faults: list[str] = field(default_factory=list)
    """What was passed by, shard and sample named."""
    done_before: int = 0
    """Tasks that an earlier run had done."""


def run(
    tasks: Sequence[Task],
    work: Work | type,
    out: str | os.PathLike[str],
    *,
    on: Literal["here", "ray"] = "here",
    workers: int | tuple[int, int] | None = None,
    **resources: Any,
) -> Report:
    """Do what is not done yet. On "ray", OUT is a folder that every machine sees.

    `workers`: how many at a time, or from how many to how many, on Ray; `resources` go to Ray Data's map (num_cpus=1,
    num_gpus=1). Errors: ConfigError (two tasks of a name, no Ray), InputError (OUT cannot be written).
    """
    names = [task.name for task in tasks]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ConfigError(f"job: two tasks are called {twice[0]!r}, expected names of their own; give each source a job")  # fmt: skip
    folder = Path(out)
    try:
        (folder / ".job").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}), expected a folder; choose another") from None  # fmt: skip
    waiting = [task for task in tasks if not _told(folder, task).exists()]
    if waiting and on == "ray":
        _on_ray(waiting, work, folder, workers, resources)
    elif waiting:
        one = work() if isinstance(work, type) else work
        for task in waiting:
            _do(task, one, folder)
    return _collect(tasks, folder, done_before=len(tasks) - len(waiting))


def _told(folder: Path, task: Task) -> Path:
    return folder / ".job" / f"{task.name}.json"


def _do(task: Task, work: Work, folder: Path) -> None:
    """One task: its tar, then the note that it is done."""
    faults: list[str] = []
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as scratch:
        with ShardWriter(Path(scratch) / "shard", max_bytes=1 << 62) as writer:
            for item in work(task):
                if isinstance(item, Fault):
                    faults.append(str(item))
                else:
                    writer.write(*item)
        for path in writer.paths:
            path.replace(folder / f"{task.name}.tar")
        note = Path(scratch) / "note"
        note.write_text(json.dumps({"samples": writer.samples, "faults": faults}))
        note.replace(_told(folder, task))


def _collect(tasks: Sequence[Task], folder: Path, *, done_before: int) -> Report:
    report = Report(done_before=done_before)
    for task in tasks:
        told = json.loads(_told(folder, task).read_text())
        report.samples += told["samples"]
        report.shards += told["samples"] > 0
        report.faults += told["faults"]
    return report


class _Worker:
    """What Ray keeps on a machine: the work, made once."""

    def __init__(self, work: Work | type, folder: str):
        self.work: Work = work() if isinstance(work, type) else work
        self.folder = Path(folder)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        _do(Task(**row), self.work, self.folder)
        return {"name": row["name"]}


def _on_ray(
    tasks: Sequence[Task],
    work: Work | type,
    folder: Path,
    workers: int | tuple[int, int] | None,
    resources: Mapping[str, Any],
) -> None:
    """A row a task; a task whose machine dies is done again by another."""
    try:
        data: Any = importlib.import_module("ray.data")
    except ImportError as error:
        raise ConfigError(f"ray: cannot be imported ({error}), expected Ray Data; install it: pip install 'thinktalk[ray]'") from None  # fmt: skip
    rows = data.from_items([asdict(task) for task in tasks], override_num_blocks=len(tasks))
    done = rows.map(
        _Worker,
        fn_constructor_args=(work, str(folder.resolve())),
        concurrency=workers or (1, len(tasks)),
        **resources,
    )
    for _ in done.iter_rows():
        pass


# ---------------------------------------------------------------------------------------------------------------- work


def filtering(
    shards: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], keep: Keep
) -> tuple[list[Task], Work]:
    """Tasks and work: every tar once more, with the samples for which `keep` is true.

    >>> tasks, work = filtering("shards", lambda sample: sample.seconds < 20); run(tasks, work, "short")
    """
    paths = expand(shards)
    tasks = [Task(name=Path(path).stem, source=os.path.abspath(path)) for path in paths]
    return tasks, partial(_filtered, keep)


def _filtered(keep: Keep, task: Task) -> Iterator[tuple[str, Mapping[str, bytes]] | Fault]:
    shard = scan(task.source)
    yield from shard.faults
    for entry in shard.entries:
        try:
            sample = parse(entry)
            kept = keep(sample)
        except InputError as error:
            where, _, reason = str(error).partition(": ")
            yield Fault(where if where.startswith(entry.where) else entry.where, reason)
            continue
        if kept is False or kept is None:
            continue
        record = sample.record if kept is True else kept
        yield entry.key, {"json": json.dumps(record, ensure_ascii=False).encode(), **sample.media}


def making(
    world: World, count: int, *, split: str = "train", seed: int = 0, shard_samples: int = 1000
) -> tuple[list[Task], Work]:
    """Tasks and work: `count` samples of a world and a split, the bytes that `thinktalk data make --world` gives.

    >>> tasks, work = making(pictures.ask, 10_000_000, seed=1); run(tasks, work, "pictures", on="ray")
    """
    firsts = range(0, count, shard_samples)
    tasks = [Task(f"{split}-{number:05d}", number=number, count=min(shard_samples, count - first)) for number, first in enumerate(firsts)]  # fmt: skip
    return tasks, partial(_made, world, split, seed, shard_samples)


def _made(world: World, split: str, seed: int, shard_samples: int, task: Task) -> Iterator[tuple[str, Mapping[str, bytes]]]:  # fmt: skip
    draw = random.Random(f"{seed} {split} {task.number}")
    first = task.number * shard_samples
    for number in range(first, first + task.count):
        item = draw_item(world, split, draw)
        record = json.dumps(record_of(item, split, draw), ensure_ascii=False).encode()
        yield f"{number:06d}", {"json": record, **item.media()}
