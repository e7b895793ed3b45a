"""SwiGLU: hidden (..., D) -> inner (..., F) gated -> hidden (..., D)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.layers.direct import direct

__all__ = ["SwiGLU"]


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))  # Shazeer 2020, eq. 6"""

    def __init__(self, width: int, ffn_width: int, *, bias: bool = False):
        super().__init__()
        self.gate = nn.Linear(width, ffn_width, bias=bias)
        self.up = nn.Linear(width, ffn_width, bias=bias)
        self.down = nn.Linear(ffn_width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        parts = self._modules  # see direct.py
        gate, up = direct(parts["gate"], x), direct(parts["up"], x)
        if torch.is_grad_enabled():
            return direct(parts["down"], F.silu(gate) * up)
        # in place: the inner width is the largest activation of a prompt
        return direct(parts["down"], F.silu(gate, inplace=True).mul_(up))
