"""What the loop runs: a stage turns a batch into a loss; data are batches that know where they stand.

stage.loss(batch, generator=g) -> (mean loss, {metric: value})        stage.trainable() -> parameters that learn
for batch in data: ...                                                data.state_dict() -> where the next batch begins
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from thinktalk.training.shown import Shown

__all__ = ["Data", "Metrics", "Resharding", "Stage"]

Metrics = Mapping[str, Tensor | float]


class Stage:
    """One stage of training: inherit, set `modules`, write `loss`.

    All noise must come from the generator: it is a function of the run's seed and the number of the batch, which is what
    makes a killed run go on bit by bit.
    """

    modules: nn.Module
    """Everything that is trained or frozen; the names of its parameters are those in the checkpoint."""
    turns: ClassVar[tuple[str, ...]] = ("main",)
    """Optimisers that step one after the other on the same batch; a GAN has two, and its `loss` and `trainable` take `turn=`."""
    lr_scale: Mapping[str, float] = {}
    """Beginning of a parameter's name -> factor of its learning rate."""
    progress: float = 0.0
    """How far the run is, 0 to 1, in steps or in time; the loop sets it before each step."""

    def loss(
        self, batch: Any, *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, Metrics]:
        """The mean loss of a batch, and numbers to watch."""
        raise NotImplementedError(f"{type(self).__name__} must say what its loss is")

    def trainable(self, **turn: str) -> Iterable[nn.Parameter]:
        """The parameters that learn; the others are frozen by the loop, and are not in its checkpoints."""
        return (p for p in self.modules.parameters() if p.requires_grad)

    def weight(self, batch: Any) -> float:
        """How much a batch counts (answer tokens, seconds): with it, accumulation and ranks give the exact mean of all."""
        return 1.0

    def parts(self) -> Mapping[str, nn.Module]:
        """The parts of the model that this stage has trained, by the names of weights.update.STAGES, as they are to be
        shipped (LoRA: merged copies); what only the training needs, heads and judges, is not among them."""
        return {}

    def show(self, batch: Any, *, generator: torch.Generator) -> Shown:
        """Sounds and pictures of what has been learnt, by name, made of a batch now and then (`show_every`): no gradients, in
        eval mode, on every rank; the leading one keeps what it gets."""
        return {}

    def blocks(self) -> Iterable[nn.Module]:
        """Modules that are sharded, computed again and compiled one by one: members of lists called `layers`."""
        for name, module in self.modules.named_modules():
            if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] == "layers":
                yield from module


@runtime_checkable
class Data(Protocol):
    """Batches; one pass over it is an epoch. A new iterator goes on where the loaded state says."""

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins: numbers, strings, tensors, and dicts and lists of them."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Resharding(Protocol):
    """Data that can go on when the number of ranks has changed."""

    def reshard(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from the states of all former ranks."""
        ...
