"""Loading a checkpoint, and int8 layers: thinktalk against transformers and against torch's bfloat16 products."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import Row, compare
from torch import nn
from transformers import Qwen2_5OmniForConditionalGeneration, logging

from thinktalk import config as cfg
from thinktalk.layers.quant import Int8Linear
from thinktalk.weights.hf import load
from thinktalk.weights.random import random_checkpoint

__all__ = ["rows"]


def rows(quick: bool = False) -> list[Row]:
    """Opening 42 million parameters, and the linear layers of one Thinker layer at 3B shapes."""
    repeats = 3 if quick else 7
    with tempfile.TemporaryDirectory() as folder:
        opening = _loading(Path(folder) / "nano", repeats)
    return [opening, *_int8(repeats, quick)]


def _touch(model: nn.Module) -> float:
    """Every page of every tensor is read, so that seeing a file does not count as loading it."""
    return sum(float(p.detach().view(-1)[::512].sum()) for p in model.parameters())


def _loading(directory: Path, repeats: int) -> Row:
    random_checkpoint(cfg.nano(), directory)
    logging.set_verbosity_error()  # it warns that nano's vocabularies are not the official ones

    def theirs() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _touch(
                Qwen2_5OmniForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
            )

    return compare(
        "load 42 M parameters (float32, every page read)",
        lambda: _touch(load(directory)), theirs, repeats=repeats, target=1.0,
    )  # fmt: skip


def _int8(repeats: int, quick: bool) -> list[Row]:
    """q, k, v, o, gate, up, down of the 3B Thinker, several layers so that the weights do not fit a cache."""
    text = cfg.omni_3b().thinker.text
    queries, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    shapes = [
        (queries, text.width), (keys, text.width), (keys, text.width), (text.width, queries),
        (text.ffn_width, text.width), (text.ffn_width, text.width), (text.width, text.ffn_width),
    ] * (1 if quick else 2)  # fmt: skip
    halves = [0.02 * torch.randn(shape).bfloat16() for shape in shapes]
    layers = []
    for weight in halves:
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        linear.weight = nn.Parameter(weight, requires_grad=False)
        layers.append(Int8Linear.from_linear(linear))
    out = []
    for name, tokens, target in (("1 token", 1, 2.2), ("8 rows", 8, 1.0), ("256 tokens", 256, 1.0)):
        inputs = {width: torch.randn(tokens, width).bfloat16() for width in {s[1] for s in shapes}}

        def ours(inputs=inputs) -> None:
            for layer in layers:
                layer(inputs[layer.in_features])

        def theirs(inputs=inputs) -> None:
            for weight in halves:
                F.linear(inputs[weight.shape[1]], weight)

        with torch.inference_mode():
            out.append(
                compare(
                    f"int8 against bfloat16, 3B layers, {name}",
                    ours,
                    theirs,
                    repeats=repeats,
                    target=target,
                )
            )
    return out
