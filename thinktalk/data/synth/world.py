"""World: a seed -> items with exact answers -> shards, split so that neither content nor wording of a test leaks.

    ask(random) -> Item: its content (what is asked, in one canonical line), wordings, answer, media

The content's hash decides the split, so the same question never stands on both sides, whatever its wording; wordings that
hash into test are used in test only.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from thinktalk.data.prompts import SPLITS, split_of
from thinktalk.data.shards import ShardWriter
from thinktalk.errors import ConfigError

__all__ = ["Item", "World", "fill", "make_world", "record_of"]

TRIES = 1000  # draws before a split is taken to be without contents


@dataclass(frozen=True)
class Item:
    """A question with its exact answer."""

    skill: str
    content: str
    """What is asked, in one canonical line: its hash is the split."""
    wordings: Sequence[str]
    """Ways to ask it, {name} for each of `fields`; at least two."""
    answer: str
    fields: Mapping[str, object] = field(default_factory=dict)
    pixels: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Pictures by member name: height and width."""
    media: Callable[[], Mapping[str, bytes]] = dict
    """Makes the members; called only for items that are kept."""


World = Callable[[random.Random], Item]


def fill(item: Item, split: str, draw: random.Random) -> str:
    """The question in a wording that belongs to the split; the last one is always kept for test."""
    *rest, last = item.wordings
    held = [w for w in rest if split_of(w, salt=item.skill) == "test"] + [last]
    if len(held) == len(item.wordings):
        held = held[1:]  # hashing may hold all of a handful: the first one is for training then
    choices = held if split == "test" else [w for w in rest if w not in held]
    return draw.choice(choices).format(**item.fields)


def record_of(item: Item, split: str, draw: random.Random) -> dict:
    """The sample's JSON."""
    words = {"type": "text", "text": fill(item, split, draw)}
    shown = [{"type": "image", "image": name} for name in item.pixels]
    asked = [*shown, words] if draw.random() < 0.5 else [words, *shown]
    content = asked if shown else words["text"]
    return {
        "messages": [
            {"role": "user", "content": content},
            {"role": "assistant", "content": item.answer},
        ],
        "task": item.skill,
        "source": "synth",
    } | ({"pixels": {n: list(p) for n, p in item.pixels.items()}} if item.pixels else {})


def make_world(
    world: World,
    out: str | os.PathLike[str],
    *,
    counts: Mapping[str, int],
    seed: int = 0,
    max_bytes: int = 256 << 20,
) -> tuple[list[str], Counter[str]]:
    """Write OUT/train-00000.tar and so on, so many samples of each split; gives the paths and the samples a skill has.

    The same seed gives the same bytes. Errors: ConfigError (a split that is none, or that has no contents).
    """
    names = [name for _, name in SPLITS]
    if unknown := set(counts) - set(names):
        raise ConfigError(f"splits {sorted(unknown)} are unknown; have {', '.join(names)}")
    skills: Counter[str] = Counter()
    paths: list[str] = []
    for split in names:
        draw = random.Random(f"{seed} {split}")
        with contextlib.ExitStack() as stack:
            if counts.get(split, 0):
                shards = stack.enter_context(ShardWriter(Path(out) / split, max_bytes=max_bytes))
            for number in range(counts.get(split, 0)):
                item = _draw(world, split, draw)
                record = json.dumps(record_of(item, split, draw), ensure_ascii=False).encode()
                shards.write(f"{number:06d}", {"json": record, **item.media()})
                skills[item.skill] += 1
        paths += [str(p) for p in shards.paths] if counts.get(split, 0) else []
    return paths, skills


def _draw(world: World, split: str, draw: random.Random) -> Item:
    for _ in range(TRIES):
        item = world(draw)
        if split_of(item.content, salt=item.skill) == split:
            return item
    raise ConfigError(f"{TRIES} questions in a row are not of the split {split}; make the world larger")  # fmt: skip
