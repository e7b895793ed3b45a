"""Moving: actors with a time -> frames (T, H, W, 3) on one ground; what videos and videos with sound are made of.

An actor says for every moment what it looks like and where its centre is, or that it is not there. The Thinker sees two
frames a second (config.VisualConfig): what is asked about lasts a second, and so no question turns on what it cannot see.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from thinktalk.data.synth import drawing

__all__ = ["FPS", "SIZES", "Actor", "Path", "between", "fade", "film", "shape_actor", "still"]

FPS = 8
SIZES = ((112, 112), (112, 112), (112, 112), (112, 168), (140, 140))
"""Height and width in pixels."""
Path = Callable[[float], "tuple[float, float] | None"]
"""Centre (x, y) in pixels at a time in seconds; None while it is not to be seen."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A cut-out on its way."""

    shape: str
    colour: str
    image: Callable[[], Image.Image]
    """RGBA."""
    path: Path
    scale: Callable[[float], float] = lambda _: 1.0
    """Its size at a time, as a factor."""

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


def shape_actor(draw: random.Random, shape: str, colour: str, side: int, style: str, path: Path, scale: Callable[[float], float] = lambda _: 1.0) -> Actor:  # fmt: skip
    """A shape of this side on its way."""
    grain = draw.getrandbits(32)
    image = lambda: drawing.shape_image(shape, colour, side, style, random.Random(grain))  # noqa: E731
    return Actor(shape, colour, image, path, scale)


def film(actors: Sequence[Actor], seconds: float, size: tuple[int, int], seed: int) -> np.ndarray:
    """All frames of `seconds`, FPS of them a second: uint8 (T, H, W, 3)."""
    ground = drawing.ground_image(size, random.Random(seed))
    images = [actor.image() for actor in actors]
    frames = []
    for n in range(round(seconds * FPS)):
        t, frame = n / FPS, ground.copy()
        for actor, image in zip(actors, images, strict=True):
            at, scale = actor.path(t), actor.scale(t)
            if at is None:
                continue
            if scale != 1.0:
                side = max(2, round(image.width * scale))
                image = image.resize((side, side), Image.Resampling.BILINEAR)
            frame.paste(image, (round(at[0] - image.width / 2), round(at[1] - image.height / 2)), image)  # fmt: skip
        frames.append(np.asarray(frame))
    return np.stack(frames)


# ------------------------------------------------------------------------------------------------------------------ paths


def still(x: float, y: float) -> Path:
    """It stays."""
    return lambda _: (x, y)


def fade(path: Path, start: float = -1.0, stop: float = 1e9) -> Path:
    """There from `start` until `stop` only."""
    return lambda t: path(t) if start <= t < stop else None


def between(a: tuple[float, float], b: tuple[float, float], start: float, stop: float) -> Path:
    """From a to b at an even pace between two moments; it waits before and after."""

    def path(t: float) -> tuple[float, float]:
        share = min(1.0, max(0.0, (t - start) / (stop - start)))
        return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])

    return path
