"""The loop: batches -> gradients -> steps, the same for every stage, from a laptop to torchrun.

    for step: fetch batches; for turn: losses, backward, clip, guard, optimiser; EMA; journal; checkpoint

Nothing that decides the next step lives outside a checkpoint: weights, optimisers, EMA, place in the data, guard, clock. Noise
is a function of the seed and the number of the batch. So a run that was killed goes on bit by bit where its last checkpoint is.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from thinktalk.errors import ConfigError, ThinktalkError
from thinktalk.training.checkpoint import Checkpoints, pack, unpack
from thinktalk.training.config import TrainConfig
from thinktalk.training.guard import Guard
from thinktalk.training.journal import Journal
from thinktalk.training.optim import (
    EMA,
    clip,
    fused,
    make_optimizer,
    rate,
    set_rate,
)  # fmt: skip
from thinktalk.training.parallel import (
    World,
    compile_blocks,
    recompute_blocks,
    reshard,
    shard,
    sync_gradients,
)  # fmt: skip
from thinktalk.training.shown import Shown
from thinktalk.training.stage import Data, Resharding, Stage

__all__ = ["TrainConfig", "Trainer"]


class _Entered(nn.Module):
    """The stage as one module: sharded parameters are whole while its loss is computed."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.held, self.stage = stage.modules, stage

    def forward(self, batch: Any, generator: torch.Generator, turn: Mapping[str, str] | None):
        """The loss of a turn; with no turn, what the stage shows."""
        if turn is None:
            return self.stage.show(batch, generator=generator)
        return self.stage.loss(batch, generator=generator, **turn)


@dataclass
class _Turn:
    """One optimiser and what it moves."""

    words: dict[str, str]  # how the stage is asked for this turn
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.AdamW


