"""sums: a tiny Thinker learns to add, "7+5=12;", in five seconds on one core: the first run, and how a recipe is written.

What it reads is drawn from the seed, so there is nothing to download. Only the digits after "=" and the ";" are learnt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from thinktalk.config import tiny
from thinktalk.messages import Embedded
from thinktalk.recipes.recipe import Recipe
from thinktalk.thinker.model import Thinker
from thinktalk.training.losses import IGNORE, answer_loss, next_tokens
from thinktalk.training.optim import OptimConfig
from thinktalk.training.parallel import World
from thinktalk.training.stage import Stage

__all__ = ["SumStage", "Sums", "SumsRecipe", "recipe"]

LETTERS = "0123456789+=;"
PAD = len(LETTERS)


class SumStage(Stage):
    """Answers of sums, by a Thinker whose tokens are letters."""

    def __init__(self, seed: int):
        torch.manual_seed(seed)
        self.thinker = Thinker(replace(tiny().thinker.text, vocab_size=PAD + 1))
        self.modules = nn.ModuleDict({"thinker": self.thinker})

    def weight(self, batch: Tensor) -> float:
        return float((_targets(batch) != IGNORE).sum())

    def loss(self, batch: Tensor, *, generator: torch.Generator, **turn: str):
        """Cross-entropy of the answers' letters; `right` is the share of letters that would be written right."""
        ids = batch.to(self.thinker.embed.weight.device)
        positions = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), 3, -1)
        hidden = self.thinker(Embedded(embeds=self.thinker.embed(ids), positions=positions))
        targets = _targets(ids)
        loss, _ = answer_loss(hidden, targets, self.thinker.logits)
        with torch.no_grad():
            here = targets != IGNORE
            right = self.thinker.logits(hidden[here]).argmax(-1) == targets[here]
        return loss, {"right": right.float().mean()}


def _targets(ids: Tensor) -> Tensor:
    """Learn what follows "=", up to ";"."""
    after = (ids == LETTERS.index("=")).cumsum(1) > 0
    answer = after & (ids != LETTERS.index("=")) & (ids != PAD)
    return next_tokens(ids, answer)


class Sums:
    """Endless batches (rows, letters) of sums, each drawn from the seed and its number; ranks take turns."""

    def __init__(self, seed: int, rows: int, digits: int, world: World):
        self.seed, self.rows, self.digits, self.world = seed, rows, digits, world
        self.place = 0

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            number = self.place * self.world.size + self.world.rank
            self.place += 1
            yield self.draw(number)

    def draw(self, number: int) -> Tensor:
        """Batch `number`."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        pairs = torch.randint(0, 10**self.digits, (self.rows, 2), generator=generator).tolist()
        width = 3 * self.digits + 4  # two numbers, their sum, "+", "=", ";" and a digit carried
        rows = [[LETTERS.index(letter) for letter in f"{a}+{b}={a + b};"] for a, b in pairs]
        return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])

    def state_dict(self) -> dict[str, Any]:
        """The number of batches drawn by this rank."""
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after them."""
        self.place = state["place"]

    def reshard(self, states: Sequence[dict[str, Any]]) -> None:
        """As many batches as all ranks have drawn are behind us."""
        self.place = sum(state["place"] for state in states) // self.world.size


@dataclass(frozen=True, kw_only=True)
class SumsRecipe(Recipe):
    """The numbers of the run."""

    out: str = "out/sums"
    steps: int = 400
    rows: int = 64
    """Sums a batch."""
    digits: int = 1
    """Digits of the numbers to add."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-3))

    def stage(self) -> SumStage:
        """A fresh Thinker."""
        return SumStage(self.seed)

    def data(self, world: World) -> Sums:
        """This rank's sums."""
        return Sums(self.seed, self.rows, self.digits, world)


def recipe() -> SumsRecipe:
    """The defaults."""
    return SumsRecipe()
