"""Harnessed: the benchmarks of a harness -> abilities, a row each; what cannot be measured is a row that says why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from thinktalk.errors import ConfigError, InputError
from thinktalk.eval.bench import Bench
from thinktalk.eval.harness.tasks import TASKS, Task
from thinktalk.eval.items import Result
from thinktalk.eval.public.published import figure
from thinktalk.eval.rows import Row

__all__ = ["Ability", "abilities", "row_of"]

Ability = Callable[[Bench], Iterable[Row]]


def abilities(
    measured: Callable[[Bench, str, Task], Row], wanted: Callable[[Task], bool]
) -> Mapping[str, Ability]:
    """An ability for each task that is wanted. `measured` gives its row; InputError and ConfigError are told in its place."""
    return {key: _ability(measured, key, task) for key, task in TASKS.items() if wanted(task)}


def _ability(measured: Callable[[Bench, str, Task], Row], key: str, task: Task) -> Ability:
    def ability(bench: Bench) -> list[Row]:
        try:
            row = measured(bench, key, task)
        except (InputError, ConfigError) as error:
            row = Row(key=key, title=task.title, missing=str(error), note=task.note, **figure(key))
        return [row] if bench.share.leads else []

    ability.__doc__ = task.title
    return ability


def row_of(
    bench: Bench, key: str, task: Task, results: Sequence[Result], *, program: str, seconds: float, failed: Sequence[str] = (),
) -> Row:  # fmt: skip
    """What a harness found, as a row. `program`: its name and version; `failed`: a line for each item that could not be asked."""
    counted: dict[str, Any] = {"bottoms": [r["of"] for r in results]} if any("of" in r for r in results) else {}  # fmt: skip
    return Row(
        key=key,
        title=task.title,
        tops=[r["score"] / task.scale for r in results],
        keys=[r["key"] for r in results],
        judge=f"{program}, {task.task}, {task.metric}",
        seconds=seconds,
        tokens=sum(r["tokens"] for r in results),
        seed=bench.seed,
        faults=len(failed),
        note="; ".join(filter(None, [task.note, *failed[:1]])),
        **counted,
        **figure(key),
    )
