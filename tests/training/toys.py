"""Small stages and data for the tests of the loop; every source of randomness a real run has is in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thinktalk.config import tiny
from thinktalk.messages import Embedded
from thinktalk.thinker.model import Thinker
from thinktalk.training.losses import IGNORE, answer_loss, next_tokens
from thinktalk.training.shown import Shown, spectrogram
from thinktalk.training.stage import Stage

__all__ = ["Curve", "Dialogues", "Drawn", "Sentences"]


class Drawn:
    """`count` batches an epoch, drawn from (number of the batch); the ranks take turns."""

    def __init__(self, draw: Any, count: int, rank: int = 0, ranks: int = 1):
        self.draw, self.count, self.rank, self.ranks = draw, count, rank, ranks
        self.place, self.epoch = 0, 0

    def __iter__(self) -> Iterator[Any]:
        while self.place < self.count // self.ranks:
            number = self.place * self.ranks + self.rank + 1000 * self.epoch
            self.place += 1
            yield self.draw(torch.Generator().manual_seed(number))
        self.place, self.epoch = 0, self.epoch + 1

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place, self.epoch = state["place"], state["epoch"]

    def reshard(self, states: Sequence[dict[str, Any]]) -> None:
        self.place = sum(state["place"] for state in states) // self.ranks
        self.epoch = states[0]["epoch"]


class Curve(Stage):
    """A net with dropout, running statistics, noise in its loss and a frozen part learns a sum."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.frozen = nn.Linear(4, 8)
        self.net = nn.Sequential(
            nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 1)
        )
        self.modules = nn.ModuleDict({"frozen": self.frozen, "net": self.net})

    def trainable(self, **turn: str) -> Iterator[nn.Parameter]:
        return self.net.parameters()

    def loss(self, batch: Tensor, *, generator: torch.Generator, **turn: str):
        noise = 0.05 * torch.randn(len(batch), generator=generator)
        error = self.net(self.frozen(batch))[:, 0] - batch.sum(1) + noise
        return error.square().mean(), {"error": error.abs().mean()}

    @staticmethod
    def draw(generator: torch.Generator) -> Tensor:
        return torch.randn(8, 4, generator=generator)


class Dialogues:
    """Token ids (2, T) of unequal length and where the answers are."""

    @staticmethod
    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        length = int(torch.randint(4, 12, (), generator=generator))
        ids = torch.randint(0, 500, (2, length), generator=generator)
        return ids, torch.rand(ids.shape, generator=generator) < 0.6


class Sentences(Stage):
    """A tiny Thinker learns answers; its weight is the number of answer tokens."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.thinker = Thinker(tiny().thinker.text)
        self.modules = nn.ModuleDict({"thinker": self.thinker})

    def weight(self, batch: tuple[Tensor, Tensor]) -> float:
        return float((next_tokens(*batch) != IGNORE).sum())

    def loss(self, batch: tuple[Tensor, Tensor], *, generator: torch.Generator, **turn: str):
        ids, answer = batch
        positions = torch.arange(ids.shape[1]).expand(len(ids), 3, -1)
        hidden = self.thinker(Embedded(embeds=self.thinker.embed(ids), positions=positions))
        loss, tokens = answer_loss(hidden, next_tokens(ids, answer), self.thinker.logits)
        return loss, {"tokens": tokens}

    def show(self, batch: tuple[Tensor, Tensor], *, generator: torch.Generator) -> Shown:
        """The hidden states of a dialogue."""
        assert not self.modules.training and not torch.is_grad_enabled()
        positions = torch.arange(batch[0].shape[1]).expand(len(batch[0]), 3, -1)
        hidden = self.thinker(Embedded(self.thinker.embed(batch[0]), positions))
        torch.rand(3)  # whatever it draws must not matter
        return {"hidden": spectrogram(hidden[0].T)}
