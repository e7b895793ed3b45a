"""Texts: MMLU, GPQA, GSM8K, MATH, HumanEval and their like, by lm-evaluation-harness -> a row each, with intervals.

A data set is read from DIR as it was downloaded (DIR/openai/gsm8k), else the harness fetches it.
"""

from __future__ import annotations

import os
import time
from contextlib import chdir, nullcontext
from importlib.metadata import version
from pathlib import Path

from thinktalk.errors import InputError
from thinktalk.eval.bench import Bench
from thinktalk.eval.harness.lm_eval import model, run
from thinktalk.eval.harness.scoring import Scorer
from thinktalk.eval.harness.tasks import Task
from thinktalk.eval.public.harnessed import abilities, row_of
from thinktalk.eval.rows import Row

__all__ = ["ABILITIES", "measured"]


def measured(bench: Bench, key: str, task: Task, *, include: Path | None = None) -> Row:
    """The row of one benchmark; `include` is a folder of task definitions instead of the harness' own.

    Errors: ConfigError (the harness is not installed), InputError (no data, or code that may not be run).
    """
    if task.runs_code and os.environ.get("HF_ALLOW_CODE_EVAL") != "1":
        raise InputError(f"{key}: runs code that the model wrote, expected HF_ALLOW_CODE_EVAL=1; set it where that can do no harm")  # fmt: skip
    lm = model(model=bench.model, scorer=Scorer(bench.omni, batch_size=bench.batch))
    cache = (bench.out / "items" / f"lm_eval-{bench.sum}").resolve()
    cache.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    # the harness' library looks for a folder of the data set's name before it asks the hub
    with chdir(bench.data) if bench.data.is_dir() else nullcontext():
        results, _ = run(
            lm, task.task, metric=task.metric, chat=task.chat, shots=task.shots, cache=cache, seed=bench.seed,
            limit=bench.n if bench.n < 1 << 32 else None, include=include,
        )  # fmt: skip
    program = f"lm-evaluation-harness {version('lm_eval')}"
    return row_of(bench, key, task, results, program=program, seconds=time.perf_counter() - began)


ABILITIES = abilities(measured, lambda task: task.harness == "lm_eval")
