"""The numbers of a run: what a recipe sets, and `--set FIELD=VALUE` changes."""

from __future__ import annotations

from dataclasses import dataclass, field

from thinktalk.errors import ConfigError
from thinktalk.training.optim import OptimConfig, ScheduleConfig
from thinktalk.training.parallel import Precision

__all__ = ["TrainConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run, except for what it learns (the stage) and from what (the data)."""

    out: str
    """Directory of the run: metrics.jsonl, loss.png, checkpoints/."""
    steps: int = 1000
    """Optimiser steps."""
    seconds: float = 0.0
    """Wall-clock time of the whole run, restarts included, that also ends it and drives the schedule; 0: no such end."""
    accumulate: int = 1
    """Batches a step on every rank."""
    seed: int = 0
    """All noise follows from it."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Precision = "fp32"
    """bf16 computes in bfloat16; weights, optimiser and reductions stay float32."""
    recompute: bool = False
    """Activation checkpointing of the stage's blocks."""
    compile: str = ""
    """Backend of torch.compile for the stage's blocks ("inductor"), or nothing."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser, clipping, EMA."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate over the run."""
    save_every: int = 0
    """Steps between checkpoints; 0: by time only."""
    save_seconds: float = 300.0
    """Seconds between checkpoints; 0: by steps only. The end of a run is always saved."""
    keep: int = 2
    """Checkpoints that are kept."""
    explosion: float = 20.0
    """A gradient so many times longer (or a loss so many times larger) than usual is skipped; 0: only what is not finite."""
    patience: int = 10
    """Skipped steps in a row that stop the run."""
    log_every: int = 1
    """Steps between lines of the journal."""
    show_every: int = 1000
    """Steps between sounds and pictures of what has been learnt, in OUT/shown; 0: none. The end of a run shows some too."""
    tensorboard: bool = False
    """Also write TensorBoard events."""

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "patience", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more")
        for name in ("seconds", "save_every", "save_seconds", "explosion", "show_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 or more")
