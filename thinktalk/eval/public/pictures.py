"""Pictures: MMMU, DocVQA, RefCOCO, Video-MME and their like, by lmms-eval -> a row each, with intervals.

lmms-eval wants an older PyAV than our constraints name (thinktalk runs with both), so it belongs into a .venv of its own.
Precision (mAP) has no number an item: there the items of a row are the sets that the benchmark is made of.
"""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version

from thinktalk.eval.bench import Bench
from thinktalk.eval.harness.lmms_eval import model, run
from thinktalk.eval.harness.scoring import Scorer
from thinktalk.eval.harness.tasks import Task
from thinktalk.eval.public.harnessed import abilities, row_of
from thinktalk.eval.rows import Row

__all__ = ["ABILITIES", "measured"]


def measured(bench: Bench, key: str, task: Task) -> Row:
    """The row of one benchmark. Errors: ConfigError (lmms-eval is not installed), InputError (no data, no number an item)."""
    lm = model(scorer=Scorer(bench.omni, batch_size=bench.batch))
    began = time.perf_counter()
    limit = bench.n if bench.n < 1 << 32 else None
    results = run(lm, task.task, metric=task.metric, limit=limit, seed=bench.seed)
    program, seconds = f"lmms-eval {_installed()}", time.perf_counter() - began
    return row_of(bench, key, task, results, program=program, seconds=seconds, failed=lm.failed)


def _installed() -> str:
    try:
        return version("lmms_eval")
    except PackageNotFoundError:
        return "from source"


ABILITIES = abilities(measured, lambda task: task.harness == "lmms_eval")
