"""Mining: the Talker says the same thing several times, a judge listens, and the best and the worst become a preference.

    tasks --pipeline.embed, recite, talk (samples times)--> codes --judge--> words, pauses --score--> error of each
    the best against the worst, when they are far enough apart  -->  shards with `chosen` and `rejected`

Shards appear chunk by chunk with their numbers beside them; a search that was stopped goes on with the next chunk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
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

__all__ = ["Mined", "mine", "say", "write_pairs"]

CHUNK = 64  # prompts whose pairs are written together
LETTERS_PER_SECOND = 7.0  # half as fast as people speak: what takes longer does not stop any more
LEAST_SECONDS = 2.0


@dataclass
class Mined:
    """Numbers of a search."""

    tried: int = 0
    """Tasks."""
    pairs: int = 0
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
    """Write preferences of this rank's tasks into `directory`, pairs-RANK-CHUNK-00000.tar; those already there stay.

    Errors: ConfigError where the directory holds a search with other numbers.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    order = source.order(seed, 0, 0)[: config.prompts][rank::ranks]
    total = Mined()
    for number, start in enumerate(range(0, len(order), CHUNK)):
        note = directory / f"pairs-{rank}-{number:05d}.json"
        asked = {"seed": seed, "ranks": ranks, "samples": len(source), **asdict(config)}
        asked = json.loads(json.dumps(asked))
        if note.exists():
            held = json.loads(note.read_text())
            if held["asked"] != asked:
                raise ConfigError(f"{note}: was made with other numbers; give the same mining, seed, shards and ranks, or another out")  # fmt: skip
            found = Mined(**held["found"])
        else:
            entries = [source.entries[n] for n in order[start : start + CHUNK]]
            found = _mine_chunk(model, entries, make, judge, config, note, seed=seed + 7919 * number + rank)  # fmt: skip
            note.write_text(json.dumps({"asked": asked, "found": asdict(found)}) + "\n")
        total += found
        watch(total)
    return total


def _mine_chunk(
    model: OmniModel, entries: Sequence[Entry], make: InContext, judge: Judge, config: MiningConfig, note: Path, *, seed: int
) -> Mined:  # fmt: skip
    """The preferences of some entries, into the shard beside `note`."""
    for left in note.parent.glob(f"{note.stem}-[0-9]*.tar"):  # of a search that was stopped here
        left.unlink()
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
                pairs.append((task, *((said[n], scores[n]) for n in chosen)))
    write_pairs(note.with_suffix(""), pairs)
    return found


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


def write_pairs(
    prefix: Path, pairs: Sequence[tuple[Task, tuple[Said, Score], tuple[Said, Score]]]
) -> None:
    """Shards PREFIX-00000.tar of preferences; each has what is asked, its media and both ways to say the answer."""
    with ShardWriter(prefix) as writer:
        for number, (task, *both) in enumerate(pairs):
            record: dict[str, Any] = {"messages": task.messages, "text": task.text}
            if task.voice:
                record["answer_voice"] = task.voice
            for which, (said, scored) in zip(("chosen", "rejected"), both, strict=True):
                record |= {
                    which: said.codes,
                    f"{which}_complete": said.complete,
                    f"{which}_error": round(scored.error, 4),
                    f"{which}_heard": scored.heard,
                }
            named = {p.get(p["type"]) for m in task.messages if not isinstance(m["content"], str) for p in m["content"]}  # fmt: skip
            media = {name: content for name, content in task.media.items() if name in named}
            content = json.dumps(record, ensure_ascii=False).encode()
            writer.write(f"{number:05d}", {"json": content, **media})
