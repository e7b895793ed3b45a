"""Balance: a Thinker whose embeddings are larger and whose hidden states are smaller, and which computes what it did.

The Talker hears e + h, the embedding of a token and its hidden state. Of a small Thinker trained from nothing e is a seventeenth
of h (nano: 0.08 against 1.36), and the Talker cannot tell which token it is to say. Everything before the final norm may be
scaled: norms take it out again. So

    embeddings, features of the senses, what each layer adds    x factor
    the final norm (and so h; tied logits, h e, stay)            / factor
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from thinktalk.errors import ConfigError
from thinktalk.weights import hf
from thinktalk.weights.model import OmniModel
from thinktalk.weights.update import update_checkpoint

__all__ = ["balance", "balanced", "loudness"]


def balanced(
    source: str | Path, directory: str | Path, factor: float, *, overwrite: bool = False
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Write `directory`: `source`, balanced. Gives the loudness before and after. Errors: as `balance`."""
    model = hf.load(source, parts=("thinker",), dtype={"thinker": "float32"})
    before = loudness(model)
    stages = balance(model, factor).stages()
    update_checkpoint(source, directory, stages, overwrite=overwrite)
    return before, loudness(model)


@torch.no_grad()
def loudness(model: OmniModel) -> tuple[float, float]:
    """How large an embedding and a hidden state are (root mean square); of the state what the final norm makes it."""
    assert model.thinker is not None
    e, h = model.thinker.embed.weight.float(), model.thinker.norm.weight.float()
    return float(e.square().mean().sqrt()), float(h.square().mean().sqrt())


@torch.no_grad()
def balance(model: OmniModel, factor: float) -> OmniModel:
    """Scale in place. Errors: ConfigError (no Thinker, or one in int8; a factor that is not above 0)."""
    if not 0 < factor < float("inf"):
        raise ConfigError(f"balance: {factor}, expected a number above 0")
    if model.thinker is None:
        raise ConfigError("balance: the model has no Thinker, expected one; keep that part")
    larger = list(_larger(model))
    smaller = [model.thinker.norm.weight]
    head = model.thinker.lm_head
    if head is not None:  # it reads h alone
        larger.append(head.weight)
    if any(not t.is_floating_point() for t in (*larger, *smaller)):
        raise ConfigError("balance: the Thinker is in int8, expected floats; balance the checkpoint that was quantised")  # fmt: skip
    for tensor in larger:
        tensor.mul_(factor)
    for tensor in smaller:
        tensor.div_(factor)
    return model


def _larger(model: OmniModel) -> Iterator[Tensor]:
    """What is written into the Thinker's stream."""
    assert model.thinker is not None
    yield model.thinker.embed.weight
    for layer in model.thinker.layers:
        yield layer.attn.o.weight
        yield layer.mlp.down.weight
    if model.audio is not None:
        yield from (model.audio.proj.weight, model.audio.proj.bias, model.audio.bos_eos.weight)
    if model.vision is not None:
        yield from (model.vision.merger.down.weight, model.vision.merger.down.bias)
