"""Codes: recordings -> the codes a model's tokenizer makes of them, and how much of its book they use.

used = |{codes}| / book        perplexity = exp(-sum p log p), p the share of each code among all
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from thinktalk.eval.bench import Bench
from thinktalk.eval.items import Result
from thinktalk.eval.rows import Row
from thinktalk.metrics.intervals import Interval

__all__ = ["code_rows", "perplexity"]

DRAWS = 500


def perplexity(counts: np.ndarray) -> float:
    """exp of the entropy of counts (K,): as many codes, used alike, would be as hard to guess.

    >>> round(perplexity(np.array([5, 5, 5, 5])), 6)
    4.0
    """
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def code_rows(bench: Bench, results: Sequence[Result], *, first: int, book: int) -> Iterator[Row]:
    """Share of the book (codes `first` to `first + book`) in use, and perplexity; intervals by drawing recordings again."""
    made = [result for result in results if result.get("codes")]
    shared = dict(judge="exact", seed=bench.seed, faults=len(results) - len(made), keys=[r["key"] for r in made])  # fmt: skip
    titles = ("codes used, of the book", "perplexity of codes")
    if not made:
        yield Row(key="codes/used", title=titles[0], missing="no recording has codes")
        return
    table = np.stack([np.bincount(np.asarray(r["codes"]) - first, minlength=book) for r in made])
    note = f"{table.sum()} codes of {len(made)} recordings, a book of {book}"
    used = float((table.sum(0) > 0).mean())
    # fewer different recordings, fewer codes: drawing again can only lose some, so the number is its own upper end
    low = _redrawn(table, lambda counts: float((counts > 0).mean()), bench.seed)
    yield Row(key="codes/used", title=titles[0], interval=Interval(used, min(low[0], used), used, len(made)), reach=("80 %", "90 %", "95 %"), note=note, **shared)  # fmt: skip
    value = perplexity(table.sum(0))
    low, high = _redrawn(table, perplexity, bench.seed)
    # the same bias, taken back (the basic interval): draws of draws are to the draw as it is to the truth
    yield Row(key="codes/perplexity", title=titles[1], unit="", interval=Interval(value, min(value, 2 * value - high), max(value, 2 * value - low), len(made)), reach=("250", "350", "500"), note=note, **shared)  # fmt: skip


def _redrawn(
    table_NK: np.ndarray, of: Callable[[np.ndarray], float], seed: int
) -> tuple[float, float]:
    """2.5 and 97.5 % of a number of the counts (K,) when recordings are drawn again."""
    random = np.random.default_rng(seed)
    values = []
    for _ in range(DRAWS):
        picks = np.bincount(random.integers(len(table_NK), size=len(table_NK)), minlength=len(table_NK))  # fmt: skip
        values.append(of(picks @ table_NK))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
