"""Losses equal their formulas written out, on random tensors; what is not an answer teaches nothing."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.config import tiny
from thinktalk.messages import Embedded
from thinktalk.thinker.model import Thinker
from thinktalk.training import losses as ours
from thinktalk.training.losses import IGNORE, Preference, answer_loss, ctc, dpo, next_tokens

TIGHT = dict(rtol=1e-5, atol=1e-6)  # float32 sums of a few hundred terms in another order


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, nn.Linear]:
    torch.manual_seed(0)
    hidden = torch.randn(3, 11, 8, requires_grad=True)
    targets = torch.randint(0, 20, (3, 11))
    targets[torch.rand(3, 11) < 0.4] = IGNORE
    return hidden, targets, nn.Linear(8, 20)


def test_next_tokens_are_answers_of_the_same_dialogue():
    ids = torch.tensor([[10, 11, 12, 13, 20, 21, 22]])
    answer = torch.tensor([[0, 0, 1, 1, 1, 0, 1]])
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    alone = next_tokens(ids, answer)
    assert alone.tolist() == [[IGNORE, 12, 13, 20, IGNORE, 22, IGNORE]]
    packed = next_tokens(ids, answer, segments)
    assert packed.tolist() == [[IGNORE, 12, 13, IGNORE, IGNORE, 22, IGNORE]]


@pytest.mark.parametrize("chunk", [1, 7, 2048])
def test_answer_loss_is_cross_entropy_over_answers(batch, chunk: int):
    hidden, targets, head = batch
    loss, weight = answer_loss(hidden, targets, head, chunk=chunk)
    grad, *head_grads = torch.autograd.grad(loss, [hidden, *head.parameters()])
    plain = F.cross_entropy(head(hidden).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    expected, *expected_head = torch.autograd.grad(plain, [hidden, *head.parameters()])
    torch.testing.assert_close(loss, plain, **TIGHT)
    torch.testing.assert_close(grad, expected, **TIGHT)
    torch.testing.assert_close(head_grads, expected_head, **TIGHT)
    assert weight == (targets != IGNORE).sum()
    assert not grad[targets == IGNORE].any()


def test_answer_loss_is_transformers_loss_of_a_thinker():
    """transformers' ForCausalLMLoss shifts and averages as we do; a whole tiny Thinker, gradients and all."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    torch.manual_seed(1)
    thinker = Thinker(tiny().thinker.text)
    ids = torch.randint(0, 500, (2, 9))
    answer = torch.zeros(2, 9).bool()
    answer[0, 4:], answer[1, 2:6] = True, True
    positions = torch.arange(9).expand(2, 3, 9)

    def hidden() -> Tensor:
        return thinker(Embedded(embeds=thinker.embed(ids), positions=positions))

    loss, _ = answer_loss(hidden(), next_tokens(ids, answer), thinker.logits, chunk=3)
    labels = ids.masked_fill(~answer, IGNORE)
    reference = ForCausalLMLoss(thinker.logits(hidden()), labels, vocab_size=tiny().thinker.text.vocab_size)  # fmt: skip
    torch.testing.assert_close(loss, reference, **TIGHT)
    wrong, _ = answer_loss(hidden(), labels, thinker.logits)  # planted: the shift forgotten
    with pytest.raises(AssertionError):
        torch.testing.assert_close(wrong, reference, **TIGHT)


def test_weights_and_no_answer(batch):
    hidden, targets, head = batch
    weights = torch.rand(3, 11) + 0.5
    loss, weight = answer_loss(hidden, targets, head, weights=weights)
    each = F.cross_entropy(head(hidden).transpose(1, 2), targets, ignore_index=IGNORE, reduction="none")  # fmt: skip
    expected = (each * weights).sum() / (weights * (targets != IGNORE)).sum()
    torch.testing.assert_close(loss, expected, **TIGHT)
    nothing, weight = answer_loss(hidden, torch.full_like(targets, IGNORE), head)
    assert nothing == 0 and weight == 0
    assert not torch.autograd.grad(nothing, hidden)[0].any()


def alignments(logits_TV: Tensor, labels: list[int]) -> Tensor:
    """-log of the sum over every path that collapses to the labels, one by one."""
    log_probs, paths = logits_TV.log_softmax(-1), []
    for path in itertools.product(range(logits_TV.shape[1]), repeat=len(logits_TV)):
        if [k for k, _ in itertools.groupby(path) if k != 0] == labels:
            paths.append(sum(log_probs[t, k] for t, k in enumerate(path)))
    return -torch.logsumexp(torch.stack(paths), 0)


def test_ctc_sums_over_every_alignment():
    torch.manual_seed(2)
    logits = torch.randn(3, 5, 3)
    labels, sizes = torch.tensor([[1, 2], [1, 1], [2, 0]]), torch.tensor([2, 2, 1])
    frames = torch.tensor([5, 4, 3])
    loss, left_out = ctc(logits, frames, labels, sizes)
    rows = [alignments(logits[i, :n], labels[i, :m].tolist()) for i, (n, m) in enumerate(zip(frames, sizes, strict=True))]  # fmt: skip
    torch.testing.assert_close(loss, torch.stack(rows).sum() / 5, **TIGHT)
    assert left_out == 0
    with pytest.raises(AssertionError):  # planted: padding taken for frames
        torch.testing.assert_close(ctc(logits, torch.full((3,), 5), labels, sizes)[0], loss, **TIGHT)  # fmt: skip


