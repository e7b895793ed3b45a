"""Drawing: logits (R, V) of R conversations -> their next tokens (R,), each with its own sampler, memory and generator.

Conversations with equal settings are drawn together; what they remember is joined once, when they meet, not at every token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thinktalk.thinker.sampling import Sampler, SamplerState

__all__ = ["Choice", "Drawing", "all_finite", "deal", "must_be_finite"]

NOT_FINITE = "reply: the model's numbers are not finite any more; begin again from an earlier turn"

MANY = 16  # settings whose companies are kept


@dataclass(eq=False)
class Choice:
    """How one conversation chooses tokens, and what it must remember for it."""

    sampler: Sampler
    seen: Tensor | None  # (1, V) bool, a view into the memory of those it is drawn with
    generators: list[torch.Generator]  # its own one; none when greedy

    @classmethod
    def start(
        cls, sampler: Sampler, vocab_size: int, *, seed: int, seen: Tensor, device: torch.device
    ) -> Choice:
        """Nothing chosen yet; `seen` (1, T) tokens count for the repetition penalty."""
        state = sampler.init_state(1, vocab_size, device=device, seeds=[seed])
        state.see(seen)
        return cls(sampler, state.seen, state.generators)


class Drawing:
    """Draws for whoever comes; keeps the joined memory of the companies it saw last."""

    def __init__(self) -> None:
        self._met: dict[Sampler, tuple[list[Choice], SamplerState]] = {}

    def draw(self, logits: Tensor, choices: Sequence[Choice]) -> Tensor:
        """The next token (R,) of each row of logits (R, V)."""
        first = choices[0].sampler
        if all(choice.sampler is first or choice.sampler == first for choice in choices):
            return first(logits, self._together(first, list(choices)))
        tokens = torch.empty(len(choices), dtype=torch.int64, device=logits.device)
        rows: dict[Sampler, list[int]] = {}
        for row, choice in enumerate(choices):
            rows.setdefault(choice.sampler, []).append(row)
        for sampler, own in rows.items():
            at = torch.tensor(own, device=logits.device)
            company = self._together(sampler, [choices[row] for row in own])
            tokens[at] = sampler(logits[at], company)
        return tokens

    def forget(self) -> None:
        """Nobody draws now: let go of what they left."""
        self._met.clear()

    def _together(self, sampler: Sampler, company: list[Choice]) -> SamplerState:
        known = self._met.get(sampler)
        if known is not None and known[0] == company:  # Choices compare by identity
            return known[1]
        generators = [generator for choice in company for generator in choice.generators]
        seen = None
        if company[0].seen is not None:
            seen = torch.cat([choice.seen for choice in company])
            for row, choice in enumerate(company):
                choice.seen = seen[row : row + 1]
        state = SamplerState(len(company), seen, generators)
        if len(self._met) >= MANY:
            self._met.clear()
        self._met[sampler] = (company, state)
        return state


# ------------------------------------------------------------------------------------------------- to each what is his own


def deal(
    replies: Sequence[Any], tokens_R: Tensor, finite_R: Tensor, accept: Callable[[Any, int], None]
) -> list[Exception | None]:
    """Give each reply its token, waiting for the device once; one whose own part fails does not stop the others."""
    errors: list[Exception | None] = []
    tokens, fine = torch.stack((tokens_R, finite_R.to(tokens_R.dtype))).tolist()
    for reply, token, is_fine in zip(replies, tokens, fine, strict=True):
        error: Exception | None = None
        if not is_fine:
            error = ArithmeticError(NOT_FINITE)
        elif reply.live:  # another one's listener may have ended this one meanwhile
            try:
                accept(reply, token)
            except Exception as own:
                error = own
        errors.append(error)
    return errors


def all_finite(hidden_RD: Tensor) -> tuple[Tensor, Tensor]:
    """The same without NaN and infinities, which must not reach the others' draws; and which rows (R,) had none."""
    return torch.nan_to_num(hidden_RD, 0.0, 0.0, 0.0), hidden_RD.isfinite().all(-1)


def must_be_finite(hidden_1D: Tensor) -> Tensor:
    """The same; ArithmeticError when it is not finite."""
    if not bool(hidden_1D.isfinite().all()):
        raise ArithmeticError(NOT_FINITE)
    return hidden_1D
