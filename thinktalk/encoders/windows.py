"""Windows: grids of patches -> the order in which vision tokens stand, who attends whom, and their rotary angles.

    frames' order     frame after frame, as patches come; a full layer attends each frame
    windows' order    window after window (4x4 merge units), windows of one size together; a window layer attends each window

A picture whose sides are no multiple of the window has narrower windows at its right and bottom edges: up to four sizes.

Letters: N patches, U = N / 4 merge units (2x2 patches, 4 consecutive tokens), K head width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from thinktalk.layers.segments import Rotary, Run

__all__ = ["Grid", "Layout", "Plan", "plan_windows"]

Grid = tuple[int, int, int]
"""(t, h, w): temporal grids, patches down, patches across."""

ROPE_THETA = 10_000.0
"""Base of the rotary frequencies of rows and columns."""


@dataclass(frozen=True)
class Layout:
    """One order of the tokens: which consecutive ones attend each other, and their rotary angles."""

    runs: tuple[Run, ...]
    rotary: Rotary


@dataclass(frozen=True)
class Plan:
    """Both orders, and the way between them."""

    frames: Layout
    windows: Layout
    # (U,) the unit of the frames' order that stands at each place of the windows' order, and its inverse;
    # None where both orders are the same
    to_windows: Tensor | None
    to_frames: Tensor | None

    def reorder(self, x_ND: Tensor, windowed: bool) -> Tensor:
        """Tokens of the frames' order in the windows' order, or back."""
        index = self.to_windows if windowed else self.to_frames
        return x_ND if index is None else _take_units(x_ND, index)


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)  # cached: a tensor born in inference mode can never be trained with
def plan_windows(
    clips: tuple[Grid, ...],
    *,
    merge: int,
    window: int,
    head_dim: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Plan:
    """The plan of clips that stand one after another.

    merge: patches a side of a unit; window: units a side of a window; dtype: of the angles. A few MB, made on the host.
    """
    total = sum(t * h * w for t, h, w in clips) // merge**2
    tiles = _tiles(clips, merge, window)
    to_windows = torch.cat([same.flatten() for same in tiles.values()])
    to_frames = torch.empty_like(to_windows)
    to_frames[to_windows] = torch.arange(total, device="cpu")
    moves = not torch.equal(to_windows, torch.arange(total, device="cpu"))

    by_size = groupby(((h * w, t) for t, h, w in clips), key=lambda frames: frames[0])
    frame_runs = tuple((sum(t for _, t in same), size) for size, same in by_size)
    window_runs = tuple((len(same), size * merge**2) for size, same in tiles.items())
    cos, sin = (angles.to(dtype) for angles in _rotary(clips, merge, head_dim))
    return Plan(
        frames=Layout(frame_runs, (cos.to(device), sin.to(device))),
        windows=Layout(
            window_runs,
            (_take_units(cos, to_windows).to(device), _take_units(sin, to_windows).to(device)),
        ),
        to_windows=to_windows.to(device) if moves else None,
        to_frames=to_frames.to(device) if moves else None,
    )


def _tiles(clips: Sequence[Grid], merge: int, window: int) -> dict[int, Tensor]:
    """Units a window -> the units of all windows of that size (windows, units), large windows first."""
    sizes: dict[int, list[Tensor]] = {}
    start = 0
    for t, h, w in clips:
        rows, columns = h // merge, w // merge
        end = start + t * rows * columns
        units = torch.arange(start, end, device="cpu").view(t, rows, columns)
        start = end
        for strip in _cut(units, 1, window):
            for part in _cut(strip, 2, window):
                tall, wide = min(window, part.shape[1]), min(window, part.shape[2])
                tiles = part.unflatten(2, (-1, wide)).unflatten(1, (-1, tall)).transpose(2, 3)
                sizes.setdefault(tall * wide, []).append(tiles.reshape(-1, tall * wide))
    return {size: torch.cat(same) for size, same in sorted(sizes.items(), reverse=True)}


def _cut(units: Tensor, dim: int, window: int) -> Iterator[Tensor]:
    """The part of whole windows along a side, then the narrower rest; either may be missing."""
    whole = units.shape[dim] // window * window
    if whole:
        yield units.narrow(dim, 0, whole)
    if rest := units.shape[dim] - whole:
        yield units.narrow(dim, whole, rest)


def _rotary(clips: Sequence[Grid], merge: int, head_dim: int) -> Rotary:
    """cos and signed sin (N, 1, K) in the frames' order: a quarter of the head turns with the row, a quarter with the
    column, and the other half is the partner of these."""
    half = head_dim // 2
    steps = torch.arange(0, half, 2, device="cpu", dtype=torch.float32)
    frequencies = 1.0 / ROPE_THETA ** (steps / half)
    cos, sin = [], []
    for t, h, w in clips:
        rows = torch.arange(h, device="cpu")[:, None].expand(h, w)
        columns = torch.arange(w, device="cpu").expand(h, w)
        places = torch.stack([rows, columns], -1)  # (h, w, 2) -> the patches of a unit together
        places = places.unflatten(1, (-1, merge)).unflatten(0, (-1, merge)).transpose(1, 2)
        angles = (places.reshape(h * w, 2, 1) * frequencies).flatten(1)
        cos.append(angles.cos().repeat(t, 2))
        sin.append(torch.cat([-angles.sin(), angles.sin()], 1).repeat(t, 1))
    return torch.cat(cos)[:, None], torch.cat(sin)[:, None]


def _take_units(x: Tensor, index: Tensor) -> Tensor:
    """Rows (N, ...) gathered unit by unit: index (U,) names groups of N / U consecutive rows."""
    units = x.view(len(index), len(x) // len(index), *x.shape[1:])
    return units.index_select(0, index).view(x.shape)
