"""World: a seed -> items with exact answers -> shards, split so that neither content nor wording of a test leaks.

    ask(random) -> Item: its content (what is asked, in one canonical line), wordings, answer, media

The content's hash decides the split, so the same question never stands on both sides, whatever its wording; wordings that
hash into test are used in test only. Knowledge that must be taught to be known (capitals) is in every split: there only the
wordings differ. Each shard has random numbers of its own: a make that was stopped goes on with the
first shard that is not there, and gives the bytes it would have given.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinktalk.data.prompts import SPLITS, split_of
from thinktalk.data.shards import ShardWriter
from thinktalk.data.synth.further import further
from thinktalk.data.synth.wording import aloud
from thinktalk.errors import ConfigError, InputError

__all__ = ["Item", "Only", "World", "begun", "draw_item", "fill", "make_world", "record_of"]

TRIES = 1000  # draws before a split is taken to be without contents
SHARD_SAMPLES = 1000
IN_WORDS = 0.33
"""Of written questions without media: what is spoken reaches a model without digits."""


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
    before: Sequence[tuple[str, str]] = ()
    """Earlier turns of the conversation: what was asked or told, and the answer."""
    taught: bool = False
    """Knowledge: it is in every split, since nobody can guess it; only wordings and voices are held out."""
    parts: Sequence[Mapping[str, Any]] = ()
    """Media of the question as messages name them; the pictures of `pixels` where there are none."""
    facts: Mapping[str, Any] | Callable[[], Mapping[str, Any]] = field(default_factory=dict)
    """What is to be seen or heard, as further fields of the record: things, events, seconds, style; or what makes them."""
    held: bool = False
    """Not for training nor dev: drawn in a style, or from a picture, that nobody trains with."""


World = Callable[[random.Random], Item]


@dataclass(frozen=True)
class Only:
    """A world that asks for some of its skills alone, as often as it would have. Errors: ConfigError (a skill it has not)."""

    world: World
    skills: frozenset[str]

    def __post_init__(self) -> None:
        draw = random.Random(0)
        have = {self.world(draw).skill for _ in range(TRIES)}
        if unknown := sorted(self.skills - have):
            raise ConfigError(f"skill {unknown[0]!r}: is unknown; this world has {', '.join(sorted(have))}")  # fmt: skip

    @property
    def name(self) -> str:
        """What world.json says of it."""
        return f"{_name(self.world)} {' '.join(sorted(self.skills))}"

    def __call__(self, draw: random.Random) -> Item:
        while True:
            item = self.world(draw)
            if item.skill in self.skills:
                return item


def fill(item: Item, split: str, draw: random.Random) -> str:
    """The question in a wording that belongs to the split; the last one is always kept for test, further ones never."""
    *rest, last = item.wordings
    held = [w for w in rest if split_of(w, salt=item.skill) == "test"] + [last]
    if len(held) == len(item.wordings):
        held = held[1:]  # hashing may hold all of a handful: the first one is for training then
    own = [w for w in rest if w not in held]
    choices = held if split == "test" else [*own, *further(item.wordings)]
    return draw.choice(choices).format(**item.fields)


def record_of(item: Item, split: str, draw: random.Random) -> dict:
    """The sample's JSON. Of questions without media some are asked in the words of speech: "three plus four"."""
    asking = fill(item, split, draw)
    bare = not item.parts and not item.pixels
    turned = aloud if bare and draw.random() < IN_WORDS else str
    words = {"type": "text", "text": turned(asking)}
    shown = list(item.parts) or [{"type": "image", "image": name} for name in item.pixels]
    asked = [*shown, words] if draw.random() < 0.5 else [words, *shown]
    content = asked if shown else words["text"]
    earlier = [
        {"role": role, "content": turned(said) if role == "user" else said}
        for turn in item.before
        for role, said in zip(("user", "assistant"), turn, strict=True)
    ]
    record = {
        "messages": [
            *earlier,
            {"role": "user", "content": content},
            {"role": "assistant", "content": item.answer},
        ],
        "task": item.skill,
        "source": "synth",
        **(item.facts() if callable(item.facts) else item.facts),
    }
    return record | ({"pixels": {n: list(p) for n, p in item.pixels.items()}} if item.pixels else {})  # fmt: skip


