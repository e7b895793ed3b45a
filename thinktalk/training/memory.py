"""Memory of tuning a Thinker: a configuration and how it is tuned -> bytes on each GPU, before anything is started.

    weights, gradients, optimiser, running mean     counted, parameter by parameter
    gathered                                        what FSDP2 holds whole for a while: two blocks, and all that is in none
    activations                                     forward and backward of the real code, on tensors without memory

The last is measured, not guessed: the Thinker's own modules run under FakeTensorMode and a Ledger writes down what is
alive, a few seconds for 7B. Not in it: the CUDA context (about 0.5 GB), what the allocator cannot use, media
in front of frozen encoders. Encoders, Talker and code2wav do not learn here; only what is loaded counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from thinktalk.config import OmniConfig
from thinktalk.data.packing import packed_hidden
from thinktalk.errors import ConfigError
from thinktalk.layers.spans import Spans
from thinktalk.messages import Embedded
from thinktalk.thinker.model import Thinker
from thinktalk.training.ledger import Ledger
from thinktalk.training.lora import LoraConfig, add_lora
from thinktalk.training.parallel import recompute_blocks
from thinktalk.weights.model import build

__all__ = ["Memory", "Tuning", "activations", "memory", "table"]

LOGITS = 2048
"""Places whose logits exist at the same time: `chunk` of losses.answer_loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """How a Thinker is tuned, as far as memory feels it."""

    tokens: int = 8192
    """Tokens of a batch on one GPU, packed into one row."""
    ranks: int = 1
    """GPUs that share parameters, gradients and optimiser."""
    lora: int = 0
    """Rank of the adapters on the language model's linear layers; 0 tunes all of the language model."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """What is computed in; what learns is kept in float32 either way."""
    frozen: Literal["float32", "bfloat16"] = "bfloat16"
    """What is kept of the parameters that do not learn."""
    recompute: bool = True
    """Blocks keep their inputs only."""
    ema: bool = False
    """Whether a running mean is kept."""

    def __post_init__(self) -> None:
        for name, least in (("tokens", 1), ("ranks", 1), ("lora", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected {least} or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes on one GPU."""

    trained: int
    """Parameters that learn, in float32."""
    frozen: int
    """Parameters that do not."""
    gradients: int
    """Of what learns, in float32; they stay from batch to batch of a step."""
    optimizer: int
    """Two means of each gradient (AdamW), and the running mean of the weights where one is kept."""
    gathered: int
    """Parameters and gradients that are whole for a while; nothing on a single GPU."""
    activations: int
    """The most that forward and backward hold."""
    saved: int
    """A checkpoint on disk, all ranks together; not part of the sum."""

    @property
    def total(self) -> int:
        """The most that is needed at a time."""
        held = self.trained + self.frozen + self.gradients + self.optimizer
        return held + self.gathered + self.activations  # a fused step takes nothing beside


