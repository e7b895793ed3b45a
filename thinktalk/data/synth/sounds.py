"""Sounds: noises one after another over a faint ground; which, how many, in which order, rising or falling, how loud.

The test has renderings nobody trained with (the variant decides the split), orders nobody trained with, and wordings of
its own. Where each sound lies is in the record: "events": [{"name", "start", "end"}], in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from thinktalk.data.synth import noises
from thinktalk.data.synth.encode import RATE
from thinktalk.data.synth.noises import EVENTS, TEXTURES
from thinktalk.data.synth.ogg import opus
from thinktalk.data.synth.pictures import listed, plural
from thinktalk.data.synth.world import Item

__all__ = ["COUNTED", "SKILLS", "Sound", "Track", "ask", "called", "noise"]

COUNTED = ("beep", "bell", "drum", "clap", "knock", "click", "bark", "quack", "hoot", "water drop", "horn", "whistle", "cuckoo", "laser")  # fmt: skip
"""Short enough that six of them can be told apart."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
BARE = {"rain": "rain", "wind": "wind", "thunder": "thunder", "fire": "fire", "sea": "the sea"}
VARIANTS = 1 << 20


def called(name: str) -> str:
    """With its article where it has one.

    >>> called("engine"), called("rain")
    ('an engine', 'rain')
    """
    return BARE.get(name) or listed([name])


@dataclass(frozen=True, slots=True)
class Sound:
    """What makes a sound, and how loud it is (peak)."""

    name: str
    make: Callable[[], np.ndarray]
    level: float = 0.5


def noise(name: str, draw: random.Random, *, seconds: float = 2.5, level: float | None = None) -> Sound:  # fmt: skip
    """Some rendering of a noise; `seconds` is for textures."""
    variant, loud = draw.randrange(VARIANTS), draw.uniform(0.15, 0.8)
    make = lambda: noises.noise_of(name, np.random.default_rng(variant), seconds=seconds)  # noqa: E731
    return Sound(name, make, loud if level is None else level)


@dataclass
class Track:
    """Sounds in a row, gaps[i] seconds before each and one after the last; made when it is asked for."""

    sounds: Sequence[Sound]
    gaps: Sequence[float]
    variant: int

    @cached_property
    def made(self) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """pcm (S,) at RATE over a ground of -80 to -46 dB, and where each sound lies."""
        parts, events, at = [], [], 0
        for sound, gap in zip(self.sounds, self.gaps, strict=False):
            pcm = sound.level * sound.make()
            parts += [np.zeros(round(gap * RATE)), pcm]
            start, at = at + len(parts[-2]), at + len(parts[-2]) + len(pcm)
            events.append({"name": sound.name, "start": round(start / RATE, 3), "end": round(at / RATE, 3)})  # fmt: skip
        parts.append(np.zeros(round(self.gaps[-1] * RATE)))
        pcm, rng = np.concatenate(parts), np.random.default_rng(self.variant)
        return (pcm + rng.standard_normal(len(pcm)) * 10 ** rng.uniform(-4.0, -2.3)).astype(np.float32), events  # fmt: skip


def _item(skill: str, content: str, wordings: tuple[str, ...], answer: str, sounds: Sequence[Sound], draw: random.Random, *, gaps: Sequence[float] | None = None, **fields: str) -> Item:  # fmt: skip
    pauses = gaps or [draw.uniform(0.2, 0.7) for _ in range(len(sounds) + 1)]
    track = Track(sounds, pauses, draw.randrange(VARIANTS))

    def facts() -> dict[str, Any]:
        pcm, events = track.made
        return {"seconds": round(len(pcm) / RATE, 4), "events": events, "content": content}

    media = lambda: {"opus": opus(track.made[0], RATE)}  # noqa: E731
    parts = ({"type": "audio", "audio": "opus"},)
    return Item(skill, content, wordings, answer, fields, {}, media, parts=parts, facts=facts)


def _any(draw: random.Random, count: int, *, seconds: tuple[float, float] = (1.0, 1.8)) -> list[Sound]:  # fmt: skip
    """Different noises."""
    return [noise(n, draw, seconds=draw.uniform(*seconds)) for n in draw.sample([*EVENTS, *TEXTURES], count)]  # fmt: skip