def make_world(
    world: World,
    out: str | os.PathLike[str],
    *,
    counts: Mapping[str, int],
    seed: int = 0,
    shard_samples: int = SHARD_SAMPLES,
    jobs: int = 1,
) -> tuple[list[str], Counter[str]]:
    """Write OUT/train-00000.tar and so on, so many samples of each split; gives the paths and the samples a skill has.

    The same seed gives the same bytes in any number of processes (`jobs`; the world must pickle then), and shards that this
    very make wrote before are left as they are (their samples are not counted). Errors: ConfigError (a split that is none,
    or that has no contents); InputError (OUT holds shards of another make, or cannot be written).
    """
    names = [name for _, name in SPLITS]
    if unknown := set(counts) - set(names):
        raise ConfigError(f"splits {sorted(unknown)} are unknown; have {', '.join(names)}")
    plan = {"seed": seed, "shard_samples": shard_samples, "counts": {n: counts.get(n, 0) for n in names}}  # fmt: skip
    shards = [
        _Shard(Path(out) / f"{split}-{n:05d}.tar", split, first, min(shard_samples, counts[split] - first), f"{seed} {split} {n}")
        for split in names
        for n, first in enumerate(range(0, counts.get(split, 0), shard_samples))
    ]  # fmt: skip
    skills: Counter[str] = Counter()
    with begun(Path(out), {"world": _name(world), **plan}):
        missing = [shard for shard in shards if not shard.path.exists()]
        if jobs == 1 or len(missing) < 2:
            for shard in missing:
                skills += _write(world, shard)
        else:
            # spawned, not forked: threads of the parent would leave locks behind
            with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
                for made in pool.map(_write, itertools.repeat(world), missing):
                    skills += made
    return [str(shard.path) for shard in shards], skills


@dataclass(frozen=True, slots=True)
class _Shard:
    """A tar that is to be written: samples `first` to `first + size` of a split, drawn from `seed`."""

    path: Path
    split: str
    first: int
    size: int
    seed: str


def _write(world: World, shard: _Shard) -> Counter[str]:
    """One shard, whole or not at all; the samples each skill has in it."""
    skills: Counter[str] = Counter()
    draw = random.Random(shard.seed)
    with tempfile.TemporaryDirectory(dir=shard.path.parent, prefix=".making-") as scratch:
        with ShardWriter(Path(scratch) / "shard", max_bytes=1 << 40) as writer:
            for number in range(shard.first, shard.first + shard.size):
                item = draw_item(world, shard.split, draw)
                record = json.dumps(record_of(item, shard.split, draw), ensure_ascii=False).encode()
                writer.write(f"{number:06d}", {"json": record, **item.media()})
                skills[item.skill] += 1
        writer.paths[0].replace(shard.path)
    return skills


@contextlib.contextmanager
def begun(out: Path, plan: dict[str, Any]) -> Iterator[None]:
    """OUT/world.json says what is made here; it is gone again when nothing was. Errors: InputError as make_world."""
    path = out / "world.json"
    shards = sorted(out.glob("*.tar")) if out.is_dir() else []
    try:
        before = json.loads(path.read_text()) if path.exists() else None
        if shards and before != plan:
            raise InputError(f"{shards[0]}: is already there and of another make, expected a place without shards; move it away or choose another")  # fmt: skip
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plan))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "is no JSON"
        raise InputError(f"{path}: {why}, expected a place to write to; choose another") from None
    try:
        yield
    except BaseException:
        if not any(out.glob("*.tar")):
            path.unlink(missing_ok=True)
        raise


def _name(world: World) -> str:
    return getattr(world, "name", None) or f"{getattr(world, '__module__', '')}.{getattr(world, '__qualname__', '')}"  # fmt: skip


def draw_item(world: World, split: str, draw: random.Random) -> Item:
    """An item that belongs to a split. Errors: ConfigError when the world seems to have none for it."""
    for _ in range(TRIES):
        item = world(draw)
        if item.held and split != "test":
            continue
        if item.taught or split_of(item.content, salt=item.skill) == split:
            return item
    raise ConfigError(f"{TRIES} questions in a row are not of the split {split}; make the world larger")  # fmt: skip