class Trainer:
    """Trains a stage; `run` starts it or takes it up where the last checkpoint in config.out left it."""

    def __init__(
        self,
        stage: Stage,
        data: Data,
        config: TrainConfig,
        *,
        world: World | None = None,
        watch: Callable[[int, Mapping[str, Any]], None] | None = None,
    ):
        self.stage, self.data, self.config = stage, data, config
        self.world = world = world or World()
        self.watch = watch or (lambda step, numbers: None)
        self.step, self.epoch, self.skipped, self.elapsed = 0, 0, 0, 0.0
        self.guard = Guard(config.explosion, config.patience)
        self._stopping = False
        stage.modules.to(world.device)
        words = [{"turn": turn} if len(stage.turns) > 1 else {} for turn in stage.turns]
        chosen = [{id(p) for p in stage.trainable(**w)} for w in words]
        for parameter in stage.modules.parameters():
            parameter.requires_grad_(any(id(parameter) in ids for ids in chosen))
        names = [[n for n, p in stage.modules.named_parameters() if id(p) in ids] for ids in chosen]
        blocks = list(stage.blocks())
        if config.recompute:
            recompute_blocks(blocks)
        if config.compile:
            compile_blocks(blocks, config.compile)
        self.root = shard(_Entered(stage), blocks, world, config.precision)
        # only now: sharding has replaced the parameters
        found = dict(stage.modules.named_parameters())
        self.turns = [
            self._turn(words=w, parameters={n: found[n] for n in ns})
            for w, ns in zip(words, names, strict=True)
        ]
        self.trained = {n: p for turn in self.turns for n, p in turn.parameters.items()}
        self.ema = EMA(self.trained, config.optim.ema) if config.optim.ema else None
        self.checkpoints = Checkpoints(Path(config.out) / "checkpoints", world=world, keep=config.keep)  # fmt: skip

    def _turn(self, words: dict[str, str], parameters: dict[str, nn.Parameter]) -> _Turn:
        scales = {
            prefix: factor
            for prefix, factor in self.stage.lr_scale.items()
            if not words or any(name.startswith(prefix) for name in parameters)
        }
        optimizer = make_optimizer(parameters, self.config.optim, lr_scale=scales)
        for parameter in parameters.values():  # from the first step on, a checkpoint has it all
            beside = parameter.device if fused(parameters) else None
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=beside),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return _Turn(words, parameters, optimizer)

    # ---------------------------------------------------------------------------------------------------- the run

    def stop(self) -> None:
        """End after the step under way, with a checkpoint; for signal handlers."""
        self._stopping = True

    def run(self) -> int:
        """Train to the end; returns the step reached. DivergedError when too many steps in a row had to be skipped."""
        self.resume()
        config, world = self.config, self.world
        journal = None
        if world.leads:
            journal = Journal(config.out, after=self.step, tensorboard=config.tensorboard)
        batches = self._batches()
        began = time.monotonic() - self.elapsed
        saved_step, saved_at = self.step, self.elapsed
        self.stage.modules.train()
        try:
            ended = self.finished
            while not ended:
                fetched = [next(batches) for _ in range(config.accumulate)]
                # the leading rank's clock and everybody's wish to stop: all ranks decide alike
                clock = time.monotonic() - began if world.leads else 0.0
                weights = [float(self.stage.weight(batch)) for batch in fetched]
                total, self.elapsed, stopping = world.sum(sum(weights), clock, self._stopping)
                numbers = self._step(fetched, weights, total)
                self.step += 1
                if self.step % config.log_every == 0 or numbers["lost"]:
                    numbers = self._report(numbers)
                    if journal is not None:
                        journal.write(self.step, numbers)
                    self.watch(self.step, numbers)
                self.guard.check(self.step, self._last_good)
                ended = self.finished or stopping > 0
                if config.show_every and (ended or self.step % config.show_every == 0):
                    shown = self._show(fetched[0])
                    if journal is not None:
                        journal.show(self.step, shown)
                due = (config.save_every and self.step - saved_step >= config.save_every) or (
                    config.save_seconds and self.elapsed - saved_at >= config.save_seconds
                )
                if due and not ended:
                    saved_step, saved_at = self.step, self.elapsed
                    self.save()
                self.checkpoints.settle()
            if self.step > saved_step or self.checkpoints.latest() is None:
                self._save_end()
        finally:
            self.checkpoints.settle(wait=True)
            if journal is not None:
                journal.close()
        return self.step

    @property
    def finished(self) -> bool:
        """Whether the run has reached its end, as opposed to having been stopped."""
        return self.step >= self.config.steps or 0 < self.config.seconds <= self.elapsed

    def _last_good(self) -> int | None:
        self.checkpoints.settle(wait=True)
        return self.checkpoints.latest()

    def _save_end(self) -> None:
        self.checkpoints.settle(wait=True)
        before = len(self.checkpoints.failures)
        self.save(wait=True)
        if len(self.checkpoints.failures) > before:
            raise ThinktalkError(
                f"{self.config.out}: the last checkpoint could not be saved ({self.checkpoints.failures[-1]}); "
                f"expected room on the disk; free some and start the same command again"
            )

    def _batches(self) -> Iterator[Any]:
        """Batches without end; a new epoch when the data are through."""
        empty = 0
        while empty < 2:  # a resumed pass may have been at its very end
            empty += 1
            for batch in self.data:
                empty = 0
                yield batch
            self.epoch += 1
        raise ConfigError("the data have no batch; expected at least one")

    def _step(self, batches: list[Any], weights: list[float], total: float) -> dict[str, Any]:
        """One step of every turn. `total` is the weight of the batches of all ranks."""
        config, world = self.config, self.world
        progress = (self.step + 1) / config.steps
        if config.seconds:
            progress = max(progress, self.elapsed / config.seconds)
        self.stage.progress = min(progress, 1.0)
        lr = config.optim.lr * rate(progress, config.schedule)
        numbers: dict[str, Any] = {"loss": 0.0, "lr": lr, "seen": [], "lost": False}
        for turn in self.turns:
            self.root.zero_grad(set_to_none=True)
            sum_of_losses = 0.0
            for index, (batch, weight) in enumerate(zip(batches, weights, strict=True)):
                sync_gradients(self.root, index == len(batches) - 1)
                with self._autocast():
                    loss, seen = self.root(batch, self._noise(index), turn.words)
                # ranks are averaged by FSDP, so that this sums to the mean over everything
                share = weight * world.size / total if total > 0 else 0.0
                (loss * share).backward()
                sum_of_losses += float(loss.detach()) * weight
                numbers["seen"].append(
                    (weight, {name: _number(value) for name, value in seen.items()})
                )
            (loss_sum,) = world.sum(sum_of_losses)
            loss_mean = loss_sum / total if total > 0 else 0.0
            norm = clip(turn.parameters.values(), config.optim.clip)
            name = turn.words.get("turn", "")
            numbers["loss"] += loss_mean
            numbers[f"norm_{name}" if name else "norm"] = norm
            if self.guard.allows(name, norm, loss_mean):
                set_rate(turn.optimizer, lr)
                turn.optimizer.step()
            else:
                numbers["lost"] = True
        self.guard.count(numbers["lost"])
        self.skipped += numbers["lost"]
        if self.ema is not None and not numbers["lost"]:
            self.ema.update()
        return numbers

    @torch.no_grad()
    def _show(self, batch: Any) -> Shown:
        """What the stage shows of a batch; nothing of it reaches the next step."""
        self.stage.modules.eval()
        try:
            with self._autocast():
                return self.root(batch, self._noise(0), None)
        finally:
            self.stage.modules.train()
            reshard(self.root)

    def _autocast(self) -> Any:
        if self.config.precision == "bf16":
            return torch.autocast(self.world.device.type, torch.bfloat16)
        return nullcontext()

    def _noise(self, index: int) -> torch.Generator:
        """The generator of a batch, numbered over steps, batches of a step and ranks; dropout gets the same seed."""
        number = (self.step * self.config.accumulate + index) * self.world.size + self.world.rank
        digest = hashlib.blake2b(f"{self.config.seed}/{number}".encode(), digest_size=7).digest()
        seed = int.from_bytes(digest, "big")
        torch.manual_seed(seed)
        return torch.Generator(self.world.device).manual_seed(seed)

    def _report(self, numbers: dict[str, Any]) -> dict[str, Any]:
        """A line of the journal: the numbers of the step, metrics averaged over batches and ranks by weight."""
        everywhere = [pair for seen in self.world.gather(numbers["seen"]) for pair in seen]
        line = {name: value for name, value in numbers.items() if name not in ("seen", "lost")}
        for name in {name: None for _, seen in everywhere for name in seen}:
            pairs = [(weight, seen[name]) for weight, seen in everywhere if name in seen]
            total = sum(weight for weight, _ in pairs)
            line[name] = sum(w * v for w, v in pairs) / total if total else statistics.fmean(v for _, v in pairs)  # fmt: skip
        line["seconds"] = round(self.elapsed, 3)
        if self.skipped:
            line["skipped"] = self.skipped
        if self.checkpoints.failures:
            line["failed_saves"] = len(self.checkpoints.failures)
        return line

    # ---------------------------------------------------------------------------------------------- checkpoints

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint holds by name, as it is in memory; sharded tensors are shards."""
        held = {f"model/{name}": p.detach() for name, p in self.trained.items()}
        held |= {f"buffer/{name}": b for name, b in _saved_buffers(self.stage.modules).items()}
        for turn, name in zip(self.turns, self.stage.turns, strict=True):
            for parameter_name, parameter in turn.parameters.items():
                for key, value in turn.optimizer.state[parameter].items():
                    held[f"optim/{name}/{parameter_name}/{key}"] = value
        if self.ema is not None:
            held |= {f"ema/{name}": shadow for name, shadow in self.ema.shadow.items()}
        return held

    def weights(self, *, ema: bool = True) -> dict[str, Tensor]:
        """What was trained by name, whole and on the CPU, the running mean if there is one, buffers too.

        Every rank must ask; the leading one gets it, the others get nothing and never hold more than one tensor whole.
        """
        held = self.ema.shadow if ema and self.ema is not None else self.trained
        held = held | _saved_buffers(self.stage.modules)
        given: dict[str, Tensor] = {}
        for name, tensor in held.items():
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.world.leads:  # off the device before the next one comes
                given[name] = whole.detach().to("cpu", copy=True)
            del whole
        return given

    def save(self, *, wait: bool = False) -> None:
        """Begin a checkpoint of this step; it is written while training goes on."""
        run = {
            "step": self.step, "epoch": self.epoch, "skipped": self.skipped, "elapsed": self.elapsed,
            "ranks": self.world.size, "guard": self.guard.state_dict(), "seed": self.config.seed,
            "updates": self.ema.updates if self.ema else 0,
        }  # fmt: skip
        own = {f"rank/{self.world.rank}": pack(self.data.state_dict())}
        self.checkpoints.save(self.step, {**self.tensors(), "run": pack(run), **own}, wait=wait)

    def resume(self) -> bool:
        """Take up the newest checkpoint of config.out, whatever the number of ranks that saved it; False without one."""
        newest = self.checkpoints.latest()
        if newest is None:
            return False
        sizes = self.checkpoints.sizes(newest)
        ranks = sorted((n for n in sizes if n.startswith("rank/")), key=lambda n: int(n[5:]))
        packed = {name: torch.zeros(sizes[name], dtype=torch.uint8) for name in ("run", *ranks) if name in sizes}  # fmt: skip
        self.checkpoints.load(newest, {**self.tensors(), **packed})
        run = unpack(packed["run"])
        self.step, self.epoch, self.skipped = run["step"], run["epoch"], run["skipped"]
        self.elapsed = run["elapsed"]
        self.guard.load_state_dict(run["guard"])
        if run["seed"] != self.config.seed:
            raise ConfigError(
                f"seed {self.config.seed}: the run in {self.config.out} has seed {run['seed']}; use that, or another out"
            )
        if self.ema is not None:
            self.ema.updates = run["updates"]
        states = [unpack(packed[name]) for name in ranks]
        if len(states) == self.world.size:
            self.data.load_state_dict(states[self.world.rank])
        elif isinstance(self.data, Resharding):
            self.data.reshard(states)
        else:
            raise ConfigError(
                f"{self.config.out} was saved by {len(states)} ranks, this run has {self.world.size}, "
                f"and its data cannot be dealt out anew; start it with {len(states)} ranks"
            )
        return True


def _number(value: Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else float(value)


def _saved_buffers(modules: nn.Module) -> dict[str, Tensor]:
    """Buffers that belong to a state dict (running statistics), not constants."""
    wanted = modules.state_dict(keep_vars=True)
    return {name: b for name, b in modules.named_buffers() if name in wanted}
