"""A small world in which codes spell: each letter is a code or two of its own, commas are pauses; who knows it reads perfectly.

What a Talker learns here is what it learns of speech: to say the words of the Thinker in order, at some pace, pausing at
commas, and to stop. Sentences of the test are drawn from numbers that training never sees.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from thinktalk.data.shards import ShardWriter
from thinktalk.metrics.pauses import Word
from thinktalk.training.judges import Heard

__all__ = ["judge", "sentence", "spell", "write_spelled"]

WORDS = "red green blue ten two six big sun rain one man dog box cup key bus".split()  # noqa: SIM905
SPACE, PAUSE, FIRST = 5, 6, 10
RATE = 50.0
"""Codes a second."""


def sentence(random: np.random.Generator) -> str:
    """Two to five words, sometimes a comma after one of them."""
    words = random.choice(WORDS, random.integers(2, 6)).tolist()
    if len(words) > 2 and random.random() < 0.5:
        words[random.integers(0, len(words) - 1)] += ","
    return " ".join(words).capitalize() + "."


def spell(text: str, random: np.random.Generator) -> list[int]:
    """Codes of a text: one to two a letter, a space or a long pause between words."""
    codes: list[int] = []
    for c in text.lower().rstrip("."):
        if c == ",":
            codes += [PAUSE] * random.integers(6, 9)
        else:
            code = SPACE if c == " " else FIRST + ord(c) - ord("a")
            codes += [code] * (1 if c == " " else int(random.integers(1, 3)))
    return codes


def judge(codes: Sequence[Sequence[int]]) -> list[Heard]:
    """Runs of a code are a letter, anything that spells nothing parts words."""
    heard = []
    for row in codes:
        words: list[Word] = []
        at = 0
        for letter, run in groupby(row, lambda c: FIRST <= c < FIRST + 26):
            run = list(run)
            if letter:
                text = "".join(chr(ord("a") + c - FIRST) for c, _ in groupby(run))
                words.append(Word(text, at / RATE, (at + len(run)) / RATE))
            at += len(run)
        heard.append(Heard(words))
    return heard


def write_spelled(folder: Path, *, count: int, first: int = 0, name: str = "spelled") -> str:
    """Sentences number `first` and on, read by two voices in turn; the path of the shard."""
    with ShardWriter(folder / name) as writer:
        for n in range(first, first + count):
            random = np.random.default_rng(n)
            text = sentence(random)
            codes = spell(text, random)
            voice = ("Ethan", "Chelsie")[n % 2]
            record = {"text": text, "voice": voice, "seconds": len(codes) / RATE, "codes": codes}
            writer.write(f"{n:06d}", {"json": json.dumps(record).encode()})
    return str(writer.paths[0])
