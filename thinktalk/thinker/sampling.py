"""Sampling: logits (B, V) float32 -> the next token of each row (B,), for text and for codes.

The reference's order: repetition penalty -> suppressed tokens -> temperature -> top-k -> top-p -> one draw.
Letters: B rows, V vocabulary, C candidates left by top-k.

A row has its own random generator and one uniform number a token: its draws do not depend on the rows beside it nor on the device.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thinktalk.config import GenerationConfig, TalkerConfig
from thinktalk.errors import ConfigError
from thinktalk.stream import State

__all__ = ["Sampler", "SamplerState", "unspeakable_codes"]

TIE_ROOM = 24  # tokens looked at beyond top_k, since those that tie with the k-th stay (half precision ties often)


@dataclass
class SamplerState(State):
    """What has been seen, and where each row's randomness stands."""

    batch: int
    seen: Tensor | None  # (B, V) bool tokens the repetition penalty knows; None without a penalty
    generators: list[torch.Generator]  # one a row, on the CPU; none when greedy

    def see(self, token_ids: Tensor) -> None:
        """Count tokens (B, T) as seen; prompts of unequal length may be padded with any token of the same row."""
        if self.seen is not None:
            self.seen.scatter_(1, token_ids.to(self.seen.device), True)

    def select(self, rows: Sequence[int]) -> SamplerState:
        """An independent state of the chosen rows."""
        seen = None if self.seen is None else self.seen[list(rows)]
        generators = [_copied(self.generators[row]) for row in rows if self.generators]
        return SamplerState(len(rows), seen, generators)

    def fork(self) -> SamplerState:
        return self.select(range(self.batch))

    def unstack(self) -> list[SamplerState]:
        return [self.select([row]) for row in range(self.batch)]

    def stack(self, others: Sequence[SamplerState]) -> SamplerState:
        states = [self, *others]
        known = [state.seen for state in states if state.seen is not None]
        drawn = [_copied(generator) for state in states for generator in state.generators]
        batch = sum(state.batch for state in states)
        assert len(known) in (0, len(states)), "rows with a repetition penalty and rows without"
        assert len(drawn) in (0, batch), "rows that draw and greedy rows"
        return SamplerState(batch, torch.cat(known) if known else None, drawn)