def what(draw: random.Random) -> Item:
    """The name of the one noise there is; an event may come twice."""
    sounds = _any(draw, 1, seconds=(1.5, 4.0))
    name = sounds[0].name
    if name in EVENTS and draw.random() < 0.3:
        sounds = sounds * 2
    wordings = ("What do you hear?", "What is this sound?", "Which sound is this?", "Name this sound.", "What makes this noise?", "Tell me what you hear.")  # fmt: skip
    # every name has to be taught: it is the rendering that is split
    content = f"{name} {draw.randrange(VARIANTS)}"
    return _item("sound", content, wordings, f"I hear {called(name)}.", sounds, draw)


def count(draw: random.Random) -> Item:
    """How often it happens, once to six times; all of them alike."""
    name, number = draw.choice(COUNTED), draw.randint(1, 6)
    sounds = [noise(name, draw)] * number
    even = draw.uniform(0.15, 0.5)
    gaps = [draw.uniform(0.1, 0.6), *(even + draw.uniform(0, 0.25) for _ in range(number - 1)), 0.4]
    many = plural(name)
    wordings = ("How many {plural} do you hear?", "Count the {plural}.", "How often do you hear {a}?", "How many {plural} are there?", "What is the number of {plural}?")  # fmt: skip
    answer = f"I hear {NUMBERS[number]} {name if number == 1 else many}."
    content = f"{number} {name} {draw.randrange(VARIANTS)}"
    return _item("sound_count", content, wordings, answer, sounds, draw, gaps=gaps, plural=many, a=listed([name]))  # fmt: skip


def pitch(draw: random.Random) -> Item:
    """Whether the pitch goes up or down, in one glide or in steps."""
    rises, low = draw.random() < 0.5, draw.uniform(180, 700)
    ends = (low, low * draw.uniform(1.5, 4))
    start, stop = ends if rises else ends[::-1]
    variant, steps, seconds = draw.randrange(VARIANTS), draw.choice((0, 0, 3, 4, 5)), draw.uniform(0.6, 2)  # fmt: skip
    rng = lambda: np.random.default_rng(variant)  # noqa: E731
    if steps:
        hertz = np.geomspace(start, stop, steps)
        sounds = [Sound("tone", partial(_toned, h, seconds / steps, variant)) for h in hertz]
        gaps = [0.3, *([draw.uniform(0.02, 0.15)] * (steps - 1)), 0.3]
    else:
        sounds = [Sound("tone", lambda: noises.glide(start, stop, seconds, rng()) / 2)]
        gaps = [draw.uniform(0.1, 0.6), draw.uniform(0.1, 0.6)]
    wordings = ("Does the pitch rise or fall?", "Is the sound rising or falling?", "Does the tone go up or down?", "Which way does the pitch go?")  # fmt: skip
    answer = f"The pitch {'rises' if rises else 'falls'}."
    content = f"{'up' if rises else 'down'} {start:.0f} {stop:.0f} {steps}"
    return _item("pitch", content, wordings, answer, sounds, draw, gaps=gaps)


def _toned(hertz: float, seconds: float, variant: int) -> np.ndarray:
    return noises.tone(hertz, seconds, np.random.default_rng(variant)) / 2


def higher(draw: random.Random) -> Item:
    """Whether the second of two tones is higher or lower, by three semitones at least."""
    up, low = draw.random() < 0.5, draw.uniform(150, 800)
    high, variant = low * 2 ** (draw.uniform(3, 16) / 12), draw.randrange(VARIANTS)
    first, second = (low, high) if up else (high, low)
    sounds = [Sound("tone", partial(_toned, h, draw.uniform(0.35, 0.8), variant)) for h in (first, second)]  # fmt: skip
    wordings = ("Is the second tone higher or lower than the first?", "Does the second tone sound higher or lower?", "The second tone: higher or lower?", "Compared with the first tone, is the second higher or lower?")  # fmt: skip
    answer = f"The second tone is {'higher' if up else 'lower'}."
    return _item("higher", f"{first:.0f} {second:.0f}", wordings, answer, sounds, draw)


