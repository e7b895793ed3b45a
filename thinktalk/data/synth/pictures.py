"""Pictures: coloured shapes and digits; what, which colour, how many, where, which number, and what there is in all.

Content is what is asked and what the answer depends on: in the test stand pairs, counts and numbers that were never
trained with, in styles that were (and in one that was not).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from thinktalk.data.synth import drawing
from thinktalk.data.synth.drawing import COLOURS, SHAPES, Figure
from thinktalk.data.synth.encode import jpeg
from thinktalk.data.synth.world import Item

__all__ = ["NUMBERS", "PLACES", "SKILLS", "UNCOUNTED", "ask", "listed", "picture", "plural", "scatter", "shape_figure"]  # fmt: skip

SIZES = ((112, 112), (112, 112), (112, 112), (112, 168), (168, 112), (140, 140), (168, 168), (224, 224))  # fmt: skip
"""Height and width in pixels: 16 tokens where a token is 28 x 28, up to 64."""
NUMBERS = ("no", "one", "two", "three", "four", "five")
PLACES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
UNCOUNTED = {"bread", "cheese", "corn", "popcorn", "broccoli"}
PLURALS = {"mouse": "mice", "sheep": "sheep", "fish": "fish", "deer": "deer", "leaf": "leaves", "knife": "knives", "wolf": "wolves", "goose": "geese", "snowman": "snowmen", "tomato": "tomatoes", "potato": "potatoes"}  # fmt: skip


def plural(noun: str) -> str:
    """More than one of it.

    >>> plural("hot dog"), plural("cherry"), plural("toy fox")
    ('hot dogs', 'cherries', 'toy foxes')
    """
    head, space, last = noun.rpartition(" ")
    if last in PLURALS:
        last = PLURALS[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = f"{last[:-1]}ies"
    else:
        last += "s"
    return head + space + last


def listed(names: Sequence[str]) -> str:
    """ "a, b and c", each with its article where it has one.

    >>> listed(["red circle", "orange star"])
    'a red circle and an orange star'
    """
    each = [n if n in UNCOUNTED else f"{'an' if n[0] in 'aeio' or n.startswith('umb') else 'a'} {n}" for n in names]  # fmt: skip
    return " and ".join(filter(None, [", ".join(each[:-1]), each[-1]]))


def scatter(
    draw: random.Random, count: int, size: tuple[int, int]
) -> list[tuple[float, float, int]]:
    """Places (x, y) and sides of `count` figures that do not touch, smaller where there are more of them."""
    short = min(size)
    low, high = (0.30, 0.48) if count <= 2 else (0.24, 0.34) if count <= 4 else (0.19, 0.26)
    sides = [round(short * draw.uniform(low, high)) for _ in range(count)]
    centres = drawing.place(draw, [0.55 * s for s in sides], size, gap=2)
    return [(x, y, side) for (x, y), side in zip(centres, sides, strict=True)]


def shape_figure(draw: random.Random, shape: str, colour: str, at: tuple[float, float, int], style: str) -> Figure:  # fmt: skip
    """A shape at (x, y) with its side."""
    x, y, side = at
    grain = draw.getrandbits(32)
    image = lambda: drawing.shape_image(shape, colour, side, style, random.Random(grain))  # noqa: E731
    return Figure(shape, colour, x, y, side, side, image)


def picture(skill: str, content: str, wordings: tuple[str, ...], answer: str, figures: Sequence[Figure], size: tuple[int, int], draw: random.Random, *, style: str, held: bool = False, **fields: Any) -> Item:  # fmt: skip
    """An item with one picture of these figures; its record says what is to be seen where."""
    seed = draw.getrandbits(32)

    def media() -> dict[str, bytes]:
        ground = drawing.ground_image(size, random.Random(seed))
        return {"jpg": jpeg(drawing.compose(ground, figures))}

    facts = {"things": drawing.things(figures, size), "style": style, "content": content}
    return Item(skill, content, wordings, answer, fields, {"jpg": size}, media, facts=facts, held=held)  # fmt: skip


class _Scene:
    """Shapes of the given kinds, one style for all, somewhere in a picture of some size."""

    def __init__(self, draw: random.Random, kinds: Sequence[tuple[str, str]]):
        self.size = draw.choice(SIZES)
        self.style = draw.choice((*drawing.SHAPE_STYLES, drawing.HELD_SHAPES))
        places = scatter(draw, len(kinds), self.size)
        self.figures = [shape_figure(draw, *kind, at, self.style) for kind, at in zip(kinds, places, strict=True)]  # fmt: skip

    def item(self, skill: str, content: str, wordings: tuple[str, ...], answer: str, draw: random.Random, **fields: Any) -> Item:  # fmt: skip
        held = self.style == drawing.HELD_SHAPES
        return picture(skill, content, wordings, answer, self.figures, self.size, draw, style=self.style, held=held, **fields)  # fmt: skip


def _kinds(draw: random.Random, count: int) -> list[tuple[str, str]]:
    """Different shapes in different colours."""
    return list(zip(draw.sample(SHAPES, count), draw.sample(list(COLOURS), count), strict=True))


def _others(kinds: Sequence[tuple[str, str]]) -> str:
    return " and ".join(sorted(f"{colour} {shape}" for shape, colour in kinds)) or "nothing"


def colour(draw: random.Random) -> Item:
    """The colour of one of up to three shapes."""
    kinds = _kinds(draw, draw.randint(1, 3))
    shape, hue = kinds[0]
    wordings = ("What colour is the {shape}?", "Which colour does the {shape} have?", "Tell me the colour of the {shape}.", "The {shape} has which colour?")  # fmt: skip
    content = f"{hue} {shape} beside {_others(kinds[1:])}"
    return _Scene(draw, kinds).item("colour", content, wordings, f"The {shape} is {hue}.", draw, shape=shape)  # fmt: skip


def shape(draw: random.Random) -> Item:
    """Which shape has this colour."""
    kinds = _kinds(draw, draw.randint(1, 3))
    name, hue = kinds[0]
    wordings = ("What is the {colour} shape?", "Which shape is {colour}?", "Name the {colour} shape.", "What {colour} shape do you see?")  # fmt: skip
    content = f"{hue} {name} beside {_others(kinds[1:])}"
    return _Scene(draw, kinds).item("shape", content, wordings, f"The {hue} shape is a {name}.", draw, colour=hue)  # fmt: skip


def count(draw: random.Random) -> Item:
    """How many of one shape, none to five, among others."""
    kind, other = draw.sample(SHAPES, 2)
    number, others = draw.randint(0, 5), draw.randint(0, 2)
    palette = list(COLOURS)
    hue, second = draw.sample(palette, 2)
    mixed = draw.random() < 0.5  # in one colour, or in several
    kinds = [(kind, draw.choice(palette) if mixed else hue) for _ in range(number)]
    kinds += [(other, second) for _ in range(max(others, 1 - number))]
    draw.shuffle(kinds)
    wordings = ("How many {plural} are there?", "Count the {plural}.", "How many {plural} do you see?", "What is the number of {plural}?")  # fmt: skip
    many = plural(kind)
    verb, noun = ("is", kind) if number == 1 else ("are", many)
    content = f"{number} {kind} {len(kinds) - number} {other} {second} {hue if not mixed else 'mixed'}"  # fmt: skip
    return _Scene(draw, kinds).item("count", content, wordings, f"There {verb} {NUMBERS[number]} {noun}.", draw, plural=many, kind=kind)  # fmt: skip


def relation(draw: random.Random) -> Item:
    """Whether one shape is left of, right of, above or below another; clearly so, or clearly not."""
    kinds, word, holds = _kinds(draw, 2), draw.choice(list(PLACES)), draw.random() < 0.5
    scene = _apart(draw, kinds, word, holds)
    one, other = (shape for shape, _ in kinds)
    wordings = ("Is the {one} {word} the {other}?", "Do you see the {one} {word} the {other}?", "Yes or no: is the {one} {word} the {other}?", "The {one} is {word} the {other}, right?")  # fmt: skip
    answer = (
        f"{'Yes' if holds else 'No'}, the {one} is {'' if holds else 'not '}{word} the {other}."
    )
    # without the answer: a pair of shapes with its yes stands on the same side as with its no
    content = f"{_others(kinds[:1])} {word} {_others(kinds[1:])}"
    return scene.item("relation", content, wordings, answer, draw, one=one, word=word, other=other)


def where(draw: random.Random) -> Item:
    """What is left of, right of, above or below a shape."""
    kinds, word = _kinds(draw, 2), draw.choice(list(PLACES))
    scene = _apart(draw, kinds, word, True)
    (one, hue), (other, _) = kinds
    wordings = ("What is {word} the {other}?", "Which shape is {word} the {other}?", "Name what is {word} the {other}.", "What do you see {word} the {other}?")  # fmt: skip
    content = f"{_others(kinds[:1])} {word} {_others(kinds[1:])}"
    return scene.item("where", content, wordings, f"A {hue} {one} is {word} the {other}." if hue != "orange" else f"An {hue} {one} is {word} the {other}.", draw, word=word, other=other)  # fmt: skip


def _apart(draw: random.Random, kinds: Sequence[tuple[str, str]], word: str, holds: bool) -> _Scene:
    """Two shapes of which the first one is clearly (or clearly not) on that side of the second."""
    dx, dy = PLACES[word]
    while True:
        scene = _Scene(draw, kinds)
        one, other = scene.figures
        along = (one.x - other.x) * dx + (one.y - other.y) * dy
        if (along > 0) == holds and abs(along) > 0.22 * min(scene.size):
            return scene


def describe(draw: random.Random) -> Item:
    """Everything, from left to right."""
    kinds = _kinds(draw, draw.randint(1, 3))
    while True:
        scene = _Scene(draw, kinds)
        order = sorted(scene.figures, key=lambda f: f.x)
        if all(b.x - a.x > 0.15 * scene.size[1] for a, b in pairwise(order)):
            break
    wordings = ("Describe the picture.", "What do you see, from left to right?", "Tell me what is in the picture.", "What is shown here?", "List what you see, from left to right.")  # fmt: skip
    content = " then ".join(f.called for f in order)
    return scene.item("describe", content, wordings, f"I see {listed([f.called for f in order])}.", draw)  # fmt: skip


def digits(draw: random.Random) -> Item:
    """A number of one to four digits, read aloud digit by digit or as it is written."""
    text = "".join(draw.choice("0123456789") for _ in range(draw.randint(1, 4)))
    size = draw.choice(SIZES)
    style = draw.choice((*drawing.DIGIT_STYLES, drawing.HELD_DIGITS))
    hue, grain = draw.choice([c for c in COLOURS if c != "yellow"]), draw.getrandbits(32)
    most = min(0.45 * size[0], 1.2 * size[1] / (len(text) + 0.3))
    height = max(14, round(most * draw.uniform(0.7, 1.0)))
    image = drawing.digits_image(text, height, style, hue, random.Random(grain))
    if image.width > size[1] - 6:
        image = image.resize((size[1] - 6, max(8, round(height * (size[1] - 6) / image.width))))
    x = draw.uniform(image.width / 2 + 2, size[1] - image.width / 2 - 2)
    y = draw.uniform(image.height / 2 + 2, size[0] - image.height / 2 - 2)
    left, step = x - image.width / 2, image.width / len(text)
    whole = Figure(text, hue, x, y, image.width, image.height, lambda: image)
    each = [Figure(f"digit {d}", hue, left + (n + 0.5) * step, y, round(step), image.height, lambda: image) for n, d in enumerate(text)]  # fmt: skip
    wordings = ("Which number is written here?", "Read the number.", "What number do you see?", "What is written in the picture?", "Which digits are these?")  # fmt: skip
    item = picture("digits", text, wordings, f"The number is {text}.", [whole], size, draw, style=style, held=style == drawing.HELD_DIGITS)  # fmt: skip
    item.facts["things"][:] = drawing.things(each, size)
    return item


SKILLS = (colour, shape, count, relation, where, describe, digits)


def ask(draw: random.Random) -> Item:
    """A picture with a question of any skill, each as often as the others."""
    return draw.choice(SKILLS)(draw)
