"""Draws follow the distribution, and a row's draws are its own."""

from __future__ import annotations

import pytest
import torch

from thinktalk.config import nano, omni_7b
from thinktalk.errors import ConfigError
from thinktalk.stream import fork, stack, unstack
from thinktalk.thinker.sampling import Sampler, unspeakable_codes

V = 20
FULL = Sampler(temperature=0.9, top_k=12, top_p=0.9, repetition_penalty=1.3, suppress=(3,))


def drawn_logits(rows: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(rows, V, generator=torch.Generator().manual_seed(seed))


def test_draws_follow_the_distribution() -> None:
    sampler, logits, count = Sampler(top_k=6), drawn_logits(1), 3000
    state = sampler.init_state(1, V, seeds=[0])
    scores, ids = sampler.candidates(logits)
    expected = torch.zeros(V).scatter(0, ids[0], scores[0].softmax(-1))
    seen = torch.bincount(torch.cat([sampler(logits, state) for _ in range(count)]), minlength=V)
    assert (seen[expected == 0] == 0).all()
    # five standard deviations of a binomial share; the seed is fixed, so this never flickers
    bound = 5 * (expected * (1 - expected) / count).sqrt()
    assert ((seen / count - expected).abs() <= bound + 1e-9).all()
    skewed = expected.roll(1)  # the check finds another distribution
    assert not ((seen / count - skewed).abs() <= bound + 1e-9).all()


def test_a_row_draws_the_same_alone_and_in_a_batch() -> None:
    seeds, steps = [5, 6, 7], 12
    joint = FULL.init_state(3, V, seeds=seeds)
    together = torch.stack([FULL(drawn_logits(3, n), joint) for n in range(steps)], 1)
    for row, seed in enumerate(seeds):
        alone = FULL.init_state(1, V, seeds=[seed])
        own = [FULL(drawn_logits(3, n)[row : row + 1], alone) for n in range(steps)]
        assert torch.equal(torch.cat(own), together[row])
    assert not torch.equal(together[0], together[1])


def test_fork_stack_and_unstack_keep_draws_and_memory() -> None:
    state = FULL.init_state(2, V, seeds=[1, 2])
    FULL(drawn_logits(2), state)
    kept, parted = fork(state), stack(unstack(state))
    first = [FULL(drawn_logits(2, n), state) for n in range(1, 8)]
    for other in (kept, parted):
        assert all(torch.equal(a, FULL(drawn_logits(2, n), other)) for n, a in enumerate(first, 1))
    only_second = kept.select([1])
    assert only_second.batch == 1
    assert torch.equal(only_second.seen, kept.seen[1:])


def test_greedy_states_have_rows_too() -> None:
    greedy = Sampler(greedy=True)
    assert len(unstack(stack([greedy.init_state(2, V), greedy.init_state(1, V)]))) == 3


def test_greedy_is_the_argmax_after_penalty_and_suppression() -> None:
    sampler = Sampler(greedy=True, repetition_penalty=4.0, suppress=(2,))
    logits = torch.tensor([[1.0, 3.0, 9.0, 2.0, -5.0]])
    state = sampler.init_state(1, 5)
    assert sampler(logits, state).item() == 1  # 2 is suppressed
    assert sampler(logits, state).item() == 3  # 1 has been said: 3 / 4 < 2
    assert sampler(logits, state).item() == 0
    assert logits.tolist() == [[1.0, 3.0, 9.0, 2.0, -5.0]]


def test_a_penalty_makes_negative_logits_less_likely() -> None:
    sampler = Sampler(repetition_penalty=2.0)
    state = sampler.init_state(1, 2)
    state.see(torch.tensor([[0]]))
    assert sampler.penalised(torch.tensor([[-1.0, -1.5]]), state).tolist() == [[-2.0, -1.5]]


def test_probability_zero_is_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.full((1, V), -torch.inf)
    logits[0, 7] = 0.0
    for extreme in (0.0, 1 - 2**-53):  # the two ends of what rand gives
        monkeypatch.setattr(
            torch,
            "rand",
            lambda *a, value=extreme, **k: torch.full((1, 1), value, dtype=torch.float64),
        )
        sampler = Sampler()
        assert sampler(logits, sampler.init_state(1, V, seeds=[0])).item() == 7


@pytest.mark.parametrize(
    "bad", [dict(temperature=0.0), dict(temperature=float("nan")), dict(top_k=-1), dict(top_p=0.0), dict(top_p=1.1), dict(repetition_penalty=0)]
)  # fmt: skip
def test_settings_that_cannot_be(bad: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))) as caught:
        Sampler(**bad)
    assert "\n" not in str(caught.value)


def test_codes_without_a_sound_are_suppressed() -> None:
    big = omni_7b()
    suppressed = set(unspeakable_codes(big.talker, big.code2wav.dit.num_codes))
    assert 8192 not in suppressed
    assert {8193, 8293, 8296, 8447} <= suppressed
    assert suppressed.isdisjoint({8292, 8294})
    small = nano()
    assert set(unspeakable_codes(small.talker, small.code2wav.dit.num_codes)).isdisjoint(
        {1000, 1002, 1004}
    )


def test_samplers_of_the_configuration() -> None:
    big = omni_7b()
    assert Sampler.for_text(big.generation).greedy
    codes = Sampler.for_codes(big.generation, big.talker, num_codes=8193)
    assert (codes.greedy, codes.temperature, codes.top_k, codes.top_p) == (False, 0.9, 40, 0.8)
    assert codes.repetition_penalty == 1.05
    assert Sampler.for_codes(big.generation, big.talker, num_codes=8193, greedy=True).greedy
