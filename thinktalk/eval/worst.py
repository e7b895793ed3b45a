"""Worst: the results of a row -> the ten items that went worst, with what was said and where it can be heard.

    results, tops, bottoms --worst--> [{"key", "score", ...}]       pcm (S,) --keep_sound--> OUT/sounds/<of its samples>.ogg

A mean hides what a model does wrong; ten examples show it. Sounds are kept once, whatever rows they are in.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

__all__ = ["MOST", "keep_sound", "worst"]

MOST = 10
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
OTHER_RATE = 24_000


def worst(
    results: Sequence[Mapping[str, Any]],
    tops: Sequence[float],
    bottoms: Sequence[float] | None = None,
    *,
    lower_is_better: bool = False,
    perfect: float | None = None,
    most: int = MOST,
) -> list[dict[str, Any]]:
    """At most `most` results, the worst first, each with its "score"; those that are `perfect` are left out.

    tops, bottoms: as a Row has them: the score is their quotient. Equal ones stay in their order.
    """
    scores = [float(t) for t in tops]
    if bottoms is not None:
        scores = [top / max(bottom, 1.0) for top, bottom in zip(scores, bottoms, strict=True)]
    sign = -1.0 if lower_is_better else 1.0
    order = sorted(range(len(scores)), key=lambda n: sign * scores[n])
    chosen = [n for n in order if scores[n] != perfect][:most]
    return [{**_short(results[n]), "score": round(scores[n], 4)} for n in chosen]


def _short(result: Mapping[str, Any]) -> dict[str, Any]:
    """Words and numbers; a row of codes says nothing to a reader."""
    return {key: value for key, value in result.items() if isinstance(value, str | int | float)}


def keep_sound(out: Path, pcm: np.ndarray, rate: int) -> str:
    """Write a wave (S,) as Opus below OUT; its name beside the report, "" where there is no sound."""
    if not len(pcm):
        return ""
    pcm = np.ascontiguousarray(np.clip(pcm, -1, 1), np.float32)
    name = f"sounds/{hashlib.sha256(pcm.tobytes()).hexdigest()[:20]}.ogg"
    path = out / name
    if path.exists():
        return name
    if rate not in OPUS_RATES:
        pcm, rate = soxr.resample(pcm, rate, OTHER_RATE), OTHER_RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.{os.getpid()}")
    soundfile.write(half, pcm, rate, format="OGG", subtype="OPUS")
    half.replace(path)
    return name
