"""Pictures: coloured shapes on a plain ground, drawn at four times the size; what, which colour, how many, where."""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from thinktalk.data.synth.world import Item

__all__ = ["COLOURS", "SHAPES", "Shape", "ask", "draw_scene", "paint"]

SIZE = 112  # pixels: 16 tokens
OVERSAMPLING = 4
COLOURS = {
    "red": (214, 39, 40), "green": (44, 160, 44), "blue": (31, 87, 200), "yellow": (250, 215, 20),
    "orange": (255, 127, 14), "purple": (135, 60, 180), "black": (20, 20, 20), "pink": (250, 130, 190),
}  # fmt: skip
GROUNDS = ((255, 255, 255), (240, 240, 230), (225, 235, 245), (200, 200, 200))
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")
NUMBERS = ("no", "one", "two", "three", "four", "five")
PLACES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape and where it is; 0 to 1 across and down the picture."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


def draw_scene(draw: random.Random, kinds: list[tuple[str, str]]) -> list[Shape]:
    """Places for shapes and colours such that none touches another."""
    while True:
        scene: list[Shape] = []
        for shape, colour in kinds:
            radius = draw.uniform(0.08, 0.14)
            for _ in range(50):
                x, y = (draw.uniform(radius + 0.02, 0.98 - radius) for _ in range(2))
                if all(math.hypot(x - s.x, y - s.y) > radius + s.radius + 0.04 for s in scene):
                    scene.append(Shape(shape, colour, x, y, radius))
                    break
        if len(scene) == len(kinds):
            return scene


def paint(scene: list[Shape], ground: tuple[int, int, int] = GROUNDS[0]) -> bytes:
    """A PNG of SIZE x SIZE pixels; the same scene gives the same pixels."""
    side = SIZE * OVERSAMPLING
    picture = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(picture)
    for s in scene:
        x, y, r, colour = s.x * side, s.y * side, s.radius * side, COLOURS[s.colour]
        if s.shape == "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        elif s.shape == "cross":
            t = r / 3
            pen.rectangle((x - r, y - t, x + r, y + t), fill=colour)
            pen.rectangle((x - t, y - r, x + t, y + r), fill=colour)
        else:
            pen.polygon(_corners(s.shape, x, y, r), fill=colour)
    file = io.BytesIO()
    picture.resize((SIZE, SIZE), Image.Resampling.BOX).save(file, "PNG")
    return file.getvalue()


def _corners(shape: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    count, turn = {"square": (4, 0.125), "triangle": (3, 0.25), "star": (10, 0.25), "diamond": (4, 0.0)}[shape]  # fmt: skip
    corners = []
    for n in range(count):
        reach = r * 0.42 if shape == "star" and n % 2 else r
        angle = 2 * math.pi * (n / count - turn)
        corners.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    return corners


def _kinds(draw: random.Random, count: int) -> list[tuple[str, str]]:
    """Different shapes in different colours."""
    return list(zip(draw.sample(SHAPES, count), draw.sample(list(COLOURS), count), strict=True))


def _item(skill: str, content: str, wordings: tuple[str, ...], answer: str, scene: list[Shape], draw: random.Random, **fields: str) -> Item:  # fmt: skip
    ground = draw.choice(GROUNDS)
    return Item(
        skill, content, wordings, answer, fields, {"png": (SIZE, SIZE)}, lambda: {"png": paint(scene, ground)}
    )  # fmt: skip


def colour(draw: random.Random) -> Item:
    """The colour of one of up to three shapes."""
    scene = draw_scene(draw, _kinds(draw, draw.randint(1, 3)))
    s = scene[0]
    wordings = ("What colour is the {shape}?", "Which colour does the {shape} have?", "Tell me the colour of the {shape}.", "The {shape} has which colour?")  # fmt: skip
    content = f"{s.name} among {len(scene)}"
    return _item("colour", content, wordings, f"The {s.shape} is {s.colour}.", scene, draw, shape=s.shape)  # fmt: skip


def shape(draw: random.Random) -> Item:
    """Which shape has this colour."""
    scene = draw_scene(draw, _kinds(draw, draw.randint(1, 3)))
    s = scene[0]
    wordings = ("What is the {colour} shape?", "Which shape is {colour}?", "Name the {colour} shape.", "What {colour} shape do you see?")  # fmt: skip
    content = f"{s.name} among {len(scene)}"
    return _item("shape", content, wordings, f"The {s.colour} shape is a {s.shape}.", scene, draw, colour=s.colour)  # fmt: skip


def count(draw: random.Random) -> Item:
    """How many of one shape, none to five, among others."""
    kind, other = draw.sample(SHAPES, 2)
    number, others = draw.randint(0, 5), draw.randint(0, 2)
    palette = list(COLOURS)
    kinds = [(kind, draw.choice(palette)) for _ in range(number)]
    kinds += [(other, draw.choice(palette)) for _ in range(max(others, 1 - number))]
    draw.shuffle(kinds)
    scene = draw_scene(draw, kinds)
    wordings = ("How many {plural} are there?", "Count the {plural}.", "How many {plural} do you see?", "What is the number of {plural}?")  # fmt: skip
    plural = "crosses" if kind == "cross" else f"{kind}s"
    verb, noun = ("is", kind) if number == 1 else ("are", plural)
    content = f"{number} {kind} {len(scene) - number} {other}"
    return _item("count", content, wordings, f"There {verb} {NUMBERS[number]} {noun}.", scene, draw, plural=plural, kind=kind)  # fmt: skip


def relation(draw: random.Random) -> Item:
    """Whether one shape is left of, right of, above or below another; clearly so, or clearly not."""
    while True:
        one, other = scene = draw_scene(draw, _kinds(draw, 2))
        word = draw.choice(list(PLACES))
        dx, dy = PLACES[word]
        along = (one.x - other.x) * dx + (one.y - other.y) * dy
        if abs(along) > 0.2:
            break
    wordings = ("Is the {one} {word} the {other}?", "Do you see the {one} {word} the {other}?", "Yes or no: is the {one} {word} the {other}?", "The {one} is {word} the {other}, right?")  # fmt: skip
    answer = f"{'Yes' if along > 0 else 'No'}, the {one.shape} is {'' if along > 0 else 'not '}{word} the {other.shape}."  # fmt: skip
    # without the answer: a pair of shapes with its yes stands on the same side as with its no
    content = f"{one.name} {word} {other.name}"
    return _item("relation", content, wordings, answer, scene, draw, one=one.shape, word=word, other=other.shape)  # fmt: skip


SKILLS = (colour, shape, count, relation)


def ask(draw: random.Random) -> Item:
    """A picture with a question of any skill, each as often as the others."""
    return draw.choice(SKILLS)(draw)
