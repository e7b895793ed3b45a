"""Line charts as SVG for the pages of the documentation; the same figures give the same file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["line_chart"]


def line_chart(
    path: str | Path,
    *,
    title: str,
    x_label: str,
    y_label: str,
    ticks: Sequence[str],
    series: Mapping[str, Sequence[float]],
) -> None:
    """Write lines over named ticks, y logarithmic; every series has a positive value for each tick."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "thinktalk"  # else names inside of the file are drawn
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4), layout="constrained")
    for name, values in series.items():
        axes.plot(ticks, values, marker="o", markersize=4, label=name)
    axes.set(title=title, xlabel=x_label, ylabel=y_label, yscale="log")
    axes.grid(axis="y", alpha=0.4)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
