"""Speech: a seed -> spoken sentences and spoken dialogues, in shards that several processes make side by side.

    sentences   text, voice, phones, durations + opus                             read by any voice of the cast
    dialogues   messages with audio + 0.opus, 1.opus, ... + answer.opus           asked by any voice, answered by an own one

`plan` draws everything but the sound; a shard is planned from seed, split and number alone. So shards can be made in any
order and by any number of processes, one that was stopped goes on, and the bytes are the same.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from thinktalk.data.making import Made
from thinktalk.data.prompts import SPLITS
from thinktalk.data.samples import FRAME_SECONDS
from thinktalk.data.shards import Fault, ShardWriter
from thinktalk.data.synth import text
from thinktalk.data.synth.ogg import opus
from thinktalk.data.synth.sentences import SOURCES, sentences
from thinktalk.data.synth.voices import Engine, Said, Voice, cast, is_kept, own_voices
from thinktalk.data.synth.wording import aloud
from thinktalk.data.synth.world import Item, begun, draw_item, fill
from thinktalk.errors import ConfigError, InputError

__all__ = ["KINDS", "Line", "SpeechWorld", "Task", "engine_of", "make_speech", "plan"]

KINDS = ("sentences", "dialogues")
SHARD_SAMPLES = 100
"""Five minutes of speech: what a stopped make loses at most, and little enough for many processes to share."""
SPEEDS = (0.9, 1.12)
ANSWER_SPEEDS = (0.95, 1.05)
TEST_VOICES_SHARE = 0.5
"""Of the test's lines: by voices that were never heard."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one voice says."""

    text: str
    """As it is said: numbers in words."""
    voice: Voice
    speed: float


