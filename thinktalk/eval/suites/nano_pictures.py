"""Pictures: what it is, which colour, how many, where, which number, all there is; of things and of drawn shapes.

Every question is asked with its picture, with another one, and with none: what is right without the picture was guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from thinktalk.data.synth import pictures
from thinktalk.data.synth.objects import open_world
from thinktalk.data.synth.world import World
from thinktalk.errors import InputError
from thinktalk.eval.bench import Bench
from thinktalk.eval.figures import draw_confusion
from thinktalk.eval.rows import Row
from thinktalk.eval.suites.asked import measure, questions, rows_of

__all__ = ["ABILITIES", "objects", "shapes"]

SHAPES: dict[str, tuple[str, World, tuple[str, str, str]]] = {
    "colour": ("pictures: the colour of a shape", pictures.colour, ("85 %", "95 %", "98 %")),
    "count": ("pictures: how many, none to five", pictures.count, ("70 %", "85 %", "95 %")),
    "relation": ("pictures: left of, right of, above, below", pictures.relation, ("65 %", "80 %", "90 %")),
    "digits": ("pictures: a number of one to four digits", pictures.digits, ("", "", "")),
    "describe": ("pictures: all shapes with their colours, in order", pictures.describe, ("", "", "")),
}  # fmt: skip
THINGS: dict[str, tuple[str, str, tuple[str, str, str]]] = {
    "object": ("pictures: the name of a thing", "what", ("60 %", "80 %", "90 %")),
    "things_count": ("pictures: how many things, none to five", "count", ("", "", "")),
    "things_relation": ("pictures: where things are", "relation", ("", "", "")),
}
FIGURES = {"colour": "Colours of shapes", "count": "How many shapes"}


def shapes(bench: Bench) -> Iterator[Row]:
    """Coloured shapes and digits, drawn."""
    for name, (title, world, reach) in SHAPES.items():
        arms = measure(bench, f"pictures/{name}", questions(bench, f"pictures-{name}", world))
        if name in FIGURES:
            draw_confusion(bench, f"pictures_{name}", arms[""].pairs, FIGURES[name])
        yield from rows_of(bench, f"pictures/{name}", title, arms, reach=reach)


def objects(bench: Bench) -> Iterator[Row]:
    """Animals, foods, vehicles and things of the house, as packages have them."""
    try:
        world = open_world(bench.held.cache)
    except InputError as error:
        for name, (title, _, reach) in THINGS.items():
            yield Row(key=f"pictures/{name}", title=title, reach=reach, missing=str(error))
        return
    for name, (title, method, reach) in THINGS.items():
        skill: Callable = getattr(world, method)
        arms = measure(bench, f"pictures/{name}", questions(bench, f"objects-{method}", skill))
        yield from rows_of(bench, f"pictures/{name}", title, arms, reach=reach)


ABILITIES = {"pictures": shapes, "objects": objects}
