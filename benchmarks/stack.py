"""MFU of layers of the 7B Thinker at 8192 packed tokens on a GPU, forward and backward: python benchmarks/stack.py

    six documents in a row of 8192 --embeddings--> packed_hidden, layers of 7B shapes, bf16 --> sum -> backward

Products are counted by hand as papers do (Chowdhery 2022, appendix B): 6 a parameter and token, and attention's over what
each document sees; blocks computed again are not counted, though done. The aim is 45 % of the fastest bf16 product.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from thinktalk.config import DecoderConfig, omni_7b, tiny
from thinktalk.data.packing import packed_hidden
from thinktalk.layers.decoder import Decoder
from thinktalk.layers.spans import Spans
from thinktalk.messages import Embedded
from thinktalk.training.parallel import compile_blocks, recompute_blocks

__all__ = ["main", "model_flops"]

DOCUMENTS = (0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125)  # shares of the row


def main(argv: Sequence[str] | None = None) -> int:
    """Measure with and without blocks computed again and compiled."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--compile", default="", metavar="BACKEND", help="inductor")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="a small stack: does it run at all?")
    args = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not args.tiny:
        print("stack: torch sees no GPU, expected one; --tiny runs a small stack on the CPU", file=sys.stderr)  # fmt: skip
        return 1
    shape = tiny().thinker.text if args.tiny else omni_7b().thinker.text
    config = replace(shape, num_layers=args.layers)
    lengths = [int(args.tokens * share) for share in DOCUMENTS]
    decoder = Decoder(config).to(device, torch.bfloat16)
    if args.recompute:
        recompute_blocks(decoder.layers)
    if args.compile:
        compile_blocks(decoder.layers, args.compile)
    segments = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths, 1)])[None]
    places = torch.cat([torch.arange(n) for n in lengths]).expand(1, 3, -1).to(device)
    spans = Spans.of(segments).to(device)
    embeds = torch.randn(1, sum(lengths), config.width, device=device, dtype=torch.bfloat16)

    def step() -> Tensor:
        hidden = packed_hidden(decoder, Embedded(embeds, places), spans)
        hidden.float().square().mean().backward()
        return hidden

    seconds = timed(step, device)
    limit = fastest_product(device)
    flops = model_flops(config, lengths)
    told = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "torch": torch.__version__,
        "layers": args.layers, "tokens": sum(lengths), "recompute": args.recompute, "compile": args.compile,
        "ms": seconds * 1e3, "tokens_per_s": sum(lengths) / seconds, "tflops": flops / seconds / 1e12,
        "limit_tflops": limit / 1e12, "mfu": flops / seconds / limit,
    }  # fmt: skip
    print(json.dumps(told))
    return 0


def model_flops(config: DecoderConfig, lengths: Sequence[int]) -> float:
    """Forward and backward of the layers: 6 a matrix parameter and token, 6 x 2 x heads x head width a causal pair."""
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    matrices = 2 * config.width * (queries + keys) + 3 * config.width * config.ffn_width
    pairs = sum(n * (n + 1) / 2 for n in lengths)
    return config.num_layers * (6 * matrices * sum(lengths) + 12 * queries * pairs)


def timed(step: Callable[[], object], device: torch.device, *, repeats: int = 8) -> float:
    """Seconds of the fastest of some, after three to warm up."""
    best = float("inf")
    for number in range(3 + repeats):
        began = now(device)
        step()
        if number >= 3:
            best = min(best, now(device) - began)
    return best


def now(device: torch.device) -> float:
    """The clock, once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def fastest_product(device: torch.device) -> float:
    """FLOP/s of a large bf16 product."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / timed(lambda: a @ b, device)


if __name__ == "__main__":
    sys.exit(main())