@dataclass(frozen=True, slots=True)
class Task:
    """One sample to come: its record but for what the sound tells, and the lines by member."""

    record: Mapping[str, Any]
    lines: Mapping[str, Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechWorld:
    """What is said, and by whom."""

    engine: str = "kokoro"
    kind: str = "sentences"
    texts: tuple[str, ...] = SOURCES
    """Sources of sentences; dialogues take their questions from synth/text.py."""
    blends: int = 200
    """How many voices besides the stock ones."""
    own_percent: int = 25
    """Of the sentences: read by the model's own voices, which all answers are."""
    seed: int = 0
    cache: str | None = field(default=None, compare=False)
    """Where packages are kept."""

    @property
    def identity(self) -> dict[str, Any]:
        """What makes its bytes what they are."""
        return {"world": "speech", "shard_samples": SHARD_SAMPLES} | {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in ("cache", "own_percent" if self.kind == "dialogues" else "")
        }


# ---------------------------------------------------------------------------------------------------------------- plan


def plan(world: SpeechWorld, split: str, shard: int, size: int, texts: Sequence[tuple[str, str]] = ()) -> list[Task]:  # fmt: skip
    """`size` samples of a shard, by its number; `texts` are the (sentence, source) of the split, taken in turn."""
    draw = random.Random(f"{world.seed} {split} {shard} {world.kind}")
    voices = cast(world.engine, split, blends=world.blends, seed=world.seed)
    own = own_voices(world.engine)
    if world.kind == "dialogues":
        return [_dialogue(split, draw, voices, own) for _ in range(size)]
    first = shard * SHARD_SAMPLES
    chosen = (texts[n % len(texts)] for n in range(first, first + size))
    tasks = []
    for sentence, source in chosen:
        readers = own if draw.randrange(100) < world.own_percent else voices
        line = _line(sentence, split, draw, readers, [v for v in voices if is_kept(v)])
        tasks.append(Task({"source": source, "language": "en"}, {"opus": line}))
    return tasks


def _dialogue(split: str, draw: random.Random, voices: Sequence[Voice], own: Sequence[Voice]) -> Task:  # fmt: skip
    """A question of the world, every turn of the user spoken, and its answer by one of the model's own voices."""
    item = _item(split, draw)
    asked = [*(turn[0] for turn in item.before), fill(item, split, draw)]
    answers = [*(turn[1] for turn in item.before), item.answer]
    kept = [v for v in voices if is_kept(v)]
    one = _line(aloud(asked[0]), split, draw, voices, kept)  # one person asks it all
    lines = {f"{n}.opus": Line(aloud(words), one.voice, one.speed) for n, words in enumerate(asked)}
    messages: list[dict[str, Any]] = []
    for member, answer in zip(lines, answers, strict=True):
        messages.append({"role": "user", "content": [{"type": "audio", "audio": member}]})
        messages.append({"role": "assistant", "content": answer})
    lines["answer.opus"] = Line(aloud(item.answer), draw.choice(own), round(draw.uniform(*ANSWER_SPEEDS), 2))  # fmt: skip
    record = {"messages": messages, "asked": asked, "task": item.skill, "source": "questions", "language": "en"}  # fmt: skip
    return Task(record, lines)


def _item(split: str, draw: random.Random) -> Item:
    """A question of the split. The skill is drawn first: what is taught is in every split and would fill dev and test."""
    for skill in draw.sample(text.SKILLS, len(text.SKILLS)):
        with contextlib.suppress(
            ConfigError
        ):  # a skill of a few questions may have none in a split
            return draw_item(skill, split, draw)
    raise AssertionError(f"no skill has a question of the split {split}")


def _line(words: str, split: str, draw: random.Random, voices: Sequence[Voice], kept: Sequence[Voice]) -> Line:  # fmt: skip
    """The words by one of `voices`; in the test, every other time by one of those that were never heard."""
    if split == "test" and kept and draw.random() < TEST_VOICES_SHARE:
        voices = kept
    return Line(words, draw.choice(voices), round(draw.uniform(*SPEEDS), 2))


# --------------------------------------------------------------------------------------------------------------- speak


def members(task: Task, engine: Engine) -> dict[str, bytes]:
    """The sample's members: every line spoken, and the record that tells of them. Errors: InputError (cannot be said)."""
    said = {name: engine.say(line.text, line.voice, speed=line.speed) for name, line in task.lines.items()}  # fmt: skip
    first, *_ = task.lines
    record = dict(task.record) | {"text": task.lines[first].text} | _told(task.lines[first], said[first])  # fmt: skip
    if "answer.opus" in said:
        answer = task.lines["answer.opus"]
        own = {"text": answer.text} | _told(answer, said["answer.opus"])
        record |= {f"answer_{name}": value for name, value in own.items()}
        record["seconds_of"] = {name: round(s.seconds, 4) for name, s in said.items()}
    return {
        "json": json.dumps(record, ensure_ascii=False).encode(),
        **{name: opus(s.pcm, s.sample_rate) for name, s in said.items()},
    }


def _told(line: Line, said: Said) -> dict[str, Any]:
    """What a record says of a sound."""
    told: dict[str, Any] = {"voice": line.voice.name, "seconds": round(said.seconds, 4), "speed": line.speed}  # fmt: skip
    if len(line.voice.recipe) > 1:
        told["voice_of"] = dict(line.voice.recipe)
    if said.phones:
        told |= {"phones": said.phones}
    if said.durations:
        told |= {"durations": list(said.durations)}
        told |= {"frame_seconds": said.frame_seconds} if said.frame_seconds != FRAME_SECONDS else {}
    return told


@functools.cache
def engine_of(name: str, cache: str | None) -> Engine:
    """The speaker of this process, by name: kokoro, espeak, flite."""
    if name == "kokoro":
        from thinktalk.data.synth.kokoro import Kokoro

        return Kokoro(cache)
    from thinktalk.data.synth.robots import Espeak, Flite

    return Espeak() if name == "espeak" else Flite()


# ---------------------------------------------------------------------------------------------------------------- make


@dataclass(frozen=True, slots=True)
class _Shard:
    """One shard to make."""

    path: Path
    split: str
    number: int
    tasks: tuple[Task, ...]


def make_speech(
    world: SpeechWorld,
    out: str | os.PathLike[str],
    *,
    counts: Mapping[str, int],
    jobs: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> Made:
    """Write OUT/train-00000.tar and so on, so many samples of each split, in `jobs` processes, one thread each.

    Shards that are there already are passed by, so a make that was stopped goes on; `counts` may grow. What cannot be
    said is passed by and named. `report` gets a line a shard. Gives what was made now. Errors: InputError (OUT holds
    shards of another make, an engine or a package is missing, the disk is full).
    """
    out, made = Path(out), Made()
    with begun(out, world.identity):
        missing = _missing(world, out, counts)
        for count, (path, seconds, faults) in enumerate(_spoken(missing, world, jobs), 1):
            split = path.name.partition("-")[0]
            made.paths.append(str(path))
            made.samples[split] += len(seconds)
            made.seconds[split] += sum(seconds)
            made.faults += faults
            report(f"{path.name}: {len(seconds)} samples, {sum(seconds):.0f} s ({count} of {len(missing)})")  # fmt: skip
    made.paths.sort()
    return made


def _missing(world: SpeechWorld, out: Path, counts: Mapping[str, int]) -> list[_Shard]:
    """The shards that are not there yet, splits mixed so that a make that is stopped early has some of each."""
    shards: list[tuple[float, _Shard]] = []
    for _, split in SPLITS:
        texts: Sequence[tuple[str, str]] = ()
        firsts = range(0, counts.get(split, 0), SHARD_SAMPLES)
        for number, first in enumerate(firsts):
            path = out / f"{split}-{number:05d}.tar"
            if path.exists():
                continue
            if world.kind == "sentences" and not texts:
                texts = sentences(world.texts, split, seed=world.seed, cache=world.cache)
            size = min(SHARD_SAMPLES, counts[split] - first)
            tasks = tuple(plan(world, split, number, size, texts))
            shards.append(((number + 0.5) / len(firsts), _Shard(path, split, number, tasks)))
    return [shard for _, shard in sorted(shards, key=lambda pair: pair[0])]


_Written = tuple[Path, list[float], list[Fault]]


def _spoken(shards: Sequence[_Shard], world: SpeechWorld, jobs: int) -> Iterator[_Written]:
    """Each shard as it is finished."""
    if jobs == 1 or len(shards) < 2:
        for shard in shards:
            yield _write(shard, world.engine, world.cache)
        return
    # spawned, not forked: threads of the parent would leave locks behind
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        futures: list[Future[_Written]] = [pool.submit(_write, s, world.engine, world.cache) for s in shards]  # fmt: skip
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _write(shard: _Shard, engine: str, cache: str | None) -> _Written:
    """One shard, whole or not at all."""
    speaker = engine_of(engine, cache)
    seconds: list[float] = []
    faults: list[Fault] = []
    with tempfile.TemporaryDirectory(dir=shard.path.parent, prefix=".making-") as scratch:
        with ShardWriter(Path(scratch) / "shard", max_bytes=1 << 40) as writer:
            for n, task in enumerate(shard.tasks):
                key = f"{shard.number * SHARD_SAMPLES + n:06d}"
                try:
                    content = members(task, speaker)
                except InputError as error:
                    faults.append(Fault(f"{shard.path}/{key}", str(error)))
                    continue
                writer.write(key, content)
                record = json.loads(content["json"])
                seconds.append(sum(record.get("seconds_of", {"": record["seconds"]}).values()))
        if not writer.paths:
            raise InputError(f"{shard.path}: nothing of it could be said ({faults[0].reason if faults else 'no samples'}), expected speech; check engine and texts")  # fmt: skip
        writer.paths[0].replace(shard.path)
    return shard.path, seconds, faults
