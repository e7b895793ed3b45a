"""Figures: pairs, rates and waves -> pictures beside the table, each with a line of what it shows.

    draw_confusion(bench, "pictures_colour", [(expected, said), ...], title)      who is taken for whom
    draw_bars(bench, "questions", {"spoken": {"clock": Interval}}, title)         rates side by side, with intervals
    draw_spectrograms(bench, "speech", {"original": (pcm, rate), ...}, title)     mels one above another
    draw_waterfall(bench, "latency", {"input": 120.0, ...}, title)                waits in ms, each where the last one ends

OUT/figures holds NAME.png and NAME.txt. matplotlib is of the extra `eval`; without it nothing is drawn, and `watch` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from thinktalk.layers.mel import log_mel
from thinktalk.metrics.intervals import Interval

if TYPE_CHECKING:
    from thinktalk.eval.bench import Bench

__all__ = [
    "NOTHING",
    "confusion",
    "draw_bars",
    "draw_confusion",
    "draw_spectrograms",
    "draw_waterfall",
]

NOTHING = "(else)"
"""What was said when it was none of the words that decide, or several."""
MOST_WORDS = 40
MEL_RATE = 16_000
PIXELS_PER_INCH = 100


def confusion(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], np.ndarray]:
    """The words that were expected, and (expected, said) counts (N, N + 1); the last column is anything else."""
    words = sorted({expected for expected, _ in pairs}, key=lambda w: (len(w) if w.isdigit() else 0, w))  # fmt: skip
    place = {word: n for n, word in enumerate(words)}
    table = np.zeros((len(words), len(words) + 1), int)
    for (expected, said), count in Counter(pairs).items():
        table[place[expected], place.get(said, len(words))] += count
    return words, table


def draw_confusion(bench: Bench, name: str, pairs: Sequence[tuple[str, str]], title: str) -> Path | None:  # fmt: skip
    """Who is taken for whom; the place of the picture, or None where it cannot be drawn."""
    words, table = confusion(pairs)
    if not 1 < len(words) <= MOST_WORDS:
        return None
    right = sum(expected == said for expected, said in pairs)
    about = f"{title}: {right} of {len(pairs)} right. Rows: what it was; columns: what was said."
    return _draw(bench, name, about, partial(_confusion, words, table, title))


def _confusion(words: list[str], table: np.ndarray, title: str, plt: Any) -> Any:
    side = 2.2 + 0.26 * len(words)
    figure, axes = plt.subplots(figsize=(side + 0.4, side))
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(words) + 1), [*words, NOTHING], rotation=90)
    axes.set_yticks(range(len(words)), words)
    axes.set_title(title)
    for (row, column), count in np.ndenumerate(table):
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    return figure


def draw_bars(bench: Bench, name: str, ways: Mapping[str, Mapping[str, Interval]], title: str) -> Path | None:  # fmt: skip
    """Rates of the same things in several ways, side by side."""
    if not any(ways.values()):
        return None
    return _draw(bench, name, f"{title}; lines are 95 % intervals.", partial(_bars, ways, title))


def _bars(ways: Mapping[str, Mapping[str, Interval]], title: str, plt: Any) -> Any:
    names = sorted({name for rates in ways.values() for name in rates})
    figure, axes = plt.subplots(figsize=(2.0 + 0.7 * len(names), 3.6))
    width = 0.8 / len(ways)
    for n, (way, rates) in enumerate(ways.items()):
        own = [(names.index(name) + (n + 0.5) * width - 0.4, rate) for name, rate in rates.items()]
        values = [100 * rate.value for _, rate in own]
        below = [100 * (rate.value - rate.low) for _, rate in own]
        above = [100 * (rate.high - rate.value) for _, rate in own]
        axes.bar([x for x, _ in own], values, width, label=way, yerr=[below, above], error_kw={"lw": 1})  # fmt: skip
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_ylim(0, 100)
    axes.set_ylabel("right, %")
    axes.set_title(title)
    axes.legend()
    return figure


def draw_spectrograms(bench: Bench, name: str, waves: Mapping[str, tuple[np.ndarray, int]], title: str) -> Path | None:  # fmt: skip
    """Log-mels of waves (S,) at their rates, one above another on one scale of time."""
    sounding = {what: wave for what, wave in waves.items() if len(wave[0])}
    if not sounding:
        return None
    return _draw(bench, name, f"{title}: {', '.join(sounding)}.", partial(_spectrograms, sounding, title))  # fmt: skip


def _spectrograms(waves: Mapping[str, tuple[np.ndarray, int]], title: str, plt: Any) -> Any:
    import soxr

    longest = max(len(pcm) / rate for pcm, rate in waves.values())
    figure, rows = plt.subplots(len(waves), figsize=(9, 1.9 * len(waves)), sharex=True, squeeze=False)  # fmt: skip
    for (axes,), (what, (pcm, rate)) in zip(rows, waves.items(), strict=True):
        heard = soxr.resample(np.asarray(pcm, np.float32), rate, MEL_RATE)
        mel = log_mel(torch.from_numpy(np.ascontiguousarray(heard, np.float32))[None])[0].numpy()
        axes.imshow(mel, origin="lower", aspect="auto", extent=(0, len(pcm) / rate, 0, len(mel)), cmap="magma")  # fmt: skip
        axes.set_xlim(0, longest)
        axes.set_ylabel(what)
        axes.set_yticks([])
    rows[-1, 0].set_xlabel("seconds")
    rows[0, 0].set_title(title)
    return figure


def draw_waterfall(bench: Bench, name: str, parts: Mapping[str, float], title: str) -> Path | None:
    """Waits in milliseconds that follow one another."""
    if not parts:
        return None
    told = ", ".join(f"{what} {wait:.0f} ms" for what, wait in parts.items())
    return _draw(bench, name, f"{title}: {told}.", partial(_waterfall, parts, title))


def _waterfall(parts: Mapping[str, float], title: str, plt: Any) -> Any:
    figure, axes = plt.subplots(figsize=(9, 1.0 + 0.4 * len(parts)))
    waits = list(parts.values())
    starts = [sum(waits[:n]) for n in range(len(waits))]
    axes.barh(range(len(waits)), waits, left=starts, color="tab:blue")
    for n, (wait, start) in enumerate(zip(waits, starts, strict=True)):
        axes.text(start + wait, n, f" {wait:.0f}", va="center", fontsize=8)
    axes.set_yticks(range(len(waits)), list(parts))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * sum(waits))
    axes.set_xlabel("ms")
    axes.set_title(title)
    return figure


def _draw(bench: Bench, name: str, about: str, paint: Callable[[Any], Any]) -> Path | None:
    try:
        import matplotlib
    except ImportError:
        bench.watch(f"{name}: no picture, since matplotlib is missing; pip install 'thinktalk[eval]'")  # fmt: skip
        return None
    matplotlib.use("agg")
    from matplotlib import pyplot

    path = bench.out / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = paint(pyplot)
    # no date and no version inside: the same numbers give the same picture
    figure.savefig(path, dpi=PIXELS_PER_INCH, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
    path.with_suffix(".txt").write_text(about + "\n", encoding="utf-8")
    return path
