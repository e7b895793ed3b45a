"""Videos: shapes that move, appear, vanish, bounce, change and race, without sound; what happens, which, how often.

The test has pairs of shapes nobody trained with, wordings of its own and a style that is nowhere in training. The record
says what there is in time: "events": [{"name", "what", "at"}], in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from thinktalk.data.synth import drawing
from thinktalk.data.synth.drawing import COLOURS, SHAPES
from thinktalk.data.synth.encode import RATE, mp4
from thinktalk.data.synth.moving import FPS, SIZES, Actor, between, fade, film, shape_actor, still
from thinktalk.data.synth.pictures import scatter
from thinktalk.data.synth.world import Item

__all__ = ["DIRECTIONS", "SKILLS", "ask", "draw_style", "kinds", "video_item"]

DIRECTIONS = {"to the left": (-1, 0), "to the right": (1, 0), "up": (0, -1), "down": (0, 1)}
TIMES = ("", "once", "twice", "three times", "four times")
Events = Sequence[tuple[str, str, float]]  # name, what, at


def kinds(draw: random.Random, count: int) -> list[tuple[str, str]]:
    """Different shapes in different colours."""
    return list(zip(draw.sample(SHAPES, count), draw.sample(list(COLOURS), count), strict=True))


def draw_style(draw: random.Random) -> str:
    """Any style; the held one makes the item one of the test."""
    return draw.choice((*drawing.SHAPE_STYLES, drawing.HELD_SHAPES))


def video_item(skill: str, content: str, wordings: tuple[str, ...], answer: str, actors: Sequence[Actor], seconds: float, size: tuple[int, int], style: str, events: Events, draw: random.Random, *, sound: Any = None, **fields: str) -> Item:  # fmt: skip
    """An item with one video of these actors; `sound()` gives its samples at RATE, where it has some."""
    seed = draw.getrandbits(32)
    frames = round(seconds * FPS)

    def media() -> dict[str, bytes]:
        pcm = None
        if sound is not None:
            pcm = np.zeros(round(frames / FPS * RATE), np.float32)
            made = sound()[: len(pcm)]
            pcm[: len(made)] = made
        return {"mp4": mp4(film(actors, seconds, size, seed), FPS, pcm)}

    told = [{"name": name, "what": what, "at": round(at, 3)} for name, what, at in events]
    facts: dict[str, Any] = {"events": told, "style": style, "content": content, "seconds": frames / FPS}  # fmt: skip
    parts = ({"type": "video", "video": "mp4", "use_audio": sound is not None},)
    held = style == drawing.HELD_SHAPES
    return Item(skill, content, wordings, answer, fields, {"mp4": size}, media, parts=parts, facts=facts, held=held)  # fmt: skip


def direction(draw: random.Random) -> Item:
    """Which of four ways a shape goes, past another one that stays or by itself."""
    size, style, word = draw.choice(SIZES), draw_style(draw), draw.choice(list(DIRECTIONS))
    dx, dy = DIRECTIONS[word]
    both, (H, W) = kinds(draw, draw.randint(1, 2)), size
    side = round(min(size) * draw.uniform(0.22, 0.36))
    seconds = draw.uniform(2.0, 4.0)
    reach_x, reach_y = (W - side) / 2 - 2, (H - side) / 2 - 2
    # across the way it may be anywhere; along it at least 60 % of the room is used
    part = draw.uniform(0.6, 1.0)
    x, y = W / 2 + (0 if dx else draw.uniform(-reach_x, reach_x)), H / 2 + (0 if dy else draw.uniform(-reach_y, reach_y))  # fmt: skip
    a, b = (x - dx * part * reach_x, y - dy * part * reach_y), (x + dx * part * reach_x, y + dy * part * reach_y)  # fmt: skip
    shape, colour = both[0]
    actors = [shape_actor(draw, shape, colour, side, style, between(a, b, 0.0, seconds - 1 / FPS))]
    if len(both) == 2:
        small = round(side * 0.8)
        spot = still(draw.uniform(small, W - small), draw.uniform(small, H - small))
        actors.insert(0, shape_actor(draw, *both[1], small, style, spot))
    wordings = ("Which way does the {shape} move?", "In which direction does the {shape} move?", "Where does the {shape} go?", "How does the {shape} move?", "Tell me which way the {shape} goes.")  # fmt: skip
    content = f"{word} {' past '.join(f'{c} {s}' for s, c in both)}"
    return video_item("direction", content, wordings, f"The {shape} moves {word}.", actors, seconds, size, style, [(shape, word, 0.0)], draw, shape=shape)  # fmt: skip


def order(draw: random.Random) -> Item:
    """Shapes that appear one after another and stay: which one is first, or last."""
    size, style, some = draw.choice(SIZES), draw_style(draw), kinds(draw, draw.randint(2, 3))
    places = scatter(draw, len(some), size)
    times, at = [], draw.uniform(0.3, 0.8)
    for _ in some:
        times.append(at)
        at += draw.uniform(1.1, 1.6)
    actors = [shape_actor(draw, *kind, side, style, fade(still(x, y), t)) for kind, (x, y, side), t in zip(some, places, times, strict=True)]  # fmt: skip
    first = draw.random() < 0.5
    asked = actors[0 if first else -1]
    word = "first" if first else "last"
    wordings = ("Which shape appears {word}?", "What appears {word}?", "Which of the shapes comes {word}?", "Name the shape that appears {word}.")  # fmt: skip
    content = " then ".join(a.name for a in actors)
    events = [(a.shape, "appears", t) for a, t in zip(actors, times, strict=True)]
    return video_item("order", content, wordings, f"The {asked.name} appears {word}.", actors, at, size, style, events, draw, word=word)  # fmt: skip


def vanishing(draw: random.Random) -> Item:
    """One of two or three shapes appears or vanishes: which one, or what it does."""
    size, style, some = draw.choice(SIZES), draw_style(draw), kinds(draw, draw.randint(2, 3))
    places, seconds = scatter(draw, len(some), size), draw.uniform(3.0, 4.0)
    at, appears = draw.uniform(1.2, seconds - 1.2), draw.random() < 0.5
    paths = [still(x, y) for x, y, _ in places]
    paths[0] = fade(paths[0], at) if appears else fade(paths[0], stop=at)
    actors = [shape_actor(draw, *kind, side, style, path) for kind, (_, _, side), path in zip(some, places, paths, strict=True)]  # fmt: skip
    verb, one = "appears" if appears else "vanishes", actors[0]
    wordings = ("Which shape appears or vanishes?", "What changes in the video?", "Which shape is not there all the time?", "What happens in this video?")  # fmt: skip
    content = f"{verb} {' beside '.join(a.name for a in actors)}"
    return video_item("vanishing", content, wordings, f"The {one.name} {verb}.", actors, seconds, size, style, [(one.shape, verb, at)], draw)  # fmt: skip


def bounces(draw: random.Random) -> Item:
    """How often a ball hits the ground, once to four times, falling as balls do."""
    size, style, number = draw.choice(SIZES), draw_style(draw), draw.randint(1, 4)
    (H, W), colour = size, draw.choice(list(COLOURS))
    side = round(min(size) * draw.uniform(0.2, 0.3))
    # 2 frames a second: a bounce of 1.8 s is seen at least three times, near the ground once
    period, x0 = draw.uniform(1.8, 2.2), draw.uniform(side, W - side)
    top, ground = side / 2 + 2, H - side / 2 - 2
    drift = draw.uniform(-1, 1) * (min(x0, W - x0) - side / 2) / (number * period)

    def path(t: float) -> tuple[float, float]:
        since = (t + period / 2) % period  # it begins at the top
        height = 1 - (2 * since / period - 1) ** 2
        return x0 + drift * t, ground - height * (ground - top)

    actors = [shape_actor(draw, "circle", colour, side, style, path)]
    wordings = ("How often does the ball bounce?", "How many times does the ball hit the ground?", "Count the bounces.", "How many times does the ball bounce?")  # fmt: skip
    content = f"{number} {colour} {draw.randrange(1 << 16)}"
    events = [("ball", "bounces", (n + 0.5) * period) for n in range(number)]
    return video_item("bounces", content, wordings, f"The ball bounces {TIMES[number]}.", actors, number * period, size, style, events, draw)  # fmt: skip


def recolouring(draw: random.Random) -> Item:
    """A shape takes another colour: which one it takes, or had."""
    size, style, shape = draw.choice(SIZES), draw_style(draw), draw.choice(SHAPES)
    was, becomes, other = draw.sample(list(COLOURS), 3)
    places, seconds = scatter(draw, 2, size), draw.uniform(2.5, 4.0)
    at = draw.uniform(1.1, seconds - 1.1)
    (x, y, side), (u, v, small) = places
    beside = draw.choice([s for s in SHAPES if s != shape])
    actors = [
        shape_actor(draw, shape, was, side, style, fade(still(x, y), stop=at)),
        shape_actor(draw, shape, becomes, side, style, fade(still(x, y), at)),
        shape_actor(draw, beside, other, small, style, still(u, v)),
    ]
    now = draw.random() < 0.5
    ask_now = ("Which colour does the {shape} become?", "What colour does the {shape} turn?", "What is the colour of the {shape} at the end?", "The {shape} changes to which colour?")  # fmt: skip
    ask_was = ("Which colour was the {shape} at first?", "What colour does the {shape} have at the beginning?", "What is the first colour of the {shape}?", "The {shape} begins with which colour?")  # fmt: skip
    answer = f"The {shape} {'becomes' if now else 'was'} {becomes if now else was}."
    return video_item("recolouring", f"{shape} {was} to {becomes} beside {other} {beside}", ask_now if now else ask_was, answer, actors, seconds, size, style, [(shape, f"{was} to {becomes}", at)], draw, shape=shape)  # fmt: skip


def race(draw: random.Random) -> Item:
    """Which of two is faster, by more than half; on two lanes, the same way."""
    size, style, both = draw.choice(SIZES), draw_style(draw), kinds(draw, 2)
    (H, W), seconds, leftwards = size, draw.uniform(2.5, 4.0), draw.random() < 0.5
    side = round(min(size) * draw.uniform(0.22, 0.3))
    lanes = [H * 0.28, H * 0.72]
    draw.shuffle(lanes)
    far = W - side - 4
    ways = [far, far * draw.uniform(0.3, 0.55)]
    actors = []
    for kind, y, way in zip(both, lanes, ways, strict=True):
        # the slow one may start ahead: it is the pace that counts, not the place
        start = side / 2 + 2 + draw.uniform(0, far - way)
        a, b = (start, y), (start + way, y)
        if leftwards:
            a, b = (W - a[0], y), (W - b[0], y)
        actors.append(shape_actor(draw, *kind, side, style, between(a, b, 0.0, seconds - 1 / FPS)))
    wordings = ("Which shape is faster?", "Which one moves faster?", "What is the faster shape?", "Name the faster one.")  # fmt: skip
    content = f"{actors[0].name} before {actors[1].name}"
    return video_item("race", content, wordings, f"The {actors[0].name} is faster.", actors, seconds, size, style, [(actors[0].shape, "is faster", 0.0)], draw)  # fmt: skip


def growing(draw: random.Random) -> Item:
    """Whether a shape grows or shrinks, to about twice or half its size."""
    size, style, both = draw.choice(SIZES), draw_style(draw), kinds(draw, 2)
    seconds, grows = draw.uniform(2.0, 3.5), draw.random() < 0.5
    (x, y, side), (u, v, small) = scatter(draw, 2, size)
    low = draw.uniform(0.3, 0.5)

    def scale(t: float) -> float:
        share = min(1.0, t / (seconds - 1 / FPS))
        return low + (1 - low) * (share if grows else 1 - share)

    (shape, colour), other = both
    actors = [shape_actor(draw, *other, small, style, still(u, v)), shape_actor(draw, shape, colour, side, style, still(x, y), scale)]  # fmt: skip
    verb = "grows" if grows else "shrinks"
    wordings = ("Does the {shape} grow or shrink?", "What happens to the {shape}?", "Is the {shape} growing or shrinking?", "Does the {shape} become larger or smaller?")  # fmt: skip
    content = f"{verb} {colour} {shape} beside {actors[0].name}"
    return video_item("growing", content, wordings, f"The {shape} {verb}.", actors, seconds, size, style, [(shape, verb, 0.0)], draw, shape=shape)  # fmt: skip


SKILLS = (direction, direction, order, order, vanishing, bounces, recolouring, race, growing)


def ask(draw: random.Random) -> Item:
    """A silent video with a question."""
    return draw.choice(SKILLS)(draw)
