"""k0: a Talker for a Thinker that was tuned. Lines -> the tuned system's Talker says what the old system would have said.

    old Thinker   -> old Talker   -> p(code)     frozen
    tuned Thinker -> this Talker  -> q(code)     learns            loss: KL(p || q) of each code and the end, mean

Who fine-tunes the Thinker shifts the hidden states that the Talker was trained on, and speech goes wrong. Nothing is needed
to mend it but the old checkpoint and texts: the old system itself speaks the codes (mining.speak), and its whole distribution
is learned, not only what it happened to say. No tokenizer, no recordings.

Letters: B rows, T time steps, N places, D width, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from thinktalk.training.losses import IGNORE, Logits
from thinktalk.training.talker_batches import Line
from thinktalk.training.talker_stage import TalkerStage, lay_out, talker_of
from thinktalk.training.talker_states import Teller
from thinktalk.weights.model import OmniModel

__all__ = ["RealignStage", "distance"]


class RealignStage(TalkerStage):
    """Batches are lists of Lines that the old system has said."""

    def __init__(
        self, model: OmniModel, old: OmniModel, *, eos_weight: float = 3.0, cache: str | Path | None = None
    ):  # fmt: skip
        """`old` is the system as it was: Thinker, senses and Talker."""
        super().__init__(model, eos_weight=eos_weight, cache=cache)
        # outside of `modules`: neither sharded nor saved
        self.old_talker = talker_of(old).requires_grad_(False).eval()
        self.old_teller = Teller(old, cache)

    def loss(
        self, batch: Sequence[Line], *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Mean KL of the next code, in nats; `same` is how often both systems' best code is the same one."""
        layout = self.layout(batch, self.tell(batch))
        hidden = self.talker(layout.inputs)
        before = self._before(batch)
        places = layout.targets != IGNORE
        weights = (1 + (self.eos_weight - 1) * layout.ends)[places]
        loss, same = distance(
            before[places], hidden[places], weights, self.old_talker.logits, self.talker.logits
        )
        return loss, {"kl": loss.detach(), "same": same}

    @torch.no_grad()
    def _before(self, batch: Sequence[Line]) -> Tensor:
        """Hidden states (B, T, D) of the old Talker after the old Thinker; the same places, since prompts are the same."""
        home = self.talker.embed.weight.device
        self.old_talker.to(home)
        self.old_teller.to(home)
        told = self.old_teller([(line.prompt, line.reply) for line in batch])
        table = self.old_teller.embedding
        tokens = torch.tensor([line.voice for line in batch], device=table.device)
        layout = lay_out(self.old_talker, table, batch, told, table[tokens])
        return self.old_talker(layout.inputs)


def distance(
    old_ND: Tensor, new_ND: Tensor, weights_N: Tensor, old: Logits, new: Logits, *, chunk: int = 2048
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Weighted mean of KL(p || q) = sum_v p_v (log p_v - log q_v) over N places, and how often the best code is the same.

    Logits exist for `chunk` places at a time, as in losses.answer_loss. Gradients flow into `new_ND` and `new` only.
    """

    def part(old_ND: Tensor, new_ND: Tensor, weights_N: Tensor) -> Tensor:
        with torch.no_grad():
            p_NV = old(old_ND).float().log_softmax(-1)
        q_NV = new(new_ND).float().log_softmax(-1)
        each_N = F.kl_div(q_NV, p_NV, reduction="none", log_target=True).sum(-1)
        return (each_N * weights_N).sum()

    total = new_ND.float().sum() * 0  # ties the graph together when nothing is scored
    for piece in zip(*(x.split(chunk) for x in (old_ND, new_ND, weights_N)), strict=True):
        if len(new_ND) > chunk and torch.is_grad_enabled():
            total = total + checkpoint(part, *piece, use_reentrant=False)
        else:
            total = total + part(*piece)
    with torch.no_grad():
        some = slice(None, None, max(1, len(new_ND) // 512))
        same = (old(old_ND[some]).argmax(-1) == new(new_ND[some]).argmax(-1)).float().mean()
    return total / weights_N.sum().clamp(min=torch.finfo(torch.float32).tiny), same
