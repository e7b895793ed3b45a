"""Sounds: what it is, how many, rising or falling, in which order; noises made by models, in renderings nobody trained with."""

from __future__ import annotations

from collections.abc import Iterator

from thinktalk.data.synth import sounds
from thinktalk.data.synth.world import World
from thinktalk.eval.bench import Bench
from thinktalk.eval.figures import draw_confusion
from thinktalk.eval.rows import Row
from thinktalk.eval.suites.asked import measure, questions, rows_of

__all__ = ["ABILITIES", "hear_sounds"]

SETS: dict[str, tuple[str, World, tuple[str, str, str]]] = {
    "all": ("sounds: all kinds of questions", sounds.ask, ("70 %", "88 %", "95 %")),
    "what": ("sounds: which of 39", sounds.what, ("", "", "")),
    "count": ("sounds: how many, one to six", sounds.count, ("", "", "")),
    "pitch": ("sounds: rising or falling", sounds.pitch, ("", "", "")),
}
FIGURES = {"what": "Which sound", "count": "How many sounds"}


def hear_sounds(bench: Bench) -> Iterator[Row]:
    """Each set with its sound, with another one, and with none."""
    for name, (title, world, reach) in SETS.items():
        arms = measure(bench, f"sounds/{name}", questions(bench, f"sounds-{name}", world))
        if name in FIGURES:
            draw_confusion(bench, f"sounds_{name}", arms[""].pairs, FIGURES[name])
        yield from rows_of(bench, f"sounds/{name}", title, arms, reach=reach)


ABILITIES = {"sounds": hear_sounds}
