"""Many processes as one: torchrun's ranks -> World; shard (FSDP2), recompute and compile blocks.

torchrun --nproc-per-node 8 -m thinktalk.cli.main train RECIPE
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

from thinktalk.errors import ConfigError
from thinktalk.layers.spans import Spans

__all__ = ["Precision", "World", "compile_blocks", "join", "leave", "recompute_blocks", "reshard", "shard", "sync_gradients"]  # fmt: skip

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class World:
    """The processes that train together; alone: rank 0 of 1."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    talking: Any = None
    """The process group of numbers and small things, on the CPU."""
    saving: Any = None
    """The process group of checkpoints: its own, because they are written in the background."""

    @property
    def leads(self) -> bool:
        """Whether this rank writes the journal."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value added up over all ranks, in float64."""
        if self.size == 1:
            return [float(v) for v in values]
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.talking)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, in order; small things only."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.talking)
        return found


def join(device: str = "auto") -> World:
    """The world torchrun has started this process in, or a world of one. `device`: auto, cpu, cuda or mps."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: torch sees no GPU here; use --set device=cpu")
    if device == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    else:
        if device not in ("cpu", "mps"):
            raise ConfigError(f"device {device}: expected auto, cpu, cuda or mps")
        place = torch.device(device)
    if size == 1:
        return World(device=place)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    talking, saving = (dist.new_group(backend="gloo") for _ in range(2))
    return World(rank, size, place, talking, saving)


def leave(world: World) -> None:
    """Part from the other ranks; every rank must come here."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def shard(
    root: nn.Module, blocks: Iterable[nn.Module], world: World, precision: Precision
) -> nn.Module:
    """Every parameter becomes this rank's share of it (FSDP2); blocks are gathered one at a time, the rest with the root.

    bf16 computes and gathers in bfloat16, keeps the parameters and adds up their gradients in float32. `root` must be
    entered by call, once a batch, and reach everything else from there. A world of one is left as it is.
    """
    if world.size == 1:
        return root
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if precision == "bf16"
        else MixedPrecisionPolicy()
    )
    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # what goes into the root are batches: token ids, waves; casting them is the stage's business
    outer = MixedPrecisionPolicy(policy.param_dtype, policy.reduce_dtype, cast_forward_inputs=False)
    fully_shard(root, mesh=mesh, mp_policy=outer, reshard_after_forward=False)
    return root


def sync_gradients(root: nn.Module, wanted: bool) -> None:
    """Whether the next backward adds gradients up over the ranks: only the last of an accumulation needs to."""
    if isinstance(root, FSDPModule):
        root.set_requires_gradient_sync(wanted)


def reshard(root: nn.Module) -> None:
    """Every rank keeps its share only, after a forward pass that no backward pass follows."""
    if isinstance(root, FSDPModule):
        root.reshard()


def recompute_blocks(blocks: Iterable[nn.Module]) -> None:
    """Blocks keep their inputs only and are computed again in backward (activation checkpointing)."""
    for block in blocks:
        block.forward = partial(_recomputed, block.forward)  # names of parameters stay as they are


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def compile_blocks(blocks: Iterable[nn.Module], backend: str) -> None:
    """torch.compile of each block in place, with the given backend ("inductor" is torch's own)."""
    known = torch._dynamo.list_backends(exclude_tags=())
    if backend not in known:
        raise ConfigError(f"compile {backend!r} is no backend of torch.compile; have {known}")
    # Groups have other shapes in every batch. Said here, not where they stand: the decorator imports the compiler, and every
    # server and every command would wait a second for what only training uses.
    Spans.part = torch.compiler.disable(Spans.part)
    Spans.join = torch.compiler.disable(Spans.join)
    for block in blocks:
        block.compile(backend=backend)
