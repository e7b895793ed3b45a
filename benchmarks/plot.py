"""Line charts as SVG, without a plotting library: what a page of the documentation needs and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

__all__ = ["line_chart"]

WIDTH, HEIGHT = 720, 400  # pixels of the whole picture
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 50  # margins around the axes
COLOURS = ("#c1121f", "#e09f3e", "#2a9d8f", "#264653", "#6a4c93", "#8d99ae")


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
    values = [y for ys in series.values() for y in ys]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def at(i: int, y: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * i / max(1, len(ticks) - 1)
        share = (math.log10(y) - low) / (high - low)
        return round(x, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>',
    ]
    for power in range(low, high + 1):
        x, y = at(0, 10.0**power)
        out.append(f'<path d="M{x} {y}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">1e{power}</text>')
    for i, tick in enumerate(ticks):
        x, y = at(i, 10.0**low)
        out.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{escape(tick)}</text>')
    for n, (name, ys) in enumerate(series.items()):
        colour = COLOURS[n % len(COLOURS)]
        points = [at(i, y) for i, y in enumerate(ys)]
        line = " ".join(f"{x},{y}" for x, y in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in points]
        y = TOP + 16 + 20 * n
        out.append(f'<path d="M{WIDTH - RIGHT + 14} {y - 4}h20" stroke="{colour}" stroke-width="2"/>')  # fmt: skip
        out.append(f'<text x="{WIDTH - RIGHT + 40}" y="{y}">{escape(name)}</text>')
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("\n".join([*out, "</svg>"]) + "\n", encoding="utf-8")
