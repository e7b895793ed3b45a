"""RMSNorm: hidden (..., D) -> hidden (..., D), the reference's rounding in every dtype."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["RMSNorm"]


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension  # Zhang & Sennrich 2019, eq. 4

    Statistics are float32 at least; in half precision the quotient is rounded before the weight, as the reference does.
    """

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.shape, self.eps = (width,), eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype.itemsize > 2:
            return torch.rms_norm(x, self.shape, self.weight, self.eps)
        return torch.rms_norm(x, self.shape, None, self.eps) * self.weight

    def extra_repr(self) -> str:
        return f"{self.shape[0]}, eps={self.eps}"
