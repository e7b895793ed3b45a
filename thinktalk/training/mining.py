"""Mining: the Talker says the same thing several times, a judge listens, and the best and the worst become a preference.

    mine     what k2 learns from         speak     what k0 learns from: answers said once, as they come

    tasks --pipeline.embed, recite, talk (samples times)--> codes --judge--> words, pauses --score--> error of each
    the best against the worst, when they are far enough apart  -->  shards with `chosen` and `rejected`

Shards appear chunk by chunk with their numbers beside them; a search that was stopped goes on with the next chunk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thinktalk.code2wav.speaker import Voice
from thinktalk.data.mixture import Source
from thinktalk.data.samples import parse
from thinktalk.data.shards import Entry, ShardWriter
from thinktalk.errors import ConfigError, InputError
from thinktalk.pipeline import Options, embed, recite, talk
from thinktalk.training.judges import Judge
from thinktalk.training.k1_icl import InContext
from thinktalk.training.scoring import MiningConfig, Said, Score, best_and_worst, score
from thinktalk.training.talker_batches import Task
from thinktalk.weights.hf import OmniModel
from thinktalk.weights.store import atomic_write

__all__ = ["Mined", "limit_of", "mine", "say", "speak"]

CHUNK = 64  # prompts whose pairs are written together
LETTERS_PER_SECOND = 7.0  # half as fast as people speak: what takes longer does not stop any more
LEAST_SECONDS = 2.0


@dataclass
class Mined:
    """Numbers of a search."""

    tried: int = 0
    """Tasks."""
    pairs: int = 0
    """Of them, those that gave something to learn."""
    passed_by: int = 0
    """Samples that could not be used."""
    error: float = 0.0
    """Mean over all that was said."""
    best: float = 0.0
    """Mean over the best of each task: how much there is to gain."""

    def __add__(self, other: Mined) -> Mined:
        tried = self.tried + other.tried

        def mean(name: str) -> float:
            sums = getattr(self, name) * self.tried + getattr(other, name) * other.tried
            return sums / max(1, tried)

        return Mined(tried, self.pairs + other.pairs, self.passed_by + other.passed_by, mean("error"), mean("best"))  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- saying


def say(
    model: OmniModel, make: InContext, tasks: Sequence[Task], *, times: int, options: Options
) -> list[list[Said]]:
    """Each task said `times` times by the very code that talks to people; seeds follow from the options'."""
    if not tasks:
        return []
    asked = [make.kit.prompt(task) for task in tasks]
    thoughts = recite(model, embed(model, [p for p, _ in asked]), [reply for _, reply in asked])
    voices = [_voice(make, task) for task in tasks]
    limits = [limit_of(task.text, model) for task in tasks]
    generation = replace(options.generation, max_codes=max(limits))
    said: list[list[Said]] = [[] for _ in tasks]
    for time in range(times):
        drawn = replace(options, generation=generation, seed=options.seed * 1009 + time)
        for row, codes in enumerate(talk(model, thoughts, voices, drawn)):
            stopped = len(codes) < limits[row]
            said[row].append(Said(codes[: limits[row]], stopped))
    return said


def limit_of(text: str, model: OmniModel) -> int:
    """Codes after which nobody who says this text is still speaking."""
    assert model.config.code2wav is not None
    rate = float(model.config.code2wav.codes_per_second)
    return math.ceil(rate * (LEAST_SECONDS + len(text) / LETTERS_PER_SECOND))


def _voice(make: InContext, task: Task) -> Voice:
    """Only the token matters here: no wave is made."""
    token = make.kit.voices.get(task.voice or "", make.kit.anybody)
    return Voice(task.voice or "", torch.zeros(1, 0), torch.zeros(1, 0, 0), token)


# -------------------------------------------------------------------------------------------------------------- mining


def mine(
    model: OmniModel,
    source: Source,
    make: InContext,
    judge: Judge,
    directory: str | Path,
    config: MiningConfig,
    *,
    seed: int = 0,
    rank: int = 0,
    ranks: int = 1,
    watch: Callable[[Mined], None] = lambda mined: None,
) -> Mined:
    """Write preferences of this rank's tasks into `directory`, one shard a chunk; those already there stay.

    Errors: ConfigError where the directory holds a search with other numbers.
    """

    def work(entries: Sequence[Entry], prefix: Path, seed: int) -> Mined:
        return _mine_chunk(model, entries, make, judge, config, prefix, seed=seed)

    asked = {"samples": len(source), **asdict(config)}
    order = source.order(seed, 0, 0)[: config.prompts][rank::ranks]
    entries = [source.entries[n] for n in order]
    prefix = Path(directory) / f"pairs-{rank}of{ranks}"
    return _in_chunks(entries, prefix, asked, work, seed=seed * ranks + rank, watch=watch)


