"""Drawing: shapes, digits and grounds -> RGBA cut-outs laid on an RGB ground, everything smooth at any size.

    shape_image("star", "red", 40, "shaded", draw)   (40, 40) RGBA      digits_image("407", 30, "pen", "blue", draw)
    ground_image((112, 168), draw)                   RGB, pale: plain, shaded, grained or chequered
    compose(ground, figures)                         the picture; `things` says what is in it and where

Cut-outs are drawn at OVERSAMPLING times their size and reduced. One style of each kind is never trained with.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "COLOURS", "DIGIT_STYLES", "Figure", "HELD_DIGITS", "HELD_SHAPES", "SHAPES", "SHAPE_STYLES", "compose",
    "digits_image", "ground_image", "place", "shape_image", "things",
]  # fmt: skip

OVERSAMPLING = 4
COLOURS = {
    "red": (214, 39, 40), "green": (44, 160, 44), "blue": (31, 87, 200), "yellow": (250, 215, 20),
    "orange": (255, 127, 14), "purple": (135, 60, 180), "black": (20, 20, 20), "pink": (250, 130, 190),
    "brown": (130, 75, 35),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "heart", "ring")
SHAPE_STYLES = ("flat", "bordered", "shaded", "grained", "outlined")
HELD_SHAPES = "striped"
DIGIT_STYLES = ("plain", "bold", "pen", "display")
HELD_DIGITS = "slanted"
PALE = ((255, 255, 255), (240, 240, 230), (225, 235, 245), (205, 205, 205), (235, 225, 240), (225, 240, 225), (250, 235, 215))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """Something in a picture; centre and size in pixels."""

    name: str
    colour: str | None
    x: float
    y: float
    width: int
    height: int
    image: Callable[[], Image.Image]
    """RGBA of width x height."""

    @property
    def called(self) -> str:
        """Name, with its colour where it has one."""
        return f"{self.colour} {self.name}" if self.colour else self.name


def compose(ground: Image.Image, figures: Sequence[Figure]) -> Image.Image:
    """The figures on a copy of the ground, later ones on top."""
    picture = ground.copy()
    for f in figures:
        image = f.image()
        picture.paste(image, (round(f.x - f.width / 2), round(f.y - f.height / 2)), image)
    return picture


def things(figures: Sequence[Figure], size: tuple[int, int]) -> list[dict[str, Any]]:
    """What the picture of `size` (height, width) shows: name, colour, box (left, top, right, bottom as fractions)."""
    height, width = size
    found = []
    for f in figures:
        box = [(f.x - f.width / 2) / width, (f.y - f.height / 2) / height, (f.x + f.width / 2) / width, (f.y + f.height / 2) / height]  # fmt: skip
        colour = {"colour": f.colour} if f.colour else {}
        found.append({"name": f.name, **colour, "box": [round(b, 3) for b in box]})
    return found


def place(draw: random.Random, radii: Sequence[float], size: tuple[int, int], *, gap: float = 4.0) -> list[tuple[float, float]]:  # fmt: skip
    """Centres (x, y) such that circles of these radii lie inside of `size` (height, width), `gap` pixels apart.

    They have to have room: together at most half of the picture.
    """
    height, width = size
    while True:
        centres: list[tuple[float, float]] = []
        for r in radii:
            for _ in range(60):
                x, y = draw.uniform(r + 1, width - r - 1), draw.uniform(r + 1, height - r - 1)
                if all(math.hypot(x - u, y - v) > r + s + gap for (u, v), s in zip(centres, radii, strict=False)):  # fmt: skip
                    centres.append((x, y))
                    break
        if len(centres) == len(radii):
            return centres


# ----------------------------------------------------------------------------------------------------------------- shapes


def shape_image(shape: str, colour: str, side: int, style: str, draw: random.Random) -> Image.Image:
    """A shape that fills (side, side), in one of SHAPE_STYLES or the held one."""
    full = side * OVERSAMPLING
    mask = _mask(shape, full, 1.0)
    rgb = np.array(COLOURS[colour], float)
    layer = np.broadcast_to(rgb, (full, full, 3)).copy()
    down = np.linspace(0, 1, full)[:, None, None]
    if style == "bordered":
        inner = np.asarray(_mask(shape, full, 0.8), float)[..., None] / 255
        layer = layer * inner + rgb * 0.45 * (1 - inner)
    elif style == "shaded":
        layer += (255 - layer) * (0.45 * (1 - down)) - layer * 0.15 * down
    elif style == "grained":
        noise = np.random.default_rng(draw.getrandbits(32)).normal(0, 18, (side, side, 1))
        layer += noise.repeat(OVERSAMPLING, 0).repeat(OVERSAMPLING, 1)
    elif style == "outlined":
        mask = Image.fromarray(np.asarray(mask) - np.minimum(np.asarray(mask), np.asarray(_mask(shape, full, 0.66))))  # fmt: skip
    elif style == HELD_SHAPES:
        band = (np.arange(full) // max(1, full // 7) % 2)[:, None, None]
        layer += (255 - layer) * 0.5 * band
    image = Image.fromarray(layer.clip(0, 255).astype(np.uint8))
    image.putalpha(mask)
    return image.resize((side, side), Image.Resampling.BOX)


def _mask(shape: str, full: int, scale: float) -> Image.Image:
    """The shape's area, white on black, scaled about its middle."""
    mask = Image.new("L", (full, full))
    pen, c, r = ImageDraw.Draw(mask), full / 2, full / 2 * scale
    if shape in ("circle", "ring"):
        pen.ellipse((c - r, c - r, c + r, c + r), fill=255)
        if shape == "ring":
            r = full * 0.5 * (0.5 if scale == 1 else 1.5 - scale)
            pen.ellipse((c - r, c - r, c + r, c + r), fill=0)
    elif shape == "cross":
        t = full / 6 * (scale if scale == 1 else scale * 0.8)
        pen.rectangle((c - r, c - t, c + r, c + t), fill=255)
        pen.rectangle((c - t, c - r, c + t, c + r), fill=255)
    elif shape == "heart":
        angles = [2 * math.pi * n / 60 for n in range(60)]
        points = [(16 * math.sin(a) ** 3, -13 * math.cos(a) + 5 * math.cos(2 * a) + 2 * math.cos(3 * a) + math.cos(4 * a)) for a in angles]  # fmt: skip
        pen.polygon([(c + x * r / 17, c + (y - 2) * r / 17) for x, y in points], fill=255)
    else:
        count, turn = {"square": (4, 0.125), "triangle": (3, 0.25), "star": (10, 0.25), "diamond": (4, 0.0)}[shape]  # fmt: skip
        corners = []
        for n in range(count):
            reach = r * 0.42 if shape == "star" and n % 2 else r
            angle = 2 * math.pi * (n / count - turn)
            corners.append((c + reach * math.cos(angle), c + reach * math.sin(angle)))
        pen.polygon(corners, fill=255)
    return mask


