"""What a stage shows of what it has learnt: sounds and pictures by name -> OUT/shown/NAME-STEP.wav|png, and TensorBoard.

Stage.show(batch) -> {"spoken": Sound(pcm, 24000), "mel": spectrogram(mel)}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from thinktalk.media.audio import write_wav

__all__ = ["Picture", "Shown", "Sound", "save_shown", "spectrogram"]


@dataclass(frozen=True)
class Sound:
    """Something to listen to."""

    pcm: Tensor
    """(samples,) in -1..1."""
    sample_rate: int
    """Samples a second."""


@dataclass(frozen=True)
class Picture:
    """Something to look at."""

    pixels: Tensor
    """(3, H, W) in 0..1."""


Shown = Mapping[str, Sound | Picture]

# dark violet, blue, green, yellow: equal steps look equally far apart (viridis)
COLOURS = ((0.27, 0.0, 0.33), (0.23, 0.32, 0.55), (0.13, 0.57, 0.55), (0.37, 0.79, 0.38), (0.99, 0.91, 0.14))  # fmt: skip


def spectrogram(*mels: Tensor, scale: int = 2) -> Picture:
    """Mels (bands, frames), one above the other in one scale of colours, low notes at the bottom; `scale` pixels a value.

    >>> spectrogram(torch.randn(80, 50), torch.randn(80, 40)).pixels.shape
    torch.Size([3, 324, 100])
    """
    values = [mel.detach().float().cpu() for mel in mels]
    low = min(float(v.min()) for v in values)
    span = max(float(v.max()) for v in values) - low or 1.0
    width = max(v.shape[1] for v in values)
    rows = []
    for number, value in enumerate(values):
        place = (value.flip(0) - low) / span * (len(COLOURS) - 1)
        below = place.floor().clamp(0, len(COLOURS) - 2).long()
        table, share = torch.tensor(COLOURS), (place - below)[..., None]
        drawn_HW3 = table[below] * (1 - share) + table[below + 1] * share
        whole = torch.ones(len(value) + 2 * (number > 0), width, 3)  # two white lines between them
        whole[2 * (number > 0) :, : value.shape[1]] = drawn_HW3
        rows.append(whole)
    pixels = torch.cat(rows).permute(2, 0, 1)
    return Picture(pixels.repeat_interleave(scale, 1).repeat_interleave(scale, 2))


def save_shown(directory: str | Path, step: int, shown: Shown) -> list[Path]:
    """Write each as NAME-STEP.wav or .png into a directory that is made if need be; gives the paths."""
    directory, paths = Path(directory), []
    if shown:
        directory.mkdir(parents=True, exist_ok=True)
    for name, thing in shown.items():
        path = directory / f"{name}-{step:08d}"
        if isinstance(thing, Sound):
            path = path.with_suffix(".wav")
            pcm = thing.pcm.detach().float().cpu().flatten()
            write_wav(path, pcm.nan_to_num().clamp(-1, 1), thing.sample_rate)
        else:
            path = path.with_suffix(".png")
            bytes_HW3 = (thing.pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()  # fmt: skip
            Image.fromarray(bytes_HW3.cpu().numpy()).save(path)
        paths.append(path)
    return paths
