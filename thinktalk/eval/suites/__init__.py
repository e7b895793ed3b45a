"""Suites: what is asked of a model. Each module has ABILITIES: name -> (bench -> rows), and each ability is measured alone.

SUITES names the modules of a suite, in the order of its table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module

from thinktalk.eval.bench import Bench
from thinktalk.eval.rows import Row

__all__ = ["SUITES", "Ability", "abilities"]

Ability = Callable[[Bench], Iterable[Row]]
SUITES: dict[str, tuple[str, ...]] = {
    "nano": (
        "nano_speech",
        "nano_codec",
        "nano_questions",
        "nano_pictures",
        "nano_video",
        "nano_sounds",
        "nano_live",
    )
}


def abilities(suite: str) -> Mapping[str, Ability]:
    """The abilities of a suite by name, in the order of its table."""
    found: dict[str, Ability] = {}
    for name in SUITES[suite]:
        found |= import_module(f"thinktalk.eval.suites.{name}").ABILITIES
    return found
