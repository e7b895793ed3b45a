"""Key-value memory: rows of unequal length, growth, forks, and nothing that was never written is ever seen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from thinktalk.config import DecoderConfig
from thinktalk.layers.decoder import Decoder, join_rows, last_of
from thinktalk.layers.kv_cache import SLOT_ROUNDING, DecoderState
from thinktalk.messages import Embedded
from thinktalk.stream import fork, stack, unstack

WIDTH = 24
CONFIG = DecoderConfig(
    vocab_size=10, width=WIDTH, ffn_width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, mrope_section=(2, 1, 1)
)  # fmt: skip
EXACT = dict(
    rtol=0, atol=1e-10
)  # float64 rounds at 1e-16; a wrong slot moves these outputs by 1e-1


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(CONFIG).double().eval()


def nan_memory(shape: tuple[int, ...], **kwargs: object) -> Tensor:
    return torch.full(shape, float("nan"), **kwargs)


def fresh(decoder: Decoder, batch: int, **kwargs: object) -> DecoderState:
    return decoder.init_state(batch, allocator=nan_memory, **kwargs)


def text(length: int, seed: int = 0) -> Embedded:
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(1, length, WIDTH, generator=generator, dtype=torch.float64)
    return Embedded(embeds, torch.randint(0, 50, (1, 3, length), generator=generator))


def assert_equal(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, **EXACT)


def play_rows(decoder: Decoder, texts: list[Embedded], counts: list[list[int]]) -> list[Tensor]:
    """Rows stepped together, counts[step][row] tokens at a time, padding spoilt with NaN; hidden states of each row."""
    state, done = fresh(decoder, len(texts)), [0] * len(texts)
    out: list[list[Tensor]] = [[] for _ in texts]
    for step in counts:
        parts = [x.narrow(n, count) for x, n, count in zip(texts, done, step, strict=True)]
        x, valid = join_rows(parts)
        for row, count in enumerate(valid):
            x.embeds[row, count:] = float("nan")
        hidden = decoder.step(x, state, valid=valid)
        for row, count in enumerate(valid):
            out[row].append(hidden[row, :count])
            done[row] += count
    return [torch.cat(pieces) for pieces in out]


@given(
    counts=st.integers(2, 3).flatmap(
        lambda rows: st.lists(st.lists(st.integers(0, 6), min_size=rows, max_size=rows), min_size=1, max_size=7)
    )
)  # fmt: skip
def test_rows_of_unequal_length_equal_the_rows_alone(
    decoder: Decoder, counts: list[list[int]]
) -> None:
    lengths = [sum(step[row] for step in counts) for row in range(len(counts[0]))]
    texts = [text(length, seed) for seed, length in enumerate(lengths)]
    for x, own in zip(texts, play_rows(decoder, texts, counts), strict=True):
        assert_equal(own, decoder(x)[0].detach())


@pytest.mark.parametrize("fault", ["no mask", "no scatter", "padding counts"])
def test_planted_faults_in_unequal_rows_are_found(
    decoder: Decoder, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, counts = [text(9, 0), text(6, 1)], [[5, 2], [1, 1], [3, 3]]

    def check() -> None:
        for x, own in zip(texts, play_rows(decoder, texts, counts), strict=True):
            assert_equal(own, decoder(x)[0].detach())

    check()
    reach, advance = DecoderState.reach, DecoderState.advance
    if fault == "no mask":
        monkeypatch.setattr(DecoderState, "reach", lambda *args: reach(*args)._replace(mask=None))
    elif fault == "no scatter":
        monkeypatch.setattr(DecoderState, "reach", lambda *args: reach(*args)._replace(slots=None))
    else:
        monkeypatch.setattr(
            DecoderState, "advance", lambda self, new, valid=None: advance(self, new)
        )
    with pytest.raises(AssertionError):
        check()


def test_decoding_equal_rows_needs_no_mask(decoder: Decoder) -> None:
    state = fresh(decoder, 2)
    assert state.reach(5, torch.float64).mask is None  # a first prompt: plain causal
    state.advance(5)
    assert state.reach(1, torch.float64)[2:] == (None, None)  # a token: sees everything
    assert state.reach(2, torch.float64).mask.shape == (1, 1, 2, 7)
    state.advance(1, [1, 0])
    assert state.reach(1, torch.float64).mask.shape == (2, 1, 1, 7)


def test_memory_grows_by_half_at_least_and_keeps_what_it_holds(decoder: Decoder) -> None:
    x, sizes = text(400), []
    state = fresh(decoder, 1)
    pieces = []
    for n in range(400):
        pieces.append(decoder.step(x.narrow(n, 1), state))
        sizes.append(state.capacity)
    assert_equal(torch.cat(pieces, 1), decoder(x).detach())
    assert len(set(sizes)) <= 8
    assert all(size % SLOT_ROUNDING == 0 for size in sizes)
    roomy = fresh(decoder, 1, capacity=400)
    held = roomy.layers[0].k
    decoder.step(x, roomy)
    assert roomy.layers[0].k is held  # enough room was asked for: nothing moved
    assert roomy.num_bytes == 4 * held.nbytes


def test_a_fork_copies_only_what_is_used(decoder: Decoder) -> None:
    state = fresh(decoder, 1, capacity=1000)
    decoder.step(text(10), state)
    assert fork(state).capacity == SLOT_ROUNDING


def test_states_of_unequal_length_stack_and_part_again(decoder: Decoder) -> None:
    texts = [text(70, 0), text(3, 1), text(20, 2)]
    states = [fresh(decoder, 1) for _ in texts]
    for x, state in zip(texts, states, strict=True):
        decoder.step(x.narrow(0, x.length - 2), state)
    joint = stack(states)
    assert joint.rows == (68, 1, 18)
    assert joint.length.tolist() == [68, 1, 18]
    token, _ = join_rows([x.narrow(x.length - 2, 1) for x in texts])
    hidden = decoder.step(token, joint)
    parted = unstack(joint)
    assert [part.capacity for part in parted] == [128, 64, 64]
    for row, (x, part) in enumerate(zip(texts, parted, strict=True)):
        whole = decoder(x).detach()
        assert_equal(hidden[row], whole[0, -2:-1])
        assert_equal(decoder.step(x.narrow(x.length - 1, 1), part), whole[:, -1:])
    chosen = joint.select([2, 0])
    assert chosen.rows == (19, 69)
    last, _ = join_rows([texts[n].narrow(texts[n].length - 1, 1) for n in (2, 0)])
    assert_equal(decoder.step(last, chosen)[1], decoder(texts[0])[0, -1:].detach())


def test_trim_forgets_the_end(decoder: Decoder) -> None:
    x, state = text(12), fresh(decoder, 2)
    both = Embedded(x.embeds.expand(2, -1, -1), x.positions.expand(2, -1, -1))
    decoder.step(both, state)
    state.trim([12, 7])
    assert state.rows == (12, 7)
    state.trim(9)
    assert state.rows == (9, 7)
    assert state.length.tolist() == [9, 7]
    state.trim(7)
    again = decoder.step(both.narrow(7, 5), state)
    assert_equal(again, decoder(both)[:, 7:].detach())


def test_memory_made_inside_inference_mode_may_be_stepped_outside(decoder: Decoder) -> None:
    x = text(6)
    with torch.inference_mode():
        state = decoder.init_state(1)
        decoder.step(x.narrow(0, 4), state)
        kept = fork(state)
    for other in (state, kept):
        assert_equal(decoder.step(x.narrow(4, 2), other), decoder(x)[:, 4:].detach())


def test_a_step_builds_no_graph(decoder: Decoder) -> None:
    state = decoder.init_state(1)
    assert not decoder.step(text(3), state).requires_grad
    assert not state.layers[0].k.requires_grad


def test_last_of_unequal_rows() -> None:
    hidden = torch.arange(12.0).view(2, 3, 2)
    assert last_of(hidden).tolist() == [[4, 5], [10, 11]]
    assert last_of(hidden, [1, 3]).tolist() == [[0, 1], [10, 11]]
