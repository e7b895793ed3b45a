"""k2: preferences. Pairs (a question, a good and a bad way to say the answer) -> the report's loss of the Talker.

    -log sigmoid(beta * (log pi / ref of chosen - log pi / ref of rejected))     (Rafailov 2023; Qwen2.5-Omni report, 2.4)

The reference is the Talker the run began with, the pairs are its own (mining.py). Guards: log-ratios a code, so that length
is not preferred; the chosen one's likelihood; a bound on the distance to the reference.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from thinktalk.talker.model import Talker
from thinktalk.training.losses import Preference, dpo, sequence_logprobs
from thinktalk.training.talker_batches import Line, Pair
from thinktalk.training.talker_stage import TalkerStage, lay_out
from thinktalk.training.talker_states import Told
from thinktalk.weights.model import OmniModel

__all__ = ["GUARDED", "PreferenceStage"]

GUARDED = Preference(beta=2.0, per_token=True, likelihood=1.0, kl_limit=0.05)
"""Numbers for a small Talker. Log-ratios are a code's, so beta is about a speech's length times that of plain DPO: 0.1 left
the gradient to the likelihood alone, 5 with a high rate broke words that were right (LOG.md)."""


class PreferenceStage(TalkerStage):
    """Batches are lists of Pairs; the Talker learns to prefer the chosen ones."""

    def __init__(
        self, model: OmniModel, *, preference: Preference = GUARDED, cache: str | Path | None = None
    ):
        super().__init__(model, eos_weight=1.0, cache=cache)
        self.preference = preference
        # outside of `modules`: neither sharded nor saved; a run that goes on makes it again from its start
        self.reference = copy.deepcopy(self.talker).requires_grad_(False).eval()

    def weight(self, batch: Sequence[Pair]) -> float:  # type: ignore[override]
        """Pairs."""
        return float(len(batch))

    def loss(  # type: ignore[override]
        self, batch: Sequence[Pair], *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """DPO of the pairs; `accuracy` is how often the chosen one is preferred, `kl` the distance in nats a code."""
        lines = [pair.chosen for pair in batch] + [pair.rejected for pair in batch]
        told = self.tell(lines[: len(batch)]) * 2  # both ways answer the same
        scores, lengths = self.logprobs(self.talker, lines, told)
        with torch.no_grad():
            self.reference.to(scores.device)
            before, _ = self.logprobs(self.reference, lines, told)
        chosen, rejected = scores.split(len(batch))
        was_chosen, was_rejected = before.split(len(batch))
        long, other = lengths.split(len(batch))
        loss, seen = dpo(chosen, rejected, was_chosen, was_rejected, (long, other), self.preference)
        return loss, {**seen, "chosen": (chosen / long).detach().mean()}

    def logprobs(
        self, talker: Talker, lines: Sequence[Line], told: Sequence[Told]
    ) -> tuple[Tensor, Tensor]:
        """Log-probability (B,) of each line's codes and its end, and how many they are (B,)."""
        layout = lay_out(talker, self.teller.embedding, lines, told, self.voices(lines))
        return sequence_logprobs(talker(layout.inputs), layout.targets, talker.logits)
