"""Optimiser: gradients -> clipped AdamW steps at a scheduled rate, and the running mean (EMA) of the weights.

rate = lr * schedule(progress), progress from 0 to 1 in steps, or in seconds of the wall clock: a run that must end at noon
still ends with a small rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from thinktalk.errors import ConfigError

__all__ = ["EMA", "OptimConfig", "ScheduleConfig", "clip", "make_optimizer", "rate", "set_rate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW (Loshchilov 2019) and clipping."""

    lr: float = 1e-3
    """Highest learning rate."""
    beta1: float = 0.9
    """Memory of the gradient's mean."""
    beta2: float = 0.95
    """Memory of the gradient's square."""
    eps: float = 1e-8
    """Keeps the division finite."""
    weight_decay: float = 0.05
    """Decoupled decay of matrices; vectors (norms, biases) do not decay."""
    clip: float = 1.0
    """Longest gradient (2-norm over all parameters); 0 clips nothing."""
    ema: float = 0.0
    """Decay of the running mean of the weights; 0 keeps none."""

    def __post_init__(self) -> None:
        for name in ("lr", "eps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"optim.{name} is {getattr(self, name)}, expected more than 0")
        for name in ("beta1", "beta2", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optim.{name} is {getattr(self, name)}, expected 0 <= x < 1")
        for name in ("weight_decay", "clip"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"optim.{name} is {getattr(self, name)}, expected 0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """The learning rate over a run."""

    shape: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """How it falls: half a cosine, a line, not at all, or late (warm-up, stable, decay: the last `decay` of the run)."""
    warmup: float = 0.03
    """Share of the run in which it rises from 0."""
    floor: float = 0.05
    """Share of the highest rate that is left at the end."""
    decay: float = 0.2
    """Share of the run in which `wsd` falls."""

    def __post_init__(self) -> None:
        for name in ("warmup", "floor", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"schedule.{name} is {getattr(self, name)}, expected 0 to 1")
        if self.shape == "wsd" and self.warmup + self.decay > 1:
            raise ConfigError(
                f"schedule.warmup {self.warmup} and schedule.decay {self.decay} add up to more than 1"
            )


def rate(progress: float, schedule: ScheduleConfig) -> float:
    """Share of the highest learning rate at `progress` (0 to 1) of the run. >>> rate(1.0, ScheduleConfig())"""
    progress = min(max(progress, 0.0), 1.0)
    if progress < schedule.warmup:
        return progress / schedule.warmup
    if schedule.shape == "constant":
        return 1.0
    start = 1 - schedule.decay if schedule.shape == "wsd" else schedule.warmup
    fallen = 0.0 if progress <= start else (progress - start) / (1 - start)
    left = 0.5 * (1 + math.cos(math.pi * fallen)) if schedule.shape == "cosine" else 1 - fallen
    return schedule.floor + (1 - schedule.floor) * left


def make_optimizer(
    parameters: Mapping[str, nn.Parameter],
    config: OptimConfig,
    *,
    lr_scale: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """AdamW over named parameters; `lr_scale` maps the beginning of a name to a factor, the longest beginning wins.

    Groups carry `scale`, which set_rate multiplies. A beginning that no parameter has is a ConfigError.
    """
    scales = dict(lr_scale or {})
    for prefix in scales:
        if not any(name.startswith(prefix) for name in parameters):
            raise ConfigError(f"lr_scale {prefix!r}: no trained parameter begins with it")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        prefix = max((p for p in scales if name.startswith(p)), key=len, default=None)
        scale = 1.0 if prefix is None else scales[prefix]
        decay = config.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    if not groups:
        raise ConfigError("nothing to train: the stage's trainable() is empty")
    return torch.optim.AdamW(
        [
            {"params": members, "weight_decay": decay, "scale": scale}
            for (scale, decay), members in groups.items()
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=fused(parameters),
    )


def fused(parameters: Mapping[str, nn.Parameter]) -> bool:
    """Whether one kernel does the step: six times faster on a CPU than step by step, and no temporary of the model's size."""
    return all(p.device.type in ("cpu", "cuda") for p in parameters.values())


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of the next step, each group times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def clip(parameters: Iterable[nn.Parameter], longest: float) -> float:
    """Shorten the gradient of all parameters together to `longest` (0: leave it), and return how long it was.

    Sharded parameters count whole; every rank gets the same number. Squares are summed in float64: in float32 the sum over
    a large matrix depends on how it is sharded. A length that is not finite leaves the gradient as it is: take no step with it.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    shards = [g.to_local() if isinstance(g, DTensor) else g for g in grads]
    if not shards:
        return 0.0
    wide = torch.float32 if shards[0].device.type == "mps" else torch.float64
    whole, shared = torch.zeros(2, dtype=wide, device=shards[0].device)
    mesh = None
    for grad, part in zip(grads, shards, strict=True):
        square = torch.linalg.vector_norm(part, dtype=wide).square()
        if isinstance(grad, DTensor):
            mesh, shared = grad.device_mesh, shared + square
        else:
            whole = whole + square
    if mesh is not None:
        dist.all_reduce(shared, group=mesh.get_group())
    norm = float((whole + shared).sqrt())
    if 0 < longest < norm < math.inf:
        torch._foreach_mul_(shards, longest / norm)
    return norm


class EMA:
    """The running mean of named parameters: shadow = d * shadow + (1 - d) * weight.

    Early on d is (1 + n) / (10 + n) after n updates, so that the mean forgets where the run began.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float):
        self.parameters, self.decay, self.updates = dict(parameters), decay, 0
        self.shadow = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(
            list(self.shadow.values()), [p.detach() for p in self.parameters.values()], 1 - decay
        )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The mean in place of the weights, for an evaluation or an export; the weights come back."""
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        _assign(self.parameters, self.shadow)
        try:
            yield
        finally:
            _assign(self.parameters, kept)


@torch.no_grad()
def _assign(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