# ----------------------------------------------------------------------------------------------------------------- digits

# polylines in a box of 1 x 1, as a pen would go
PEN = {
    "0": [(0.5, 0), (0.15, 0.2), (0.1, 0.5), (0.15, 0.8), (0.5, 1), (0.85, 0.8), (0.9, 0.5), (0.85, 0.2), (0.5, 0)],
    "1": [(0.25, 0.22), (0.55, 0), (0.55, 1)],
    "2": [(0.1, 0.25), (0.3, 0.02), (0.65, 0.02), (0.87, 0.25), (0.75, 0.47), (0.1, 1), (0.92, 1)],
    "3": [(0.1, 0.1), (0.5, 0), (0.85, 0.22), (0.45, 0.47), (0.88, 0.72), (0.5, 1), (0.08, 0.9)],
    "4": [(0.68, 1), (0.68, 0), (0.06, 0.68), (0.94, 0.68)],
    "5": [(0.86, 0), (0.2, 0), (0.15, 0.44), (0.55, 0.4), (0.88, 0.68), (0.55, 1), (0.08, 0.92)],
    "6": [(0.75, 0.02), (0.35, 0.28), (0.12, 0.65), (0.3, 0.97), (0.7, 0.97), (0.88, 0.7), (0.62, 0.5), (0.18, 0.6)],
    "7": [(0.08, 0), (0.92, 0), (0.4, 1)],
    "8": [(0.5, 0.46), (0.18, 0.24), (0.5, 0), (0.82, 0.24), (0.5, 0.46), (0.1, 0.74), (0.5, 1), (0.9, 0.74), (0.5, 0.46)],
    "9": [(0.82, 0.4), (0.38, 0.5), (0.12, 0.3), (0.3, 0.03), (0.7, 0.03), (0.88, 0.35), (0.65, 0.72), (0.25, 0.98)],
}  # fmt: skip
SEGMENTS = {"a": (0, 0, 1, 0), "b": (1, 0, 1, 0.5), "c": (1, 0.5, 1, 1), "d": (0, 1, 1, 1), "e": (0, 0.5, 0, 1), "f": (0, 0, 0, 0.5), "g": (0, 0.5, 1, 0.5)}  # fmt: skip
LIT = {"0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd", "6": "afgedc", "7": "abc", "8": "abcdefg", "9": "abcdfg"}  # fmt: skip


