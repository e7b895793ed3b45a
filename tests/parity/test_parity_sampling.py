"""Sampling against transformers' processors: the same distribution for any settings, ties included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from thinktalk.thinker import sampling
from thinktalk.thinker.sampling import Sampler

V = 97
TOLERANCE = (
    1e-6  # probabilities: float32 softmax over the candidates here, over the vocabulary there
)


def their_distribution(logits: Tensor, history: Tensor, sampler: Sampler) -> Tensor:
    """In the order transformers' generate builds the list."""
    steps = LogitsProcessorList()
    if sampler.repetition_penalty != 1.0:
        steps.append(RepetitionPenaltyLogitsProcessor(sampler.repetition_penalty))
    if sampler.suppress:
        steps.append(SuppressTokensLogitsProcessor(list(sampler.suppress)))
    steps.append(TemperatureLogitsWarper(sampler.temperature))
    if sampler.top_k:
        steps.append(TopKLogitsWarper(sampler.top_k))
    if sampler.top_p < 1:
        steps.append(TopPLogitsWarper(sampler.top_p))
    return steps(history, logits.clone()).softmax(-1)


def our_distribution(logits: Tensor, history: Tensor, sampler: Sampler) -> Tensor:
    state = sampler.init_state(len(logits), V, seeds=range(len(logits)))
    state.see(history)
    scores, ids = sampler.candidates(sampler.penalised(logits, state))
    probabilities = scores.softmax(-1)
    return probabilities if ids is None else torch.zeros_like(logits).scatter(1, ids, probabilities)


def assert_same_distribution(logits: Tensor, history: Tensor, sampler: Sampler) -> None:
    ours, theirs = (f(logits, history, sampler) for f in (our_distribution, their_distribution))
    gap = (ours - theirs).abs().max().item()
    assert gap <= TOLERANCE, f"{sampler}: probabilities differ by {gap}"


samplers = st.builds(
    Sampler,
    temperature=st.floats(0.3, 2.0),
    top_k=st.sampled_from([0, 1, 2, 5, 40, V, V + 9]),
    top_p=st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.05, 1.7, 0.6]),
    suppress=st.lists(st.integers(0, V - 1), max_size=20, unique=True).map(tuple),
)


@given(sampler=samplers, seed=st.integers(0, 2**16))
@settings(max_examples=100)
def test_same_distribution(sampler: Sampler, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, V, generator=generator)
    history = torch.randint(0, V, (2, 11), generator=generator)
    assert_same_distribution(logits, history, sampler)


@given(
    seed=st.integers(0, 2**16), top_k=st.sampled_from([1, 3, 40]), levels=st.sampled_from([2, 30])
)
def test_tokens_that_tie_with_the_last_one_stay(seed: int, top_k: int, levels: int) -> None:
    """Half-precision heads tie often: up to 24 ties fit beside top_k, more take the long way."""
    logits = torch.randint(0, levels, (2, V), generator=torch.Generator().manual_seed(seed)).float()
    assert_same_distribution(logits, torch.zeros(2, 1, dtype=torch.int64), Sampler(top_k=top_k))


def test_every_setting_matters() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, V, generator=generator)
    history = logits.topk(3).indices  # the likely ones have been said
    full = dict(
        temperature=0.9, top_k=40, top_p=0.8, repetition_penalty=1.5, suppress=(int(history[0, 0]),)
    )
    base = our_distribution(logits, history, Sampler(**full))
    for name, other in dict(
        temperature=1.1, top_k=2, top_p=0.6, repetition_penalty=1.2, suppress=()
    ).items():
        moved = our_distribution(logits, history, Sampler(**{**full, name: other}))
        assert (moved - base).abs().max() > 100 * TOLERANCE, name
    assert (
        our_distribution(logits, history.flip(0), Sampler(**full)) - base
    ).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    "fault", ["ties dropped", "sign of the penalty", "nucleus from the wrong end"]
)
def test_planted_faults_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randint(-8, 8, (2, V), generator=torch.Generator().manual_seed(0)).float()
    history = torch.arange(20).expand(2, 20)
    sampler = Sampler(top_k=9, repetition_penalty=1.3)
    if fault == "ties dropped":
        monkeypatch.setattr(
            Sampler, "_top_k", lambda self, scores, size: tuple(scores.topk(self.top_k))
        )
    elif fault == "sign of the penalty":
        monkeypatch.setattr(
            Sampler,
            "penalised",
            lambda self, x, state: torch.where(state.seen, x / self.repetition_penalty, x),
        )
        sampler = Sampler(repetition_penalty=1.3)
    else:
        logits = 3 * torch.randn(2, V, generator=torch.Generator().manual_seed(0))
        sampler = Sampler(top_p=0.7)
        monkeypatch.setattr(sampling.Tensor, "flip", lambda self, dim: self)
    with pytest.raises(AssertionError):
        assert_same_distribution(logits, history, sampler)
