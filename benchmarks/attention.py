"""Attention while a CPU learns: torch's fused kernel against plain products, forwards and backwards, bfloat16 and one thread.

    python benchmarks/attention.py [--quick]

Why layers/dot_product.py takes plain products up to LONGEST slots. One JSON line, then a table; ratios are medians of
process time, taken in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

from thinktalk.layers.dot_product import _plain
from thinktalk.training.freed import keep_freed_memory

SHAPES = {"audio blocks": (15, 4, 100, 100, 64), "flow blocks": (90, 4, 12, 36, 64), "sentences": (14, 5, 280, 280, 64), "long": (3, 5, 600, 600, 64)}  # fmt: skip


def seconds(attend, shape: tuple[int, ...], causal: bool) -> float:
    """Process time of one pass forwards and backwards."""
    B, H, T, S, K = shape
    q, k, v = (torch.randn(B, H, n, K, dtype=torch.bfloat16, requires_grad=True) for n in (T, S, S))
    began = time.process_time()
    y = attend(q, k, v, causal)
    y.backward(torch.ones_like(y))
    return time.process_time() - began


def kernel(q, k, v, causal):
    """torch's own."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def plain(q, k, v, causal):
    """Ours."""
    return _plain(q, k, v, None, causal)


def main() -> None:
    """Print the line and the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="three turns instead of fifteen")
    turns = 3 if parser.parse_args().quick else 15
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = {}
    for name, shape in SHAPES.items():
        causal = shape[2] == shape[3]
        pairs = [(seconds(kernel, shape, causal), seconds(plain, shape, causal)) for _ in range(turns + 1)][1:]  # fmt: skip
        theirs, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        rows[name] = {"kernel_ms": 1000 * theirs, "plain_ms": 1000 * ours, "ratio": ratio}
    print(json.dumps({"benchmark": "attention", "torch": torch.__version__, "turns": turns, **rows}))  # fmt: skip
    print(
        "\n| rows, heads, queries, slots, width | kernel ms | plain ms | ratio |\n|---|---|---|---|"
    )
    for name, row in rows.items():
        print(f"| {name} {SHAPES[name]} | {row['kernel_ms']:.2f} | {row['plain_ms']:.2f} | {row['ratio']:.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
