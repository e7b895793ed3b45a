"""Scaled dot-product attention: q (..., T, K), k and v (..., S, K) -> (..., T, K), through torch's fused kernel.

While a CPU learns in bfloat16, in plain products: backwards and forwards together the fused kernel took 4 to 9 times as long
at the lengths of the encoders' and the flow's blocks, 1.9 times at 280 slots and 1.5 times at 600 (torch 2.13, freed memory
kept as training does, `python benchmarks/attention.py`).

Letters: B rows, H query heads, N key heads, T queries, S slots, K head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LONGEST", "dot_product_attention"]

LONGEST = 640
"""Slots up to which plain products are the faster way to learn."""


def dot_product_attention(
    q_BHTK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor, *, mask: Tensor | None = None, causal: bool = False
) -> Tensor:  # fmt: skip
    """(B, H, T, K); H may be a multiple of N. `mask` broadcasts to (B, H, T, S): True where a slot is seen, or numbers that are
    added to the scores; `causal` hides later slots instead."""
    if _learns_on_cpu(q_BHTK) and k_BNSK.shape[-2] <= LONGEST:
        return _plain(q_BHTK, k_BNSK, v_BNSK, mask, causal)
    return F.scaled_dot_product_attention(
        q_BHTK, k_BNSK, v_BNSK, attn_mask=mask, is_causal=causal,
        enable_gqa=q_BHTK.shape[1] != k_BNSK.shape[1],
    )  # fmt: skip


def _learns_on_cpu(q: Tensor) -> bool:
    """Whether a backward pass follows, in bfloat16 on a CPU."""
    if not (q.is_cpu and q.requires_grad and torch.is_grad_enabled()):
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return q.dtype == torch.bfloat16


def _plain(q_BHTK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor, mask: Tensor | None, causal: bool) -> Tensor:  # fmt: skip
    """The formula: products in bfloat16, the softmax in float32."""
    H, T = q_BHTK.shape[1:3]
    N, S = k_BNSK.shape[1:3]
    # queries that share a key head stand one after another: keys are never repeated
    q_BNXK = q_BHTK.bfloat16().reshape(-1, N, H // N * T, q_BHTK.shape[-1])
    scores_BNXS = q_BNXK @ k_BNSK.bfloat16().transpose(2, 3) * q_BHTK.shape[-1] ** -0.5
    scores_BHTS = scores_BNXS.view(-1, H, T, S)
    if causal:
        mask = torch.ones(T, S, dtype=torch.bool).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores_BHTS = scores_BHTS.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores_BHTS = scores_BHTS + mask
    weights_BHTS = scores_BHTS.softmax(-1, dtype=torch.float32).bfloat16()
    y_BNXK = weights_BHTS.view(-1, N, H // N * T, S) @ v_BNSK.bfloat16()
    return y_BNXK.view(q_BHTK.shape[:3] + v_BNSK.shape[3:])
