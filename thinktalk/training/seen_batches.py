"""Pictures from shards to the batches of i2: Sample -> (Example, Cells) -> Seen.

    "things": [{"name": "circle", "colour": "red", "box": [left, top, right, bottom]}, ...]     fractions of the picture
    --cells--> for each token, which is 28 x 28 pixels: what stands there, its colour, where its middle is and how large

A thing belongs to the one token in which its middle lies, so that counting things is counting tokens; tokens that it only
touches are not asked. What else is learnt is the conversation, as the Thinker's stages have it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from thinktalk.data.examples import Example, encode
from thinktalk.data.loader import Loader
from thinktalk.data.mixture import Mixture, Source
from thinktalk.data.packing import Packed, pack
from thinktalk.data.plan import Bins, Plan
from thinktalk.data.samples import Sample, read_record
from thinktalk.media.image import load_image
from thinktalk.training.losses import IGNORE
from thinktalk.training.parallel import World
from thinktalk.training.thinker_batches import Make

__all__ = ["NOTHING", "Cells", "Labels", "Seen", "Views", "cells", "elsewhere", "loader"]

NOTHING = 0
"""The number of what stands where nothing stands."""


@dataclass(frozen=True)
class Labels:
    """The names and colours that things have in some shards, as numbers from 1."""

    names: Mapping[str, int]
    colours: Mapping[str, int]

    @classmethod
    def of(cls, sources: Iterable[Source]) -> Labels:
        """Every name and colour, the commonest first."""
        names, colours = Counter[str](), Counter[str]()
        for source in sources:
            for entry in source.entries:
                for thing in things_of(read_record(entry)):
                    names[thing["name"]] += 1
                    colours.update([thing["colour"]] if thing.get("colour") else [])
        return cls(_numbered(names), _numbered(colours))


def _numbered(counts: Counter[str]) -> dict[str, int]:
    order = sorted(counts, key=lambda name: (-counts[name], name))
    return {name: number for number, name in enumerate(order, NOTHING + 1)}


def things_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The things of a record that have a name and a box; damaged ones are left out."""
    found = record.get("things")
    return [t for t in found if _is_thing(t)] if isinstance(found, list) else []


def _is_thing(thing: Any) -> bool:
    if not isinstance(thing, dict) or not isinstance(thing.get("name"), str):
        return False
    box = thing.get("box")
    return isinstance(box, list) and len(box) == 4 and all(isinstance(x, (int, float)) and math.isfinite(x) for x in box) and box[0] < box[2] and box[1] < box[3]  # fmt: skip


@dataclass(frozen=True)
class Cells:
    """What stands in each token of a picture (N tokens); IGNORE where that is not asked."""

    names: Tensor  # (N,) int64
    colours: Tensor  # (N,) int64
    places: Tensor  # (N, 4) middle across and down the token, width and height of the picture; NaN where not asked


def cells(things: Sequence[Mapping[str, Any]], rows: int, columns: int, labels: Labels) -> Cells:
    """The targets of a picture of rows x columns tokens.

    >>> red = {"name": "dot", "colour": "red", "box": [0.5, 0.0, 1.0, 0.5]}
    >>> cells([red], 2, 2, Labels({"dot": 1}, {"red": 1})).names.tolist()
    [0, 1, 0, 0]
    """
    names = torch.full((rows, columns), NOTHING)
    colours = torch.full((rows, columns), IGNORE)
    places = torch.full((rows, columns, 4), math.nan)
    boxes = sorted(things, key=lambda t: (t["box"][2] - t["box"][0]) * (t["box"][3] - t["box"][1]))
    for left, top, right, bottom in (thing["box"] for thing in boxes):
        touched = np.s_[
            _cell(top, rows) : _cell(bottom, rows, end=True) + 1,
            _cell(left, columns) : _cell(right, columns, end=True) + 1,
        ]
        names[touched] = IGNORE
    for thing in boxes:  # the largest last: of two in one token it is the one
        left, top, right, bottom = thing["box"]
        x, y = (left + right) / 2 * columns, (top + bottom) / 2 * rows
        row, column = _cell(y / rows, rows), _cell(x / columns, columns)
        names[row, column] = labels.names.get(thing["name"], IGNORE)
        colours[row, column] = labels.colours.get(thing.get("colour"), IGNORE)
        places[row, column] = torch.tensor([x - column, y - row, right - left, bottom - top])
    return Cells(names.flatten(), colours.flatten(), places.flatten(0, 1))


