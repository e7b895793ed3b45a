"""Omni: sound with video, so that only both together tell; which shape sounded, which sound was the hit's, before or after.

    which       every shape hops once, one of them with a sound        no eye and no ear alone can tell: 1 of 2 or 3
    hit_sound   two sounds, one of them when the ball hits the wall     the same: 1 of 2
    together    one sound, when the ball hits or at another time        the same: 1 of 2
    before      the sound comes a second before or after the hit        one alone gets 60 % (see before_after)

A sound that is moved in time changes every answer, and times that are scrambled take them away: this is what TMRoPE is
tested with. The record has the moments ("events") and what guessing gets ("chance").
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from thinktalk.data.synth import moving, noises
from thinktalk.data.synth.drawing import COLOURS
from thinktalk.data.synth.encode import RATE
from thinktalk.data.synth.moving import Actor, Path, shape_actor, still
from thinktalk.data.synth.pictures import listed
from thinktalk.data.synth.sounds import VARIANTS
from thinktalk.data.synth.videos import Events, draw_style, kinds, video_item
from thinktalk.data.synth.world import Item

__all__ = ["SHORT", "SKILLS", "ask", "sounding"]

SHORT = ("beep", "bell", "drum", "clap", "knock", "bark", "quack", "horn", "whistle", "buzzer", "water drop", "glass")  # fmt: skip
HOP_S = 0.9  # two frames a second see every hop off the ground
SWING_S = 1.2  # of the ball to the wall, and back
STEP_S = 1.5  # between moments at which something may happen


def sounding(draw: random.Random, at: Sequence[tuple[str, float]], seconds: float) -> Callable[[], np.ndarray]:  # fmt: skip
    """What makes a track of `seconds` with each of these noises at its moment, over a faint ground."""
    variants = [(name, when, draw.randrange(VARIANTS), draw.uniform(0.3, 0.8)) for name, when in at]
    grain = draw.randrange(VARIANTS)

    def make() -> np.ndarray:
        rng = np.random.default_rng(grain)
        pcm = rng.standard_normal(round(seconds * RATE)) * 10 ** rng.uniform(-4.0, -2.5)
        for name, when, variant, level in variants:
            one = level * noises.noise_of(name, np.random.default_rng(variant))
            start = round(when * RATE)
            one = one[: len(pcm) - start]
            pcm[start : start + len(one)] += one
        return pcm.astype(np.float32)

    return make


def _hop(x: float, y: float, height: float, at: float) -> Path:
    """On the ground but for HOP_S from `at` on."""

    def path(t: float) -> tuple[float, float]:
        share = (t - at) / HOP_S
        return x, y - (height * np.sin(np.pi * share) if 0 < share < 1 else 0.0)

    return path


def which(draw: random.Random) -> Item:
    """Two or three shapes hop one after another; the sound comes with one of the hops."""
    size, style, some = draw.choice(moving.SIZES), draw_style(draw), kinds(draw, draw.randint(2, 3))
    (H, W), count = size, len(some)
    slots = [0.6 + STEP_S * k + draw.uniform(0, 0.3) for k in range(count)]
    seconds = slots[-1] + STEP_S
    turns = draw.sample(range(count), count)  # who hops when
    side, gap = round(min(size) * 0.24), W / count
    actors = [shape_actor(draw, *kind, side, style, _hop(gap * (n + 0.5), H * 0.75, H * 0.42, slots[turns[n]])) for n, kind in enumerate(some)]  # fmt: skip
    asked, sound = draw.randrange(count), draw.choice(SHORT)
    when = slots[turns[asked]]
    make = sounding(draw, [(sound, when)], seconds)
    wordings = ("Which shape makes the sound?", "Which shape do you hear?", "Who made the noise?", "Which shape hops with the sound?", "Where does the sound come from?")  # fmt: skip
    content = f"{actors[asked].name} among {' '.join(a.name for a in actors)} as {turns[asked]}"
    events = [(a.shape, "hops", slots[t]) for a, t in zip(actors, turns, strict=True)] + [(sound, "sounds", when)]  # fmt: skip
    answer = f"The {actors[asked].name} makes the sound."
    return _timed("which_sounds", content, wordings, answer, actors, seconds, size, style, events, draw, make, 1 / count)  # fmt: skip


def _timed(skill: str, content: str, wordings: tuple[str, ...], answer: str, actors: Sequence[Actor], seconds: float, size: tuple[int, int], style: str, events: Events, draw: random.Random, sound: Callable[[], np.ndarray], chance: float, **fields: str) -> Item:  # fmt: skip
    item = video_item(skill, content, wordings, answer, actors, seconds, size, style, events, draw, sound=sound, **fields)  # fmt: skip
    assert isinstance(item.facts, dict)
    item.facts["chance"] = round(chance, 3)
    return item


class _Swing:
    """A ball that goes to a wall, hits it at a moment, and goes back."""

    def __init__(self, draw: random.Random, at: float):
        self.size, self.style = draw.choice(moving.SIZES), draw_style(draw)
        self.colour = draw.choice(list(COLOURS))
        (H, W), side, right = self.size, round(min(self.size) * draw.uniform(0.2, 0.3)), draw.random() < 0.5  # fmt: skip
        y, thick = draw.uniform(side, H - side), 8
        near = W - thick - side / 2 if right else thick + side / 2
        far = side / 2 + 4 if right else W - side / 2 - 4

        def path(t: float) -> tuple[float, float]:
            share = min(1.0, abs(t - at) / SWING_S)
            return near + (far - near) * share, y

        wall = lambda: Image.new("RGBA", (thick, H), (70, 60, 50, 255))  # noqa: E731
        stands = still(W - thick / 2 if right else thick / 2, H / 2)
        ball = shape_actor(draw, "circle", self.colour, side, self.style, path)
        self.actors = [Actor("wall", "grey", wall, stands), ball]


def hit_sound(draw: random.Random) -> Item:
    """Two sounds at two of three moments; the ball hits the wall at one of them."""
    slots = [1.3 + STEP_S * k + draw.uniform(0, 0.3) for k in range(3)]
    seconds = slots[-1] + STEP_S
    pair, moments = draw.sample(SHORT, 2), draw.sample(slots, 2)
    swing = _Swing(draw, moments[0])  # the first of the pair is the hit's
    make = sounding(draw, list(zip(pair, moments, strict=True)), seconds)
    one, other = draw.sample(pair, 2)  # the question must not tell
    wordings = ("Which sound comes with the hit, the {one} or the {other}?", "What do you hear when the ball hits the wall, the {one} or the {other}?", "Is it the {one} or the {other} that comes with the hit?", "The ball hits the wall: with the {one} or with the {other}?")  # fmt: skip
    content = f"{pair[0]} not {pair[1]} {swing.colour} at {slots.index(moments[0])} {slots.index(moments[1])}"  # fmt: skip
    events = [("ball", "hits", moments[0]), *((n, "sounds", t) for n, t in zip(pair, moments, strict=True))]  # fmt: skip
    return _timed("hit_sound", content, wordings, f"The {pair[0]} comes with the hit.", swing.actors, seconds, swing.size, swing.style, events, draw, make, 0.5, one=one, other=other)  # fmt: skip


def together(draw: random.Random) -> Item:
    """One sound, with the hit or at another of three moments; half of them are with it."""
    slots = [1.3 + STEP_S * k + draw.uniform(0, 0.3) for k in range(3)]
    seconds, holds = slots[-1] + STEP_S, draw.random() < 0.5
    hit, elsewhere = draw.sample(slots, 2)
    when, sound = hit if holds else elsewhere, draw.choice(SHORT)
    swing = _Swing(draw, hit)
    make = sounding(draw, [(sound, when)], seconds)
    wordings = ("Does {a} sound when the ball hits the wall?", "Do you hear {a} at the very moment of the hit?", "Does the sound come with the hit?", "Yes or no: do the hit and the sound come together?")  # fmt: skip
    answer = "Yes, they come together." if holds else "No, they do not come together."
    content = (
        f"{sound} {swing.colour} at {slots.index(hit)} {slots.index(when)} {draw.randrange(8)}"
    )
    events = [("ball", "hits", hit), (sound, "sounds", when)]
    return _timed("together", content, wordings, answer, swing.actors, seconds, swing.size, swing.style, events, draw, make, 0.5, a=listed([sound]))  # fmt: skip


def before_after(draw: random.Random) -> Item:
    """One sound a second before or after the hit; its time and the hit's lie anywhere in five seconds.

    No times can be drawn so that neither tells anything: what comes before is earlier in the mean. With the middle m of
    both drawn from U(1.8, 6.8) and a gap of 1.0, an ear alone that says "before" when it hears the sound early is right
    in 1 - (5 - 1) / 5 / 2 = 60 %.
    """
    middle, gap, before = draw.uniform(1.8, 6.8), 1.0, draw.random() < 0.5
    sound, seconds = draw.choice(SHORT), 8.5
    when, hit = (middle - gap / 2, middle + gap / 2) if before else (middle + gap / 2, middle - gap / 2)  # fmt: skip
    swing = _Swing(draw, hit)
    make = sounding(draw, [(sound, when)], seconds)
    word = "before" if before else "after"
    wordings = ("Does the {noise} come before or after the hit?", "Do you hear the {noise} before or after the ball hits the wall?", "The {noise}: before or after the hit?", "When does the {noise} sound, before the hit or after it?")  # fmt: skip
    content = f"{word} {sound} {swing.colour} {draw.randrange(64)}"
    events = [("ball", "hits", hit), (sound, "sounds", when)]
    return _timed("before_after", content, wordings, f"The {sound} comes {word} the hit.", swing.actors, seconds, swing.size, swing.style, events, draw, make, 0.5, noise=sound)  # fmt: skip


SKILLS = (which, which, hit_sound, together, before_after)


def ask(draw: random.Random) -> Item:
    """A video with sound and a question that needs both."""
    return draw.choice(SKILLS)(draw)
