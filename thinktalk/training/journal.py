"""The journal of a run: numbers of each step -> metrics.jsonl, TensorBoard, a plot (loss.png), a line for LOG.md, and
sounds and pictures of what has been learnt.

A run that goes on from step N forgets what it wrote after N: the file is always one curve.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from thinktalk.errors import ConfigError, ThinktalkError
from thinktalk.training.shown import Shown, Sound, save_shown

__all__ = ["Journal", "draw_losses", "read_journal", "summary"]


class Journal:
    """Writes DIRECTORY/metrics.jsonl, one JSON object a line, and DIRECTORY/tensorboard if asked."""

    def __init__(self, directory: str | Path, *, after: int = 0, tensorboard: bool = False):
        """Open it to go on after step `after`; lines of later steps and a torn last line are dropped."""
        self.path = Path(directory) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_journal(self.path) if line["step"] <= after]
        fresh = self.path.with_suffix(".partial")
        fresh.write_text("".join(_line(line) for line in kept))
        os.replace(fresh, self.path)
        self._board = _tensorboard(self.path.parent / "tensorboard", after) if tensorboard else None
        self._file = self.path.open("a")

    def write(self, step: int, numbers: Mapping[str, Any]) -> None:
        """One line; a number that is not finite is written as null."""
        self._file.write(_line({"step": step, **numbers}))
        self._file.flush()
        if self._board is not None:
            for name, value in numbers.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, step)

    def show(self, step: int, shown: Shown) -> None:
        """Sounds and pictures, as files in DIRECTORY/shown, and in TensorBoard if asked."""
        with contextlib.suppress(
            OSError, ThinktalkError
        ):  # a full disk must not end a run for a picture
            save_shown(self.path.parent / "shown", step, shown)
        for name, thing in shown.items() if self._board is not None else ():
            if isinstance(thing, Sound):
                self._board.add_audio(name, thing.pcm.detach().float().cpu(), step, sample_rate=thing.sample_rate)  # fmt: skip
            else:
                self._board.add_image(name, thing.pixels.detach().float().cpu(), step)

    def close(self) -> None:
        """Flush everything and draw the losses next to the journal."""
        self._file.close()
        if self._board is not None:
            self._board.close()
        draw_losses(self.path, self.path.with_name("loss.png"))


def _line(numbers: Mapping[str, Any]) -> str:
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}  # fmt: skip
    return json.dumps(clean) + "\n"


def _tensorboard(directory: Path, after: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "tensorboard: the package is not installed; pip install 'thinktalk[train]'"
        ) from None
    return SummaryWriter(str(directory), purge_step=after + 1)


def read_journal(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a journal; one that was torn by a crash is left out, a missing file has none."""
    lines = []
    try:
        text = Path(path).read_text(errors="replace")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


def summary(path: str | Path, name: str) -> str:
    """A row for LOG.md: name, steps, mean loss of the first and the last tenth, skipped steps, seconds."""
    lines = read_journal(path)
    losses = [line["loss"] for line in lines if line.get("loss") is not None]
    if not losses:
        return f"| {name} | 0 | - | - | 0 | 0 |"
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    end = lines[-1]
    return f"| {name} | {end['step']} | {first:.4f} | {last:.4f} | {end.get('skipped', 0)} | {end.get('seconds', 0):.0f} |"


def draw_losses(journal: str | Path, picture: str | Path, *, width: int = 800, height: int = 450):
    """Draw the loss over the steps: each step in grey, its running mean in blue. Nothing to draw draws nothing."""
    points = [
        (line["step"], line["loss"])
        for line in read_journal(journal)
        if line.get("loss") is not None
    ]
    if not points:
        return
    steps, losses = [p[0] for p in points], [p[1] for p in points]
    left, right, top, bottom = 64, width - 16, 16, height - 32
    low, high = min(losses), max(losses)
    span, reach = (high - low) or 1.0, (steps[-1] - steps[0]) or 1

    def place(step: int, loss: float) -> tuple[float, float]:
        x = left + (right - left) * (step - steps[0]) / reach
        return x, bottom - (bottom - top) * (loss - low) / span

    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    for share in (0, 0.25, 0.5, 0.75, 1):
        loss = low + span * share
        y = place(steps[0], loss)[1]
        pen.line([(left, y), (right, y)], fill="#dddddd")
        pen.text((4, y - 6), f"{loss:.4g}", fill="black")
        step = round(steps[0] + reach * share)
        pen.text((place(step, low)[0] - 12 - 12 * share, bottom + 8), str(step), fill="black")
    if len(points) > 1:
        pen.line([place(*point) for point in points], fill="#bbbbbb", width=1)
        smooth = zip(steps, _running_mean(losses), strict=True)
        pen.line([place(*point) for point in smooth], fill="#1f5fbf", width=2)
    fresh = Path(picture).with_suffix(".partial")
    image.save(fresh, format="PNG")
    os.replace(fresh, picture)


def _running_mean(values: Sequence[float]) -> list[float]:
    """Mean of the last twentieth of the curve at each place."""
    size = max(1, len(values) // 20)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [(sums[i] - sums[max(0, i - size)]) / min(i, size) for i in range(1, len(sums))]