def digits_image(
    text: str, height: int, style: str, colour: str, draw: random.Random
) -> Image.Image:
    """Digits in one of DIGIT_STYLES or the held one, cut to what is drawn: (about `height`, its width) RGBA."""
    full = height * OVERSAMPLING
    if style in ("pen", "display"):
        mask = _drawn_digits(text, full, style, draw)
    else:
        font = ImageFont.load_default(full)
        stroke = full // 28 if style == "bold" else 0
        mask = Image.new("L", (full * (len(text) + 1), full * 2))
        ImageDraw.Draw(mask).text((full // 2, full // 4), text, fill=255, font=font, stroke_width=stroke)  # fmt: skip
        if style == HELD_DIGITS:
            mask = mask.transform(mask.size, Image.Transform.AFFINE, (1, 0.3, -0.3 * full, 0, 1, 0), Image.Resampling.BILINEAR)  # fmt: skip
    box = mask.getbbox()
    assert box is not None
    mask = mask.crop(box)
    scale = height / mask.height
    mask = mask.resize((max(1, round(mask.width * scale)), height), Image.Resampling.BOX)
    image = Image.new("RGB", mask.size, COLOURS[colour])
    image.putalpha(mask)
    return image


def _drawn_digits(text: str, full: int, style: str, draw: random.Random) -> Image.Image:
    wide, thick = full * 0.6, max(2, round(full * (draw.uniform(0.09, 0.16))))
    mask = Image.new("L", (round((wide + full * 0.3) * len(text)) + 2 * thick, full + 2 * thick))
    pen = ImageDraw.Draw(mask)
    for n, digit in enumerate(text):
        left = thick + n * (wide + full * 0.3)
        if style == "pen":
            shake = full * 0.025
            line = [(left + x * wide + draw.uniform(-shake, shake), thick + y * full + draw.uniform(-shake, shake)) for x, y in PEN[digit]]  # fmt: skip
            pen.line(line, fill=255, width=thick, joint="curve")
            for x, y in (line[0], line[-1]):
                pen.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=255)
        else:
            for name in LIT[digit]:
                x0, y0, x1, y1 = SEGMENTS[name]
                line = [(left + x0 * wide, thick + y0 * full), (left + x1 * wide, thick + y1 * full)]  # fmt: skip
                pen.line(line, fill=255, width=thick)
    return mask


# ---------------------------------------------------------------------------------------------------------------- grounds


def ground_image(size: tuple[int, int], draw: random.Random) -> Image.Image:
    """A pale RGB ground of (height, width): one colour, from one to another, with grain, or chequered."""
    height, width = size
    first, second = (np.array(draw.choice(PALE), float) for _ in range(2))
    kind = draw.choice(("plain", "plain", "shaded", "grained", "chequered"))
    pixels = np.broadcast_to(first, (height, width, 3)).copy()
    if kind == "shaded":
        along = np.linspace(0, 1, height)[:, None, None]
        pixels = first * (1 - along) + second * np.broadcast_to(along, (height, width, 1))
    elif kind == "grained":
        pixels += np.random.default_rng(draw.getrandbits(32)).normal(0, 7, (height, width, 1))
    elif kind == "chequered":
        cell = draw.choice((8, 14, 20))
        odd = (np.arange(height)[:, None] // cell + np.arange(width) // cell) % 2
        pixels = np.where(odd[..., None] == 1, (first + second) / 2, first)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