def _cell(place: float, count: int, *, end: bool = False) -> int:
    """The cell of a fraction; as the end of a box, an edge belongs to the cell before it."""
    at = math.ceil(place * count - 1e-6) - 1 if end else math.floor(place * count)
    return min(max(at, 0), count - 1)


@dataclass(frozen=True, kw_only=True)
class Views:
    """How else a picture might have been taken; hue and sides stay, since they are asked for."""

    scale: float = 1.25
    """Largest factor by which it is larger or smaller."""
    light: float = 0.2
    """Largest change of brightness and of contrast."""
    noise: float = 0.04
    """Largest deviation of noise in it, of full white."""


def elsewhere(picture: Image.Image, generator: torch.Generator, views: Views) -> Image.Image:
    """The picture at another size, in another light, with noise."""
    factor, light, contrast, noise = (2 * torch.rand(4, generator=generator) - 1).tolist()
    width, height = (max(28, round(side * views.scale**factor)) for side in picture.size)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
    middle = pixels.mean()
    pixels = (pixels - middle) * (1 + views.light * contrast) + middle * (1 + views.light * light)
    grain = torch.randn(pixels.shape, generator=generator).numpy()
    pixels = pixels + abs(noise) * views.noise * grain
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


# ------------------------------------------------------------------------------------------------------------- batches


@dataclass
class Seen:
    """Conversations about pictures and videos, and what is to be seen in each picture."""

    packed: Packed
    cells: list[Cells | None]  # of packed.images; None where nobody told


def loader(
    sources: Sequence[Source], make: Make, labels: Labels, *, views: Views | None, tokens: int, seed: int,
    world: World, workers: int = 0,
) -> Loader:  # fmt: skip
    """This rank's batches of about `tokens` tokens; `views` None shows every picture as it is."""
    plan = Plan(Mixture(sources, seed=seed), Bins(float(tokens)))
    look = partial(_look, make=make, labels=labels, views=views)
    collate = partial(_collate, pad_id=make.config.thinker.ids.pad)
    return Loader(plan, look, collate, rank=world.rank, world=world.size, workers=workers)


def _look(
    sample: Sample, generator: torch.Generator, *, make: Make, labels: Labels, views: Views | None
) -> tuple[Example, list[Cells | None]]:
    """The example of a sample, its pictures taken elsewhere, and their cells."""
    messages = sample.resolved()
    if views is not None:
        messages = [
            m if isinstance(m["content"], str) else {**m, "content": [_part(p, sample, generator, views) for p in m["content"]]}
            for m in messages
        ]  # fmt: skip
    example = encode(
        messages, tokenizer=make.tokenizer, config=make.config, max_tokens=make.max_tokens, name=sample.where
    )  # fmt: skip
    told = things_of(sample.record)
    # a record tells of one picture: with several, nobody knows of which
    known = len(example.images) == 1 and "things" in sample.record
    merge = make.config.thinker.vision.merge
    return example, [
        cells(told, grid[1] // merge, grid[2] // merge, labels) if known else None
        for _, grid in example.images
    ]  # fmt: skip


def _part(part: dict[str, Any], sample: Sample, generator: torch.Generator, views: Views) -> dict[str, Any]:  # fmt: skip
    if part["type"] != "image":
        return part
    picture = load_image(part["image"], name=sample.where)
    return {**part, "image": elsewhere(picture, generator, views)}


def _collate(items: Sequence[tuple[Example, list[Cells | None]]], *, pad_id: int) -> Seen:
    packed = pack([example for example, _ in items], pad_id=pad_id)
    return Seen(packed, [c for _, found in items for c in found])
