"""Losses: hidden states and logits -> scalars; each is its formula, in float32, over answers only.

next_tokens    which token each place must say: the next one, inside the same dialogue, if it belongs to an answer
answer_loss    cross-entropy of those, without ever holding the logits of a whole batch
ctc            every alignment of a label sequence to the frames (Graves 2006)
sequence_logprobs, dpo      preference of one answer over another against a reference (Rafailov 2023)

Letters: B rows, T time steps, D width, V vocabulary, N places that count, L labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = [
    "IGNORE", "Preference", "answer_loss", "ctc", "dpo", "next_tokens", "sequence_logprobs", "token_logprobs",
    "unlike_length",
]  # fmt: skip

IGNORE = -100
"""The target of a place that is not scored."""

Logits = Callable[[Tensor], Tensor]
"""Hidden states (N, D) -> logits (N, V); Thinker.logits and Talker.head are such."""


def next_tokens(token_ids: Tensor, answer: Tensor, segments: Tensor | None = None) -> Tensor:
    """Targets (B, T): the token after each place where it is part of an answer (B, T bool), else IGNORE.

    `segments` (B, T) numbers the dialogues packed into a row: the last token of one never predicts the first of the next.
    """
    scored = answer[:, 1:].bool()
    if segments is not None:
        scored = scored & (segments[:, 1:] == segments[:, :-1])
    targets = torch.full_like(token_ids, IGNORE)
    targets[:, :-1] = torch.where(scored, token_ids[:, 1:], IGNORE)
    return targets


def answer_loss(
    hidden: Tensor,
    targets: Tensor,
    logits: Logits,
    *,
    weights: Tensor | None = None,
    chunk: int = 2048,
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of hidden (B, T, D) over the targets (B, T) that are not IGNORE, and how much they weigh.

    Only scored places reach `logits`, `chunk` of them at a time; backward computes each chunk again instead of keeping it,
    so memory is chunk * V, not B * T * V. `weights` (B, T) makes some tokens count more (the stop code of speech).
    No answer at all gives 0 with zero gradients.
    """
    places = targets != IGNORE
    hidden_ND, target_N = hidden[places], targets[places]
    weight_N = torch.ones_like(target_N, dtype=torch.float32) if weights is None else weights[places].float()  # fmt: skip

    def part(hidden_ND: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
        losses_N = F.cross_entropy(logits(hidden_ND).float(), target_N, reduction="none")
        return (losses_N * weight_N).sum()

    total = hidden.float().sum() * 0  # ties the graph together when nothing is scored
    for piece in zip(*(x.split(chunk) for x in (hidden_ND, target_N, weight_N)), strict=True):
        if len(hidden_ND) > chunk and torch.is_grad_enabled():
            total = total + checkpoint(part, *piece, use_reentrant=False)
        else:
            total = total + part(*piece)
    weight = weight_N.sum()
    return total / weight.clamp(min=torch.finfo(torch.float32).tiny), weight


def ctc(
    logits_BTV: Tensor,
    frames: Tensor,
    labels: Tensor,
    label_lengths: Tensor,
    *,
    blank: int = 0,
) -> tuple[Tensor, int]:
    """Negative log-likelihood per label of labels (B, L) given logits over `frames` (B,) frames, and rows left out.

    A row with more labels (and repetitions, which need a blank between) than frames has no alignment: it is left out of
    the loss and counted, instead of making it infinite.
    """
    repeats = (labels[:, 1:] == labels[:, :-1]) & (
        torch.arange(1, labels.shape[1], device=labels.device)[None] < label_lengths[:, None]
    )
    fits = frames >= label_lengths + repeats.sum(1)
    log_probs_TBV = logits_BTV.float().log_softmax(-1).transpose(0, 1)
    losses_B = F.ctc_loss(
        log_probs_TBV, labels, frames, label_lengths, blank=blank, reduction="none", zero_infinity=True
    )  # fmt: skip
    count = (label_lengths * fits).sum().clamp(min=1)
    return (losses_B * fits).sum() / count, int((~fits).sum())


def unlike_length(x_ND: Tensor, length: float | Tensor) -> Tensor:
    """Mean square of the logarithm of how many times longer (or shorter) than `length` each row is, less the mean of all rows.

    Without the mean one vector for everything would do, and encoders find that: nano's eyes came to see nothing.
    """
    x_ND = x_ND.float()
    if len(x_ND) > 1:
        x_ND = x_ND - x_ND.mean(0)
    return (x_ND.norm(dim=1).clamp(min=1e-6) / length).log().square().mean()


def token_logprobs(hidden: Tensor, targets: Tensor, logits: Logits, *, chunk: int = 2048) -> Tensor:
    """Log-probability (B, T) of each target, 0 where it is IGNORE; memory as in answer_loss."""
    places = targets != IGNORE
    hidden_ND, target_N = hidden[places], targets[places]

    def part(hidden_ND: Tensor, target_N: Tensor) -> Tensor:
        return -F.cross_entropy(logits(hidden_ND).float(), target_N, reduction="none")

    keep = len(hidden_ND) <= chunk or not torch.is_grad_enabled()
    pieces = [
        part(h, t) if keep else checkpoint(part, h, t, use_reentrant=False)
        for h, t in zip(hidden_ND.split(chunk), target_N.split(chunk), strict=True)
    ]
    flat = torch.cat(pieces)
    return torch.zeros(targets.shape, dtype=flat.dtype, device=flat.device).masked_scatter(
        places, flat
    )


def sequence_logprobs(
    hidden: Tensor, targets: Tensor, logits: Logits, *, chunk: int = 2048
) -> tuple[Tensor, Tensor]:
    """Log-probability (B,) of each row's answer and its length in tokens (B,)."""
    scores_BT = token_logprobs(hidden, targets, logits, chunk=chunk)
    return scores_BT.sum(1), (targets != IGNORE).sum(1)


@dataclass(frozen=True, kw_only=True)
class Preference:
    """What DPO is told beside the two answers."""

    beta: float = 0.1
    """How strongly the policy is held to the reference."""
    per_token: bool = False
    """Length normalisation: compare log-ratios per token, so that a longer answer is not preferred for its length."""
    label_smoothing: float = 0.0
    """Share of pairs that are thought to be the wrong way round (conservative DPO)."""
    likelihood: float = 0.0
    """Weight of the chosen answer's negative log-likelihood per token: keeps its probability from sinking with the other's."""
    kl_limit: float = float("inf")
    """KL guard: distance to the reference, in nats a token, from where on `kl_weight` pulls back."""
    kl_weight: float = 1.0
    """Strength of the KL guard."""


def dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    lengths: tuple[Tensor, Tensor],
    preference: Preference = Preference(),
) -> tuple[Tensor, dict[str, Tensor]]:
    """-log sigmoid(beta * (log pi/ref of chosen - log pi/ref of rejected)), mean over B pairs  # Rafailov 2023, eq. 7

    The four log-probabilities (B,) are those of whole answers, `lengths` their tokens (chosen, rejected). Also gives what to
    watch: rewards, margin, accuracy, KL in nats a token (of both answers, positive estimate r - 1 - log r with
    r = ref / pi, Schulman 2020) and the difference in length.
    """
    ratios = [chosen - reference_chosen, rejected - reference_rejected]
    rates = [ratio / n.clamp(min=1) for ratio, n in zip(ratios, lengths, strict=True)]
    compared = rates if preference.per_token else ratios
    margin = preference.beta * (compared[0] - compared[1])
    smooth = preference.label_smoothing
    loss = (-F.logsigmoid(margin) * (1 - smooth) - F.logsigmoid(-margin) * smooth).mean()
    kl = torch.stack([torch.exp(-rate) - 1 + rate for rate in rates]).mean()
    if preference.likelihood:
        loss = loss - preference.likelihood * (chosen / lengths[0].clamp(min=1)).mean()
    if preference.kl_limit < float("inf"):
        loss = loss + preference.kl_weight * F.relu(kl - preference.kl_limit)
    seen = {
        "reward_chosen": preference.beta * compared[0].mean(),
        "reward_rejected": preference.beta * compared[1].mean(),
        "margin": margin.mean(),
        "accuracy": (margin > 0).float().mean(),
        "kl": kl,
        "longer": (lengths[0] - lengths[1]).float().mean(),
    }
    return loss, {name: value.detach() for name, value in seen.items()}