def _copied(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return copy


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """How the next token is chosen; settings only, all memory is in SamplerState.

    >>> sampler = Sampler(temperature=0.9, top_k=40, top_p=0.8, repetition_penalty=1.05)
    >>> ids = sampler(torch.randn(2, 1000), sampler.init_state(2, 1000, seeds=[0, 1]))
    """

    greedy: bool = False
    """The best token after penalty and suppression."""
    temperature: float = 1.0
    """Divides the logits."""
    top_k: int = 0
    """Tokens kept, those that tie with the last one too; 0 keeps all."""
    top_p: float = 1.0
    """Probability kept, from the most likely token down."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of seen tokens."""
    suppress: tuple[int, ...] = ()
    """Tokens never chosen."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(
                f"temperature {self.temperature} must be above 0; for the best token use greedy"
            )
        if self.top_k < 0:
            raise ConfigError(f"top_k {self.top_k} must be 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p {self.top_p} must be above 0 and at most 1")
        if not self.repetition_penalty > 0:
            raise ConfigError(f"repetition_penalty {self.repetition_penalty} must be above 0")

    @classmethod
    def for_text(cls, generation: GenerationConfig, *, greedy: bool = False) -> Sampler:
        """The Thinker's sampler; greedy unless the configuration samples."""
        return cls(
            greedy=greedy or not generation.text_sample, temperature=generation.text_temperature,
            top_k=generation.text_top_k, top_p=generation.text_top_p,
            repetition_penalty=generation.text_repetition_penalty,
        )  # fmt: skip

    @classmethod
    def for_codes(
        cls,
        generation: GenerationConfig,
        talker: TalkerConfig,
        *,
        num_codes: int,
        greedy: bool = False,
    ) -> Sampler:
        """The Talker's sampler: it never starts again and never says a code that has no sound."""
        return cls(
            greedy=greedy, temperature=generation.code_temperature, top_k=generation.code_top_k,
            top_p=generation.code_top_p, repetition_penalty=generation.code_repetition_penalty,
            suppress=unspeakable_codes(talker, num_codes),
        )  # fmt: skip

    def init_state(
        self,
        batch: int,
        vocab_size: int,
        *,
        device: torch.device | str | None = None,
        seeds: Sequence[int] | None = None,
    ) -> SamplerState:
        """Nothing seen; a generator for each row, from `seeds` or from the global generator."""
        seen = None
        if self.repetition_penalty != 1.0:
            with torch.inference_mode(False):
                seen = torch.zeros(batch, vocab_size, dtype=torch.bool, device=device)
        generators = []
        if not self.greedy:
            if seeds is None:
                seeds = torch.randint(2**62, (batch,)).tolist()
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            assert len(generators) == batch, f"{len(generators)} seeds for {batch} rows"
        return SamplerState(batch, seen, generators)

    def __call__(self, logits: Tensor, state: SamplerState) -> Tensor:
        """Choose from logits (B, V) and count the chosen tokens (B,) int64 as seen. The logits are left as they were."""
        scores = self.penalised(logits, state)
        chosen = scores.argmax(-1) if self.greedy else self._draw(scores, state)
        if state.seen is not None:
            state.see(chosen.unsqueeze(1))
        return chosen

    def penalised(self, logits: Tensor, state: SamplerState) -> Tensor:
        """Scores (B, V) after repetition penalty and suppression; a new tensor when either applies."""
        scores = logits.float()
        if state.seen is not None:
            penalty = self.repetition_penalty  # Keskar et al. 2019, with the sign mended
            scores = torch.where(
                state.seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores
            )
        if self.suppress:
            scores = scores.masked_fill(
                _mask(self.suppress, scores.shape[-1], scores.device), -torch.inf
            )
        return scores

    def candidates(self, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """Penalised scores (B, V) -> (B, C) scores of the candidates, -inf where not kept, and their ids (None: 0..V-1)."""
        scores = scores / self.temperature
        ids = None
        if 0 < self.top_k < (V := scores.shape[-1]):
            scores, ids = self._top_k(scores, V)
        if self.top_p < 1:
            if ids is None:
                scores, ids = scores.sort(-1, descending=True)
            # drop the tail whose probabilities sum to at most 1 - p; the first is always kept  # Holtzman et al. 2020
            tail = scores.flip(-1).softmax(-1).cumsum(-1).flip(-1)
            drop = tail <= 1 - self.top_p
            drop[:, 0] = False
            scores = scores.masked_fill(drop, -torch.inf)
        return scores, ids

    def _top_k(self, scores: Tensor, V: int) -> tuple[Tensor, Tensor]:
        best, ids = scores.topk(min(self.top_k + TIE_ROOM, V), -1)
        least = best[:, self.top_k - 1, None]
        if best.shape[1] < V and bool(
            (best[:, -1:] == least).any()
        ):  # more ties than there is room for
            best, ids = scores.sort(-1, descending=True)
        return best.masked_fill(best < least, -torch.inf), ids

    def _draw(self, scores: Tensor, state: SamplerState) -> Tensor:
        scores, ids = self.candidates(scores)
        cumulative = scores.softmax(-1, dtype=torch.float64).cumsum(-1)
        uniform = torch.cat(
            [torch.rand(1, 1, dtype=torch.float64, generator=g) for g in state.generators]
        )
        # the first candidate whose cumulative probability exceeds the number: those of probability 0 never do
        chosen = torch.searchsorted(
            cumulative, uniform.to(scores.device) * cumulative[:, -1:], right=True
        )
        return (chosen if ids is None else ids.gather(1, chosen)).squeeze(1)


@functools.lru_cache(maxsize=32)
def _mask(tokens: tuple[int, ...], vocab_size: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        mask = torch.zeros(vocab_size, dtype=torch.bool)
        mask[list(tokens)] = True
        return mask.to(device)


def unspeakable_codes(talker: TalkerConfig, num_codes: int) -> tuple[int, ...]:
    """Codec tokens that no sound belongs to (`num_codes` and up), but for the two that end speech."""
    ends = (talker.codec_pad, talker.codec_eos)
    return tuple(code for code in range(num_codes, talker.decoder.vocab_size) if code not in ends)
