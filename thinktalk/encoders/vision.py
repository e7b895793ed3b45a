"""VisionEncoder: patches (N, 1176) of pictures and video frames -> tokens (N / 4, D), one per 2x2 patches.

    patches -> embed -> [window layers: 8x8 patches attend each other | full layers: a whole frame does] -> 2x2 merger

Frames (pairs of video frames are one temporal grid) never see each other, so a video streams exactly, and frames of all
pictures and videos run together: everything token-wise once, attention once for each size of window.

Letters: N patches, U = N / 4 merge units (2x2 patches, 4 consecutive tokens), G temporal grids, D width, K head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.config import VisionConfig
from thinktalk.encoders.windows import Grid, Layout, plan_windows
from thinktalk.layers.linear import Linear
from thinktalk.layers.mlp import SwiGLU
from thinktalk.layers.norm import RMSNorm
from thinktalk.layers.segments import SegmentAttention
from thinktalk.stream import Blocked

__all__ = ["Grid", "VisionEncoder", "VisionStream"]

PASS_PATCHES = 4096
"""Patches that run together at most (or one frame, if it is larger): bounds the activations, 112 MB in the widest place at
the official size."""


class VisionBlock(nn.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x)); attention inside each segment only."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.norm1 = RMSNorm(config.width)
        self.attn = SegmentAttention(config.width, config.num_heads, key_bias=True)
        self.norm2 = RMSNorm(config.width)
        self.mlp = SwiGLU(config.width, config.ffn_width, bias=True)

    def forward(self, x_ND: Tensor, layout: Layout) -> Tensor:
        """(N, D) -> (N, D)."""
        x_ND = x_ND + self.attn(self.norm1(x_ND), layout.runs, layout.rotary)
        return x_ND + self.mlp(self.norm2(x_ND))


class PatchMerger(nn.Module):
    """Each unit of 2x2 neighbouring patches becomes one token of the Thinker: (N, D) -> (U, out_width)."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.unit_width = config.width * config.merge**2
        self.norm = RMSNorm(config.width)
        self.up = Linear(self.unit_width, self.unit_width)
        self.down = Linear(self.unit_width, config.out_width)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.norm(x_ND).view(-1, self.unit_width))))


class VisionEncoder(nn.Module):
    """The vision tower."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        self.patch_embed = Linear(config.patch_values, config.width, bias=False)
        self.layers = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = PatchMerger(config)

    def encode(self, patches: Sequence[Tensor], grids: Sequence[Grid]) -> list[Tensor]:
        """Tokens (t * h * w / 4, D) of each picture or video from its patches (t * h * w, 1176), as if each were alone.

        Patches come in the processor's order: frame by frame, the four patches of a merge unit together.

        >>> [x.shape for x in encoder.encode([torch.zeros(64, 1176)], [(1, 8, 8)])]
        [torch.Size([16, 2048])]
        """
        for pixels, grid in zip(patches, grids, strict=True):
            self._check(pixels, grid)
        tokens: list[list[Tensor]] = [[] for _ in grids]
        for batch in _passes(grids):
            parts = []
            for i, first, count in batch:
                _, h, w = grids[i]
                parts.append(patches[i].narrow(0, first * h * w, count * h * w))
            outputs = self._run(
                parts[0] if len(parts) == 1 else torch.cat(parts),
                tuple((count, *grids[i][1:]) for i, _, count in batch),
            )
            for (i, _, _), output in zip(batch, outputs, strict=True):
                tokens[i].append(output)
        return [part[0] if len(part) == 1 else torch.cat(part) for part in tokens]

    forward = encode

    def _check(self, pixels: Tensor, grid: Grid) -> None:
        t, h, w = grid
        merge, shape = self.config.merge, (t * h * w, self.config.patch_values)
        assert min(grid) > 0, f"grid {grid} is empty"
        assert h % merge == w % merge == 0, (
            f"grid {grid} does not divide into {merge}x{merge} units"
        )
        assert pixels.shape == shape, (
            f"grid {grid} needs patches {shape}, got {tuple(pixels.shape)}"
        )

    def _run(self, patches: Tensor, clips: tuple[Grid, ...]) -> list[Tensor]:
        """Patches of several clips, one after another -> tokens of each."""
        config, norm = self.config, self.merger.norm.weight
        # one huge picture's plan is not worth keeping
        make_plan = plan_windows if len(patches) <= PASS_PATCHES else plan_windows.__wrapped__
        plan = make_plan(
            clips,
            merge=config.merge,
            window=config.window_units,
            head_dim=config.width // config.num_heads,
            device=norm.device,
            dtype=torch.promote_types(norm.dtype, torch.float32),
        )
        x_ND = self.patch_embed(patches.to(norm.device, norm.dtype))
        windowed = False  # patches come frame after frame
        for n, layer in enumerate(self.layers):
            if windowed != (n not in config.full_attention_layers):
                windowed = not windowed
                x_ND = plan.reorder(x_ND, windowed)
            x_ND = layer(x_ND, plan.windows if windowed else plan.frames)
        if windowed:
            x_ND = plan.reorder(x_ND, False)
        return list(self.merger(x_ND).split([t * h * w // config.merge**2 for t, h, w in clips]))


def _passes(grids: Sequence[Grid]) -> Iterator[list[tuple[int, int, int]]]:
    """What runs together: (picture, first frame, frames), at most PASS_PATCHES patches but at least a frame.

    Frames of one size stand together, so that a full layer is one attention call for each size.
    """
    batch: list[tuple[int, int, int]] = []
    room = PASS_PATCHES
    for i in sorted(range(len(grids)), key=lambda i: (grids[i][1] * grids[i][2], grids[i])):
        t, h, w = grids[i]
        first = 0
        while first < t:
            count = min(t - first, max(room // (h * w), 0 if batch else 1))
            if count <= 0:
                yield batch
                batch, room = [], PASS_PATCHES
                continue
            batch.append((i, first, count))
            first, room = first + count, room - count * h * w
    if batch:
        yield batch


# ------------------------------------------------------------------------------------------------------------- streams


class VisionStream(Blocked):
    """A video of h x w patches as a stream: (B, G, h * w, 1176) -> (B, G, h * w / 4, D), grid by grid."""

    block = 1

    def __init__(self, encoder: VisionEncoder, h: int, w: int):
        super().__init__()
        self.encoder, self.h, self.w = encoder, h, w

    def compute(self, x: Tensor) -> Tensor:
        """Any number of temporal grids at once: they do not see each other, nor do rows."""
        B, G, _, _ = x.shape
        (tokens,) = self.encoder.encode([x.flatten(0, 2)], [(B * G, self.h, self.w)])
        return tokens.view(B, G, -1, tokens.shape[1])

    def empty_input(self, batch: int, *, device=None, dtype=None) -> Tensor:
        values = self.encoder.config.patch_values
        return torch.empty(batch, 0, self.h * self.w, values, device=device, dtype=dtype)

    def empty_output(self, x: Tensor) -> Tensor:
        config = self.encoder.config
        tokens = self.h * self.w // config.merge**2
        return self.encoder.merger.norm.weight.new_empty(len(x), 0, tokens, config.out_width)