def memory(config: OmniConfig, tuning: Tuning) -> Memory:
    """Bytes on each GPU of tuning the Thinker of a model. >>> memory(omni_7b(), Tuning(lora=16)).total / 1e9"""
    thinker, towers = _modules(config, tuning)
    learning = sum(p.numel() for p in thinker.parameters() if p.requires_grad)
    resting = sum(p.numel() for p in _all(thinker, *towers) if not p.requires_grad)
    share = -(-learning // tuning.ranks)
    return Memory(
        trained=4 * share,
        frozen=(2 if tuning.frozen == "bfloat16" else 4) * -(-resting // tuning.ranks),
        gradients=4 * share,
        optimizer=(12 if tuning.ema else 8) * share,
        gathered=_gathered(thinker, towers, tuning) if tuning.ranks > 1 else 0,
        activations=activations(config, tuning),
        saved=(16 if tuning.ema else 12) * learning,
    )


def _modules(config: OmniConfig, tuning: Tuning) -> tuple[Thinker, list[nn.Module]]:
    """The Thinker as it is tuned and the encoders in front of it, on "meta"."""
    model = build(config, ["thinker"])
    assert model.thinker is not None and model.audio is not None and model.vision is not None
    towers: list[nn.Module] = [model.audio, model.vision]
    for tower in towers:
        tower.requires_grad_(False)
    return _tuned(model.thinker, tuning), towers


def _tuned(thinker: Thinker, tuning: Tuning) -> Thinker:
    """Adapters in it, the rest frozen; or as it is."""
    if tuning.lora:
        thinker.requires_grad_(False)
        add_lora(thinker, LoraConfig(rank=tuning.lora))
    return thinker


def _all(*modules: nn.Module) -> Iterable[nn.Parameter]:
    return (p for module in modules for p in module.parameters())


def _gathered(thinker: Thinker, towers: Iterable[nn.Module], tuning: Tuning) -> int:
    """FSDP2: the block at work and the next one, and what is in no block (embedding, head, encoders) all the time.

    Gradients of either are whole once in the computing precision and once in float32, in which they are added up.
    """
    width = 2 if tuning.precision == "bf16" else 4
    blocks = {id(p) for p in thinker.layers.parameters()}

    def size(parameters: Iterable[nn.Parameter]) -> int:
        sizes = ((p.numel(), p.requires_grad) for p in parameters)
        return sum(count * (2 * width + 4 if learns else width) for count, learns in sizes)

    outer = size(p for p in _all(thinker, *towers) if id(p) not in blocks)
    return 2 * size(thinker.layers[0].parameters()) + outer


# ---------------------------------------------------------------------------------------------------------- activations


def activations(config: OmniConfig, tuning: Tuning) -> int:
    """The most that forward and backward of one batch hold beside parameters and their gradients, in bytes.

    Every token is scored, which is the worst case; the loss is cut into pieces as losses.answer_loss cuts it.
    """
    half = tuning.precision == "bf16"
    _make_constants(config)
    T = tuning.tokens
    spans = Spans.of(torch.ones(1, T, dtype=torch.long))  # one conversation: the longest attention
    # constants made outside may come in; nothing inside has memory
    with FakeTensorMode(allow_non_fake_inputs=True):
        thinker = _tuned(Thinker(config.thinker.text), tuning)
        for parameter in thinker.parameters():
            if (tuning.ranks > 1 and half) or (
                not parameter.requires_grad and tuning.frozen == "bfloat16"
            ):  # FSDP2 hands out what it gathers in the computing precision
                parameter.data = parameter.data.bfloat16()
            if parameter.requires_grad:  # gradients are counted apart
                parameter.register_post_accumulate_grad_hook(_forget)
        if tuning.recompute:
            recompute_blocks(thinker.layers)
        ids, positions = (torch.zeros(*shape, dtype=torch.long) for shape in ((1, T), (1, 3, T)))
        ledger = Ledger()
        ledger.know(thinker.parameters())
        with ledger:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                x = Embedded(thinker.embed(ids), positions)
                hidden = packed_hidden(thinker, x, spans)
                loss = _loss(thinker, hidden, ids)
            loss.backward()
    return ledger.peak


def _loss(thinker: Thinker, hidden: Tensor, ids: Tensor) -> Tensor:
    """losses.answer_loss where everything is an answer: its choice of places has no size without values."""
    hidden_ND, target_N = hidden.flatten(0, 1).clone(), ids.flatten()

    def part(hidden_ND: Tensor, target_N: Tensor) -> Tensor:
        losses_N = F.cross_entropy(thinker.logits(hidden_ND).float(), target_N, reduction="none")
        return (losses_N * torch.ones_like(losses_N)).sum()

    total = hidden.float().sum() * 0
    for piece in zip(hidden_ND.split(LOGITS), target_N.split(LOGITS), strict=True):
        whole = len(hidden_ND) <= LOGITS
        total = total + (part(*piece) if whole else checkpoint(part, *piece, use_reentrant=False))
    return total / len(target_N)


def _forget(parameter: Tensor) -> None:
    parameter.grad = None


def _make_constants(config: OmniConfig) -> None:
    """Run the narrowest model of the same rotary frequencies once: constants that layers keep must be real tensors."""
    narrow = replace(config.thinker.text, num_layers=1, width=8, num_heads=1, num_kv_heads=1, ffn_width=8, vocab_size=8)  # fmt: skip
    thinker, where = Thinker(narrow), torch.zeros(1, 3, 2, dtype=torch.long)
    for dtype in (torch.float32, torch.bfloat16):
        x = Embedded(torch.zeros(1, 2, 8, dtype=dtype), where)
        packed_hidden(thinker.to(dtype), x, torch.ones(1, 2, dtype=torch.long))


# ---------------------------------------------------------------------------------------------------------------- table


def table(config: OmniConfig, tunings: Iterable[tuple[str, Tuning]]) -> str:
    """A Markdown table in GB (10^9 bytes), a row for each way of tuning."""
    shown = [f.name for f in fields(Memory) if f.name != "saved"]
    lines = [f"| | {' | '.join(shown)} | **on each GPU** | checkpoint |", "|---" * (len(shown) + 3) + "|"]  # fmt: skip
    for name, tuning in tunings:
        found = memory(config, tuning)
        cells = [f"{getattr(found, field) / 1e9:.1f}" for field in shown]
        lines.append(f"| {name} | {' | '.join(cells)} | **{found.total / 1e9:.1f}** | {found.saved / 1e9:.1f} |")  # fmt: skip
    return "\n".join(lines)
