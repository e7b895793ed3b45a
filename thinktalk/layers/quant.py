"""Int8 linear layers: x (..., K) -> (..., N) through int8 weights, one scale an output channel and one an input row.

    y[m, n] = s_x[m] s_w[n] sum_k q_x[m, k] q_w[n, k] + b[n],   s_x[m] = max_k |x[m, k]| / 127,   s_w[n] = max_k |w[n, k]| / 127

Each row of x has its own scale, so a row's result does not depend on the rows it is batched with (streaming and batching
stay exact), and one loud token does not spoil a prompt. On the CPU PyTorch's own int8 kernel does the sum over packed
weights; elsewhere the weights are expanded for the product.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Int8Linear", "dequantize", "quantize", "quantize_", "relative_error"]


_PIECE = 1 << 18  # values worked on at once


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 (N, K), float32 scale (N,)) of a weight (N, K), round to nearest, symmetric, one scale an output channel.

    Float copies are made of a few rows at a time: a head of 150,000 rows would take gigabytes.
    """
    rows, width = weight.shape
    quantized = torch.empty(rows, width, dtype=torch.int8, device=weight.device)
    scale = torch.empty(rows, dtype=torch.float32, device=weight.device)
    step = max(1, _PIECE // max(1, width))
    for start in range(0, rows, step):
        piece = weight.detach()[start : start + step].float()
        loudest = piece.abs().amax(dim=1).div_(127.0)
        scale[start : start + step] = loudest
        # a channel of zeros has scale zero; dividing by one keeps its zeros
        loudest[loudest == 0] = 1.0
        quantized[start : start + step] = piece.div(loudest[:, None]).round_().clamp_(-127, 127)
    return quantized, scale


def dequantize(weight: Tensor, scale: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The float weight (N, K) that int8 weight and scale stand for."""
    return (weight.float() * scale.float()[:, None]).to(dtype)


def relative_error(weight: Tensor, quantized: Tensor, scale: Tensor) -> float:
    """|w - w'| / |w| (Frobenius) of a weight and its int8 form."""
    step = max(1, _PIECE // max(1, weight.shape[1]))
    error = norm = 0.0
    for whole, part, scales in zip(
        weight.detach().split(step), quantized.split(step), scale.split(step), strict=True
    ):
        whole = whole.float()
        norm += whole.square().sum().item()
        error += (whole - dequantize(part, scales)).square().sum().item()
    return (error / norm) ** 0.5 if norm else 0.0


def _kernel_step() -> float | None:
    """The activation step the CPU kernel may use, or None where there is no such kernel.

    Processors without VNNI add pairs of products in 16 bits, which 8-bit activations overflow; 7 bits never do.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return None
    vnni: Callable[[], bool] = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    return 1 / 127 if vnni() else 1 / 63


class Int8Linear(nn.Module):
    """A linear layer whose weight is int8; inputs and outputs are of any float dtype.

    On the CPU `pack()` moves the weight into the kernel's layout; `weight` is then None and unpacked again for saving.
    State dict: `weight` int8 (N, K), `scale` float32 (N,), `bias` (N,).
    """

    weight: Tensor | None  # (N, K) int8; None while packed
    scale: Tensor  # (N,) float32

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer(
            "weight", torch.zeros(out_features, in_features, dtype=torch.int8, device=device)
        )
        self.register_buffer("scale", torch.ones(out_features, dtype=torch.float32, device=device))
        self.bias = (
            nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype), False)
            if bias
            else None
        )
        self.packed: Any = None
        self.step = 0.0

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, release: bool = False) -> Int8Linear:
        """The int8 form of a linear layer; packed when it is on the CPU. `release` empties `linear` on the way."""
        made = cls(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        made.weight, made.scale = quantize(linear.weight)
        made.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), False)
        made.train(linear.training)
        if release:
            linear.weight = nn.Parameter(linear.weight.detach().to("meta"), False)
        return made.pack()

    def pack(self) -> Int8Linear:
        """Move the weight into the CPU kernel's layout, where there is such a kernel."""
        step = _kernel_step()
        if self.weight is None or self.weight.device.type != "cpu" or step is None:
            return self
        engine = torch.backends.quantized.engine
        plain, self.weight = self.weight.contiguous(), None
        zeros = torch.zeros(self.out_features, dtype=torch.int64)
        # the kernel wants positive scales: channels of zeros take one, their weights stay zero
        scale = torch.where(self.scale > 0, self.scale, torch.ones_like(self.scale)).double()
        try:
            with (
                warnings.catch_warnings()
            ):  # a quantised tensor is only the envelope in which the kernel takes its weight
                warnings.simplefilter("ignore")
                envelope = torch._make_per_channel_quantized_tensor(plain, scale, zeros, 0)
            del plain  # the envelope is a copy, the packed weight another: two at a time are enough
            torch.backends.quantized.engine = "fbgemm"
            self.packed, self.step = torch.ops.quantized.linear_prepack(envelope, None), step
        finally:
            torch.backends.quantized.engine = engine
        return self

    def unpack(self) -> Int8Linear:
        """Back to the plain int8 weight."""
        if self.packed is not None:
            self.weight, self.packed = self.plain_weight(), None
        return self

    def plain_weight(self) -> Tensor:
        """The int8 weight (N, K), packed or not."""
        if self.packed is None:
            assert self.weight is not None
            return self.weight
        return torch.ops.quantized.linear_unpack(self.packed)[0].int_repr()

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The float weight (N, K)."""
        return dequantize(self.plain_weight(), self.scale, dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is None:
            assert self.weight is not None
            y = F.linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype)
            return y if self.bias is None else y + self.bias
        rows = x if x.dtype == torch.float32 else x.float()
        loudest = (
            rows.abs().amax(-1, keepdim=True).clamp_(min=1e-30)
        )  # (..., 1); silence stays silence
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / loudest, self.step, 128 if self.step == 1 / 127 else 64, self.packed
        )
        y = y.mul_(loudest)
        return y.to(x.dtype) if self.bias is None else y.add_(self.bias).to(x.dtype)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.packed is not None:
            destination[prefix + "weight"] = self.plain_weight()

    def _load_from_state_dict(self, *args, **kwargs):
        self.unpack()
        super()._load_from_state_dict(*args, **kwargs)
        if self.scale.device.type == "cpu":
            self.pack()

    def _apply(self, fn, recurse=True):
        """`.to()`: the weight stays int8 and the scale float32, whatever dtype the rest takes."""
        self.unpack()
        scale = self.scale
        super()._apply(fn, recurse)
        if self.scale.dtype != torch.float32:
            self.scale = scale.to(self.scale.device)
        return self.pack()

    def __deepcopy__(self, memo):
        made = Int8Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        made.weight, made.scale = self.plain_weight().clone(), self.scale.clone()
        made.bias = None if self.bias is None else nn.Parameter(self.bias.detach().clone(), False)
        made.train(self.training)
        return made if self.packed is None else made.pack()

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def quantize_(module: nn.Module, *, min_features: int = 0) -> dict[str, float]:
    """Swap every nn.Linear inside `module` for an Int8Linear in place, freeing the float weights one by one.

    Returns {name: relative error of the weight}. Layers narrower than `min_features` on either side are left.
    """
    errors = {}
    for name, child in list(module.named_modules()):
        for leaf, linear in list(child.named_children()):
            if (
                isinstance(linear, nn.Linear)
                and min(linear.in_features, linear.out_features) >= min_features
            ):
                made = Int8Linear.from_linear(linear)
                errors[f"{name}.{leaf}".lstrip(".")] = relative_error(
                    linear.weight, made.plain_weight(), made.scale
                )
                setattr(child, leaf, made)
                del linear
    return errors
