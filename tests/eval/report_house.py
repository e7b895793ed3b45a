"""A report with everything in it, for tests: rows of all kinds, pictures, sounds, words that would like to be a script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from thinktalk.eval import report
from thinktalk.eval.rows import Row
from thinktalk.eval.worst import keep_sound, worst

__all__ = ["ATTACK", "TITLE", "make_report"]

ATTACK = '<script>document.title = "stolen"</script><img src=x onerror="document.title=1">'
TITLE = "WER of its speech: reading"
KEYS = [f"s{n}" for n in range(24)]


def make_report(folder: Path, *, errors: int = 12, model: str = "out/nano") -> Path:
    """FOLDER/nano.json with its pictures and sounds; each of the first `errors` items has one to `errors` words of 20 wrong."""
    seconds = np.arange(4_800) / 16_000
    results = []
    for n, key in enumerate(KEYS):
        wave = (0.3 * np.sin(2 * np.pi * (200 + 20 * n) * seconds)).astype(np.float32)
        said = ATTACK if n == 0 else f"heard {n}"
        results.append({"key": key, "text": f"sentence {n}", "said": said, "sound": keep_sound(folder, wave, 16_000)})  # fmt: skip
    tops = [float(max(0, errors - n)) for n in range(len(KEYS))]
    shown = worst(results, tops, [20.0] * len(KEYS), lower_is_better=True, perfect=0.0)
    speech = dict(bottoms=[20.0] * len(KEYS), keys=KEYS, worst=shown, lower_is_better=True, judge="whisper 1.1", tokens=900)  # fmt: skip
    right = [float(n % 4 > 0) for n in range(len(KEYS))]
    rows = [
        Row(key="read", title=TITLE, tops=tops, published=1.42, published_at="table 9", reach=("25 %", "8 %", "3 %"), **speech),
        Row(key="read/tiny", title="the same, by another judge", tops=tops, **speech),
        Row(key="questions", title=f"questions $x_ {ATTACK}$", tops=right, keys=KEYS, seconds=12.0),
        Row(key="questions~text only", title="questions, text only", tops=[0.0] * len(KEYS), keys=KEYS),
        Row(key="gone", title="a set that costs $1 or $2", missing="data/mmlu: is not there, expected parquet"),
    ]  # fmt: skip
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), "red").save(figures / "colours.png")
    (figures / "colours.txt").write_text("Colours: who is taken for whom.\n")
    report.save(folder / "nano.json", rows, {"model": model, "weights": "0123", "seed": "0"})
    return folder / "nano.json"
