"""Live: one listener on two cores: how long until the first sound, how fast the rest comes, how much memory it takes.

A process of its own loads the model, hears a spoken question of about three seconds and streams answers, turn after turn: what is
measured is what a user of `thinktalk chat` waits for, not an evaluation with its judges in memory. Wall time on a busy
machine tells of the machine; how busy it was stands in the note.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import numpy as np

from thinktalk.errors import InputError
from thinktalk.eval.bench import Bench
from thinktalk.eval.figures import draw_waterfall
from thinktalk.eval.items import Item
from thinktalk.eval.rows import Row
from thinktalk.metrics.intervals import Interval

__all__ = ["ABILITIES", "live", "measured"]

CORES = 2
TURNS = 20
HEARD_HZ, SECONDS = 16_000, 3.0
"""What is heard: a question of about so long."""
ANSWER_SECONDS = 5.0
ROWS = {
    "real_time_factor": ("live: real-time factor, streamed, two cores", "", "0.60"),
    "first_sound_ms": ("live: first sound after the end of a 3 s question", "ms", "600"),
}
PARTS = {"input_ms": "question read", "text_to_code_ms": "first text to first code", "code_to_sound_ms": "first codes to sound"}  # fmt: skip


def live(bench: Bench) -> Iterator[Row]:
    """Turns of one listener; each turn is an item, so that the interval is over turns."""
    sound = _question(bench)

    def work(item: Item) -> dict[str, Any]:
        # spawned: a fork would begin with this process' memory
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            try:
                return pool.submit(partial(measured, str(bench.omni.directory), bench.dtype, sound, item.content, bench.seed)).result()  # fmt: skip
            except BrokenProcessPool:
                raise InputError("live: the process that answered was ended, expected room for the model; free memory") from None  # fmt: skip

    turns = min(bench.n, TURNS)
    (told,) = bench.results("live", [Item(f"{turns} turns", turns)], work, judge="clock", cores=CORES)  # fmt: skip
    shared = dict(judge="clock", seed=bench.seed, seconds=told["seconds"], lower_is_better=True)
    for name, (title, unit, aim) in ROWS.items():
        values = told.get(name, ())
        if not values:
            yield Row(key=f"live/{name}", title=title, unit=unit, reach=("", "", aim), missing=told.get("fault", "no answer had sound"))  # fmt: skip
            continue
        note = f"median {np.median(values):.2f}, worst {max(values):.2f}; load average before it {told['busy']:.1f}"  # fmt: skip
        yield Row(key=f"live/{name}", title=title, unit=unit, reach=("", "", aim), tops=values, note=note, **shared)  # fmt: skip
    draw_waterfall(bench, "latency", told.get("parts", {}), "Where a listener's wait goes, medians")  # fmt: skip
    memory = dict(key="live/memory", title="live: most memory at once, model and answers", unit="MB", reach=("", "", "700"))  # fmt: skip
    if "peak_mb" in told:
        peak = told["peak_mb"]
        yield Row(**memory, interval=Interval(peak, peak, peak, 1), **shared)
    else:
        yield Row(**memory, missing=told["fault"])


def _question(bench: Bench) -> np.ndarray:
    """The spoken question that is nearest to three seconds; something like speech where there is none."""
    from thinktalk.engine.measure import babble

    try:
        spoken = [s.pcm(HEARD_HZ) for s in bench.held.dialogues()[: bench.n] if len(s.messages) == 2]  # fmt: skip
    except InputError:
        spoken = []
    return min(spoken, key=lambda pcm: abs(len(pcm) / HEARD_HZ - SECONDS), default=babble(SECONDS))


def measured(directory: str, dtype: str | None, sound: np.ndarray, turns: int, seed: int) -> dict[str, Any]:  # fmt: skip
    """What a fresh process of two threads finds: a list of each figure, a value a turn, and its peak memory."""
    import torch

    from thinktalk import omni as face
    from thinktalk.engine import Engine
    from thinktalk.engine.measure import Question, latency, peak_mb

    torch.set_num_threads(CORES)
    busy = max(0.0, os.getloadavg()[0])
    model = face.load(directory, dtype=dtype)
    question = Question(text="", sound=sound, seconds=ANSWER_SECONDS, seed=seed)
    waits = latency(Engine(model.model, model.tokenizer), question, turns=turns)
    told: dict[str, Any] = {"peak_mb": round(peak_mb(), 1), "busy": busy}
    for name in ROWS:
        values = [getattr(turn, name) for turn in waits.turns]
        told[name] = [round(value, 4) for value in values if value is not None]
    medians = {what: waits.of(part) for part, what in PARTS.items()}
    if None not in medians.values():
        told["parts"] = {what: round(value or 0.0, 1) for what, value in medians.items()}
    return told


ABILITIES = {"live": live}