def speak(
    model: OmniModel,
    source: Source,
    make: InContext,
    voices: Sequence[str],
    directory: str | Path,
    *,
    rows: int = 16,
    seed: int = 0,
    rank: int = 0,
    ranks: int = 1,
    watch: Callable[[Mined], None] = lambda mined: None,
) -> Mined:
    """Write this rank's dialogues with the codes that the model says their answers in, in one of `voices` where none is told.

    Sampled as when people listen; what did not stop is left out (`pairs` counts what is written). Errors as `mine`.
    """

    def work(entries: Sequence[Entry], prefix: Path, seed: int) -> Mined:
        tasks, passed_by = _tasks(entries, make, seed)
        tasks = [t if t.voice else replace(t, voice=voices[n % len(voices)]) for n, t in enumerate(tasks)]  # fmt: skip
        tasks.sort(key=lambda task: len(task.text))
        said = []
        for start in range(0, len(tasks), rows):
            some = tasks[start : start + rows]
            options = Options(generation=model.config.generation, seed=seed * 131 + start)
            each = say(model, make, some, times=1, options=options)
            said += [(t, one) for t, (one,) in zip(some, each, strict=True) if one.complete and one.codes]  # fmt: skip
        _write(prefix, [(task, {"answer_codes": one.codes}) for task, one in said])
        return Mined(len(tasks), len(said), passed_by)

    entries = [source.entries[n] for n in range(len(source))][rank::ranks]
    asked = {"samples": len(source), "voices": list(voices), "rows": rows}
    prefix = Path(directory) / f"spoken-{rank}of{ranks}"
    return _in_chunks(entries, prefix, asked, work, seed=seed * ranks + rank, watch=watch)


def _in_chunks(
    entries: Sequence[Entry],
    prefix: Path,
    asked: Mapping[str, Any],
    work: Callable[[Sequence[Entry], Path, int], Mined],
    *,
    seed: int,
    watch: Callable[[Mined], None],
) -> Mined:
    """Work through entries; a chunk that has its note is there, one without is made anew.

    Errors: ConfigError where the note is of other numbers.
    """
    prefix.parent.mkdir(parents=True, exist_ok=True)
    asked = json.loads(json.dumps({"seed": seed, "chunk": CHUNK, **asked}))
    total = Mined()
    for number, start in enumerate(range(0, len(entries), CHUNK)):
        part = prefix.with_name(f"{prefix.name}-{number:05d}")
        note = part.with_name(f"{part.name}.json")
        if note.exists():
            held = json.loads(note.read_text())
            if held["asked"] != asked:
                raise ConfigError(f"{note}: was made with other numbers; give the same ones, seed, shards and ranks, or another out")  # fmt: skip
            total += Mined(**held["found"])
        else:
            for left in part.parent.glob(
                f"{part.name}-[0-9]*.tar"
            ):  # of a run that was stopped here
                left.unlink()
            found = work(entries[start : start + CHUNK], part, seed * 7919 + number)
            atomic_write(
                note, (json.dumps({"asked": asked, "found": asdict(found)}) + "\n").encode()
            )
            total += found
        watch(total)
    return total


def _mine_chunk(
    model: OmniModel, entries: Sequence[Entry], make: InContext, judge: Judge, config: MiningConfig, prefix: Path, *, seed: int
) -> Mined:  # fmt: skip
    """The preferences of some entries, into one shard."""
    tasks, passed_by = _tasks(entries, make, seed)
    found = Mined(passed_by=passed_by)
    generation = replace(
        model.config.generation, code_temperature=config.temperature, code_top_k=config.top_k,
        code_top_p=config.top_p, code_repetition_penalty=1.0,
    )  # fmt: skip
    tasks.sort(key=lambda task: len(task.text))  # rows that are said side by side end together
    pairs = []
    for start in range(0, len(tasks), config.rows):
        some = tasks[start : start + config.rows]
        options = Options(generation=generation, seed=seed * 131 + start)
        for task, said in zip(some, say(model, make, some, times=config.samples, options=options), strict=True):  # fmt: skip
            *heard, ideal = judge([*(one.codes for one in said), task.codes or []])
            reference = (len(task.codes), ideal) if task.codes else None
            scores = score(task.text, said, heard, config, reference=reference)
            chosen = best_and_worst(said, scores, config)
            errors = [one.error for one in scores]
            found += Mined(1, chosen is not None, 0, float(np.mean(errors)), min(errors))
            if chosen is not None:
                best, worst = ((said[n], scores[n]) for n in chosen)
                pairs.append((task, {**_noted("chosen", *best), **_noted("rejected", *worst)}))
    _write(prefix, pairs)
    return found


def _noted(which: str, said: Said, scored: Score) -> dict[str, Any]:
    """Fields of one of the two."""
    return {
        which: said.codes,
        f"{which}_complete": said.complete,
        f"{which}_error": round(scored.error, 4),
        f"{which}_heard": scored.heard,
    }


def _tasks(entries: Sequence[Entry], make: InContext, seed: int) -> tuple[list[Task], int]:
    """A task of each entry that can be used, and how many cannot."""
    tasks = []
    for number, entry in enumerate(entries):
        generator = torch.Generator().manual_seed(seed * 100_003 + number)
        try:
            task = make.task(parse(entry), generator, lead=False)
            make.kit.prompt(task)
            tasks.append(task)
        except InputError:
            continue
    return tasks, len(entries) - len(tasks)


def _write(prefix: Path, tasks: Sequence[tuple[Task, Mapping[str, Any]]]) -> None:
    """Shards PREFIX-00000.tar: what is asked, its media, and what was found of the answer."""
    with ShardWriter(prefix) as writer:
        for number, (task, found) in enumerate(tasks):
            record: dict[str, Any] = {"messages": task.messages, "text": task.text, **found}
            if task.voice:
                record["answer_voice"] = task.voice
            named = {p.get(p["type"]) for m in task.messages if not isinstance(m["content"], str) for p in m["content"]}  # fmt: skip
            media = {name: content for name, content in task.media.items() if name in named}
            content = json.dumps(record, ensure_ascii=False).encode()
            writer.write(f"{number:05d}", {"json": content, **media})
