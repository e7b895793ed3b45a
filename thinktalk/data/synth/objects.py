"""Objects: animals, food, vehicles and things of the house, cut out from packages; what, where, how many, on which card.

What is new in the test is the picture: of a hand that drew nothing in training, or another drawing of the same hand
(things.py says which). What stands together and how many there are is split by hash as elsewhere.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from PIL import Image, ImageDraw

from thinktalk.data.synth import drawing
from thinktalk.data.synth.drawing import COLOURS, Figure
from thinktalk.data.synth.pictures import (
    NUMBERS,
    PLACES,
    SIZES,
    UNCOUNTED,
    listed,
    picture,
    plural,
    scatter,
)
from thinktalk.data.synth.things import Thing, catalogue
from thinktalk.data.synth.world import Item

__all__ = ["Objects", "open_world", "thing_figure"]


def open_world(cache: str | os.PathLike[str] | None = None) -> Objects:
    """The world over all things of the packages, which are fetched at the first call. Errors: InputError (things.catalogue)."""
    return Objects(catalogue(cache))


@lru_cache(maxsize=2048)
def _opened(thing: Thing) -> Image.Image:
    return Image.open(thing.path).convert("RGBA")


def thing_figure(draw: random.Random, thing: Thing, at: tuple[float, float, int]) -> Figure:
    """A thing at (x, y), its longer side given; now and then mirrored, or turned a little."""
    x, y, side = at
    wide, high = thing.size
    width, height = max(8, round(side * min(1, wide / high))), max(8, round(side * min(1, high / wide)))  # fmt: skip
    mirrored, turn = draw.random() < 0.5, draw.uniform(-12, 12) if draw.random() < 0.4 else 0.0

    def image() -> Image.Image:
        cut = _opened(thing).resize((width, height), Image.Resampling.LANCZOS)
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else cut
        return cut.rotate(turn, Image.Resampling.BICUBIC) if turn else cut

    return Figure(thing.name, None, x, y, width, height, image)


@dataclass
class Objects:
    """Questions about the things of a catalogue."""

    things: Sequence[Thing]
    name: str = "objects"
    by_name: dict[str, list[Thing]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_name = {}
        for thing in self.things:
            self.by_name.setdefault(thing.name, []).append(thing)

    def __call__(self, draw: random.Random) -> Item:
        """A picture with a question; its things are all of one kind: for training, or all held."""
        skills: tuple[Callable[[random.Random], Item], ...] = (self.what, self.what, self.which, self.where, self.relation, self.count, self.present, self.card)  # fmt: skip
        return draw.choice(skills)(draw)

    def draw_things(self, draw: random.Random, count: int) -> list[Thing]:
        """Different things, all of them for training or all of them for the test."""
        held = draw.random() < 0.3
        some = [n for n, of in self.by_name.items() if any(t.held == held for t in of)]
        names = draw.sample(some, count)
        chosen = []
        for name in names:
            of = [t for t in self.by_name[name] if t.held == held]
            # each hand as often as the others: one package draws a house twenty times
            style = draw.choice(sorted({t.style for t in of}))
            chosen.append(draw.choice([t for t in of if t.style == style]))
        return chosen

    def _scene(self, draw: random.Random, things: Sequence[Thing]) -> tuple[list[Figure], tuple[int, int]]:  # fmt: skip
        size = draw.choice(SIZES)
        if len(things) == 1:  # large, anywhere
            side = round(min(size) * draw.uniform(0.5, 0.92))
            ((x, y),) = drawing.place(draw, [side / 2], size)
            places = [(x, y, side)]
        else:
            places = scatter(draw, len(things), size)
            places = [(x, y, round(side * 1.1)) for x, y, side in places]
        return [thing_figure(draw, t, at) for t, at in zip(things, places, strict=True)], size

    def _item(self, skill: str, content: str, wordings: tuple[str, ...], answer: str, things: Sequence[Thing], scene: tuple[list[Figure], tuple[int, int]], draw: random.Random, **fields: str) -> Item:  # fmt: skip
        styles = "+".join(sorted({t.style for t in things}))
        held = any(t.held for t in things)
        return picture(skill, content, wordings, answer, *scene, draw, style=styles, held=held, **fields)  # fmt: skip

    def what(self, draw: random.Random) -> Item:
        """The name of the one thing there is."""
        (thing,) = self.draw_things(draw, 1)
        wordings = ("What is this?", "What do you see?", "Name this.", "What is in the picture?", "What does the picture show?", "Tell me what this is.")  # fmt: skip
        # every name has to be taught: it is the view of it that is split
        content = f"{thing.path.stem} view {draw.getrandbits(16)}"
        return self._item("what", content, wordings, f"This is {listed([thing.name])}.", [thing], self._scene(draw, [thing]), draw)  # fmt: skip

    def which(self, draw: random.Random) -> Item:
        """All two or three things, from left to right."""
        things = self.draw_things(draw, draw.randint(2, 3))
        while True:
            figures, size = self._scene(draw, things)
            order = sorted(figures, key=lambda f: f.x)
            if min(b.x - a.x for a, b in pairwise(order)) > 0.15 * size[1]:
                break
        wordings = ("Which things do you see, from left to right?", "What is in this picture?", "Describe the picture.", "Name everything you see.", "List the things in the picture.")  # fmt: skip
        names = [f.name for f in order]
        return self._item("which", " then ".join(names), wordings, f"I see {listed(names)}.", things, (figures, size), draw)  # fmt: skip

    def _apart(self, draw: random.Random, things: Sequence[Thing], word: str, holds: bool) -> tuple[list[Figure], tuple[int, int]]:  # fmt: skip
        """Two things of which the first one is clearly (or clearly not) on that side of the second."""
        dx, dy = PLACES[word]
        while True:
            figures, size = self._scene(draw, things)
            along = (figures[0].x - figures[1].x) * dx + (figures[0].y - figures[1].y) * dy
            if (along > 0) == holds and abs(along) > 0.22 * min(size):
                return figures, size

    def where(self, draw: random.Random) -> Item:
        """What is left of, right of, above or below a thing."""
        one, other = things = self.draw_things(draw, 2)
        word = draw.choice(list(PLACES))
        wordings = ("What is {word} the {other}?", "What do you see {word} the {other}?", "Name the thing {word} the {other}.", "Which thing is {word} the {other}?")  # fmt: skip
        scene = self._apart(draw, things, word, True)
        answer = f"The {one.name} is {word} the {other.name}."
        return self._item("where", f"{one.name} {word} {other.name}", wordings, answer, things, scene, draw, word=word, other=other.name)  # fmt: skip

    def relation(self, draw: random.Random) -> Item:
        """Whether a thing is on that side of another one; half of them are."""
        one, other = things = self.draw_things(draw, 2)
        word, holds = draw.choice(list(PLACES)), draw.random() < 0.5
        wordings = ("Is the {one} {word} the {other}?", "Do you see the {one} {word} the {other}?", "Yes or no: is the {one} {word} the {other}?", "The {one} is {word} the {other}, right?")  # fmt: skip
        answer = f"{'Yes' if holds else 'No'}, the {one.name} is {'' if holds else 'not '}{word} the {other.name}."  # fmt: skip
        scene = self._apart(draw, things, word, holds)
        return self._item("relation", f"{one.name} {word} {other.name}", wordings, answer, things, scene, draw, one=one.name, word=word, other=other.name)  # fmt: skip

    def count(self, draw: random.Random) -> Item:
        """How many of one thing, none to five, among others."""
        kind, other = self.draw_things(draw, 2)
        while kind.name in UNCOUNTED:
            kind, other = self.draw_things(draw, 2)
        number, others = draw.randint(0, 5), draw.randint(0, 2)
        things = [kind] * number + [other] * max(others, 1 - number)
        draw.shuffle(things)
        many = plural(kind.name)
        wordings = ("How many {plural} are there?", "Count the {plural}.", "How many {plural} do you see?", "What is the number of {plural}?")  # fmt: skip
        verb, noun = ("is", kind.name) if number == 1 else ("are", many)
        content = f"{number} {kind.name} {len(things) - number} {other.name}"
        return self._item("count", content, wordings, f"There {verb} {NUMBERS[number]} {noun}.", things, self._scene(draw, things), draw, plural=many)  # fmt: skip

    def present(self, draw: random.Random) -> Item:
        """Whether a thing is there; half of them are."""
        *things, absent = self.draw_things(draw, draw.randint(2, 4))
        asked = draw.choice([things[0], absent])
        a = listed([asked.name])
        wordings = ("Is there {a} in the picture?", "Do you see {a}?", "Can you see {a} here?", "Does the picture show {a}?")  # fmt: skip
        answer = f"Yes, there is {a}." if asked is things[0] else f"No, there is no {asked.name}."
        content = f"{asked.name} among {' '.join(sorted(t.name for t in things))}"
        return self._item("present", content, wordings, answer, things, self._scene(draw, things), draw, a=a)  # fmt: skip

    def card(self, draw: random.Random) -> Item:
        """The colour of the card on which a thing lies, another one lying beside it."""
        things = self.draw_things(draw, 2)
        colours = draw.sample(list(COLOURS), 2)
        figures, size = self._scene(draw, things)
        cards = [_card(f, c) for f, c in zip(figures, colours, strict=True)]
        if _overlap(*cards):
            return self.card(draw)
        wordings = ("What colour is behind the {name}?", "Which colour is the card of the {name}?", "The {name} is on which colour?", "What is the colour of the card under the {name}?")  # fmt: skip
        name = things[0].name
        content = f"{name} on {colours[0]}, {things[1].name} on {colours[1]}"
        return self._item("card", content, wordings, f"The {name} is on {colours[0]}.", things, ([*cards, *figures], size), draw, name=name)  # fmt: skip


def _card(f: Figure, colour: str) -> Figure:
    """A rounded card, four pixels wider than the thing on it."""
    width, height = f.width + 8, f.height + 8

    def image() -> Image.Image:
        card = Image.new("RGBA", (width, height))
        ImageDraw.Draw(card).rounded_rectangle((0, 0, width - 1, height - 1), 5, fill=COLOURS[colour])  # fmt: skip
        return card

    return Figure("card", colour, f.x, f.y, width, height, image)


def _overlap(a: Figure, b: Figure) -> bool:
    return abs(a.x - b.x) * 2 < a.width + b.width and abs(a.y - b.y) * 2 < a.height + b.height