def order(draw: random.Random) -> Item:
    """Which of two noises comes first, or second."""
    sounds = _any(draw, 2)
    first = draw.random() < 0.5
    names = [s.name for s in sounds]
    asked = names[0 if first else 1]
    pair = draw.sample(names, 2)  # the question must not tell the order
    one, other = (BARE.get(n, n).removeprefix("the ") for n in pair)
    word = "first" if first else "second"
    wordings = ("Which comes {word}, the {one} or the {other}?", "What do you hear {word}, the {one} or the {other}?", "Of the {one} and the {other}, which is {word}?", "Is it the {one} or the {other} that comes {word}?")  # fmt: skip
    answer = f"The {BARE.get(asked, asked).removeprefix('the ')} comes {word}."
    return _item("sound_order", f"{names[0]} then {names[1]}", wordings, answer, sounds, draw, word=word, one=one, other=other)  # fmt: skip


def sequence(draw: random.Random) -> Item:
    """All noises, in their order."""
    sounds = _any(draw, draw.randint(2, 3))
    names = [s.name for s in sounds]
    wordings = ("Which sounds do you hear, in order?", "Describe what you hear.", "List the sounds one after another.", "Which sounds are there, one after another?", "What do you hear, and then?")  # fmt: skip
    answer = f"I hear {', then '.join(called(n) for n in names)}."
    return _item("sequence", " then ".join(names), wordings, answer, sounds, draw)


def louder(draw: random.Random) -> Item:
    """Which of two that are otherwise alike is louder, by 10 dB at least."""
    name, first = draw.choice([*EVENTS]), draw.random() < 0.5
    one = noise(name, draw)
    levels = [draw.uniform(0.6, 0.9), draw.uniform(0.6, 0.9) * 10 ** (-draw.uniform(12, 18) / 20)]
    sounds = [Sound(name, one.make, level) for level in (levels if first else levels[::-1])]
    wordings = ("Which {name} is louder, the first or the second?", "Is the first or the second {name} louder?", "Tell me which {name} is louder.", "The louder {name}: is it the first or the second?")  # fmt: skip
    answer = f"The {'first' if first else 'second'} {name} is louder."
    content = f"{'first' if first else 'second'} {name} {draw.randrange(VARIANTS)}"
    return _item("louder", content, wordings, answer, sounds, draw, name=name)


def longer(draw: random.Random) -> Item:
    """Which of two tones of one pitch is longer, by more than half."""
    first, short = draw.random() < 0.5, draw.uniform(0.2, 0.8)
    lengths = [short * draw.uniform(1.7, 3), short]
    hertz, variant = draw.uniform(200, 1200), draw.randrange(VARIANTS)
    sounds = [Sound("tone", partial(_toned, hertz, s, variant)) for s in (lengths if first else lengths[::-1])]  # fmt: skip
    wordings = ("Which tone is longer, the first or the second?", "Is the first or the second tone longer?", "Which tone lasts longer?", "The longer tone: is it the first or the second?")  # fmt: skip
    answer = f"The {'first' if first else 'second'} tone is longer."
    return _item("longer", f"{first} {hertz:.0f} {short:.2f}", wordings, answer, sounds, draw)


def present(draw: random.Random) -> Item:
    """Whether a noise is among one or two; half of them are."""
    *sounds, absent = _any(draw, draw.randint(2, 3))
    holds = draw.random() < 0.5
    asked = sounds[0].name if holds else absent.name
    draw.shuffle(sounds)
    wordings = ("Do you hear {a}?", "Is there {a} in this recording?", "Can you hear {a}?", "Yes or no: do you hear {a}?")  # fmt: skip
    answer = f"{'Yes, I hear' if holds else 'No, I do not hear'} {called(asked)}."
    content = f"{asked} among {' '.join(s.name for s in sounds)}"
    return _item("heard", content, wordings, answer, sounds, draw, a=called(asked))


SKILLS = (what, what, count, pitch, higher, order, sequence, louder, longer, present)


def ask(draw: random.Random) -> Item:
    """A recording with a question; what there is to be heard is asked most often."""
    return draw.choice(SKILLS)(draw)