def test_ctc_leaves_out_what_cannot_be_aligned():
    torch.manual_seed(3)
    logits = torch.randn(2, 4, 3, requires_grad=True)
    labels = torch.tensor([[1, 1, 2], [1, 2, 1]])  # 1 1 2 needs four frames, of three
    sizes, frames = torch.tensor([3, 3]), torch.tensor([3, 3])
    loss, left_out = ctc(logits, frames, labels, sizes)
    assert left_out == 1
    torch.testing.assert_close(loss, alignments(logits[1, :3], [1, 2, 1]) / 3, **TIGHT)
    grad = torch.autograd.grad(loss, logits)[0]
    assert torch.isfinite(grad).all() and not grad[0].any()


def test_sequence_logprobs(batch):
    hidden, targets, head = batch
    scores, lengths = ours.sequence_logprobs(hidden, targets, head, chunk=4)
    log_probs = head(hidden).log_softmax(-1)
    for row in range(3):
        places = [t for t in range(11) if targets[row, t] != IGNORE]
        expected = sum(log_probs[row, t, targets[row, t]] for t in places)
        torch.testing.assert_close(scores[row], expected, **TIGHT)
        assert lengths[row] == len(places)


@pytest.fixture
def pairs() -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
    torch.manual_seed(4)
    scores = [-torch.rand(6, dtype=torch.float64) * 20 for _ in range(4)]
    return scores, (torch.randint(5, 30, (6,)), torch.randint(5, 30, (6,)))


def test_dpo_is_the_formula(pairs):
    """Rafailov 2023, eq. 7, as TRL's sigmoid loss computes it: logits = (pi_w - pi_l) - (ref_w - ref_l)."""
    (win, lose, ref_win, ref_lose), lengths = pairs
    loss, seen = dpo(win, lose, ref_win, ref_lose, lengths, Preference(beta=0.3))
    logits = (win - lose) - (ref_win - ref_lose)
    torch.testing.assert_close(loss, -torch.log(1 / (1 + torch.exp(-0.3 * logits))).mean())
    assert seen["accuracy"] == (logits > 0).float().mean()
    smooth, _ = dpo(win, lose, ref_win, ref_lose, lengths, Preference(beta=0.3, label_smoothing=0.1))  # fmt: skip
    expected = (-F.logsigmoid(0.3 * logits) * 0.9 - F.logsigmoid(-0.3 * logits) * 0.1).mean()
    torch.testing.assert_close(smooth, expected)
    with pytest.raises(AssertionError):  # planted: the reference's answers exchanged
        torch.testing.assert_close(dpo(win, lose, ref_lose, ref_win, lengths, Preference(beta=0.3))[0], loss)  # fmt: skip


def test_length_normalisation_takes_the_length_out(pairs):
    _, (n, m) = pairs
    rate_win, rate_lose = torch.full((6,), -0.5), torch.full((6,), -0.7)
    zero = torch.zeros(6)
    per_token = Preference(per_token=True)
    short, _ = dpo(rate_win * n, rate_lose * m, zero, zero, (n, m), per_token)
    long, _ = dpo(rate_win * 3 * n, rate_lose * 5 * m, zero, zero, (3 * n, 5 * m), per_token)
    torch.testing.assert_close(short, long)
    summed = [dpo(rate_win * k * n, rate_lose * k * m, zero, zero, (k * n, k * m))[0] for k in (1, 3)]  # fmt: skip
    with pytest.raises(AssertionError):  # whole answers: the longer pair is surer
        torch.testing.assert_close(*summed)


def test_guards_pull_back(pairs):
    (win, lose, ref_win, ref_lose), lengths = pairs
    plain, seen = dpo(win, lose, ref_win, ref_lose, lengths)
    assert seen["kl"] > 0
    same, unmoved = dpo(win, lose, win, lose, lengths)
    assert unmoved["kl"] == 0
    torch.testing.assert_close(same, torch.tensor(2.0, dtype=torch.float64).log())
    limit = float(seen["kl"]) / 2
    guarded, _ = dpo(win, lose, ref_win, ref_lose, lengths, Preference(kl_limit=limit, kl_weight=3))
    torch.testing.assert_close(guarded - plain, 3 * (seen["kl"] - limit))
    free, _ = dpo(win, lose, ref_win, ref_lose, lengths, Preference(kl_limit=limit * 3, kl_weight=3))  # fmt: skip
    torch.testing.assert_close(free, plain)
    likely, _ = dpo(win, lose, ref_win, ref_lose, lengths, Preference(likelihood=0.2))
    torch.testing.assert_close(likely - plain, -0.2 * (win / lengths[0]).mean())


def test_one_vector_for_everything_is_not_of_the_right_length():
    """Spread about their mean as far as asked costs nothing, wherever that mean is; the same vector everywhere costs much."""
    spread = torch.cat((3.0 * torch.eye(6), -3.0 * torch.eye(6)))
    assert float(ours.unlike_length(spread, 3.0)) == pytest.approx(0, abs=1e-9)
    assert float(ours.unlike_length(spread + 5, 3.0)) == pytest.approx(0, abs=1e-6)
    assert float(ours.unlike_length(2 * spread, 3.0)) == pytest.approx(math.log(2) ** 2, rel=1e-5)
    assert float(ours.unlike_length(spread[:1].expand(12, -1), 3.0)) > 100
