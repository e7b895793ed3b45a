"""Harnessed: the benchmarks of a harness -> abilities, a row each; what cannot be measured is a row that says why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from thinktalk.errors import ConfigError, InputError
from thinktalk.eval.bench import Bench
from thinktalk.eval.harness.tasks import TASKS, Task
from thinktalk.eval.public.published import figure
from thinktalk.eval.rows import Row

__all__ = ["Ability", "abilities"]

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
