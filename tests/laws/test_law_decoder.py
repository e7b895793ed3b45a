"""Thinker and Talker keep the streaming law: prompts in any pieces equal the whole text read at once."""

from __future__ import annotations

import pytest
import torch
from law import check_law, run_chunks

from thinktalk.config import DecoderConfig, TalkerConfig
from thinktalk.layers import decoder, kv_cache
from thinktalk.messages import Embedded
from thinktalk.talker.model import Talker
from thinktalk.thinker.model import Thinker

CONFIG = DecoderConfig(
    vocab_size=50, width=24, ffn_width=40, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, mrope_section=(1, 1, 2),
    max_positions=512,
)  # fmt: skip


def make_thinker() -> Thinker:
    torch.manual_seed(0)
    return Thinker(CONFIG).eval()


def make_talker() -> Talker:
    torch.manual_seed(1)
    return Talker(TalkerConfig(input_width=32, decoder=CONFIG)).eval()


def make_input(width: int):
    def make(batch: int, length: int, generator: torch.Generator) -> Embedded:
        embeds = torch.randn(batch, length, width, generator=generator, dtype=torch.float64)
        # as a video's: the three axes differ, ids repeat and jump
        positions = torch.randint(0, 60, (batch, 3, length), generator=generator)
        return Embedded(embeds, positions)

    return make


def test_thinker_keeps_the_law() -> None:
    check_law(
        make_thinker(), make_input(24), max_length=90
    )  # capacity grows twice: 64 slots a time


def test_talker_keeps_the_law() -> None:
    check_law(make_talker(), make_input(32), max_length=20, examples=8)


def test_long_prompts_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder.Decoder, "prefill_chunk", 7)
    check_law(make_thinker(), make_input(24), max_length=30, examples=8)


def nan_memory(shape: tuple[int, ...], **kwargs: object) -> torch.Tensor:
    return torch.full(shape, float("nan"), **kwargs)


def test_memory_full_of_nan_never_leaks() -> None:
    thinker, x = make_thinker().double(), make_input(24)(2, 70, torch.Generator().manual_seed(0))
    state = thinker.init_state(2, dtype=torch.float64, capacity=1, allocator=nan_memory)
    assert state.layers[0].k.isnan().all()
    joined = run_chunks(thinker, x, [3, 1, 1, 60, 5], state)
    torch.testing.assert_close(joined, thinker(x), rtol=0, atol=1e-10)  # float64 rounds at 1e-16


@pytest.mark.parametrize("fault", ["a slot too far", "one position for all", "a slot forgotten"])
def test_the_law_finds_planted_faults(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    thinker = make_thinker()
    if fault == "a slot too far":
        honest = kv_cache.DecoderState.advance
        monkeypatch.setattr(
            kv_cache.DecoderState,
            "advance",
            lambda self, new, valid=None: honest(self, new + 1, valid),
        )
    elif fault == "one position for all":
        honest_turn = Thinker.turn
        thinker.__class__ = type("Thinker", (Thinker,), {
            "turn": lambda self, positions, dtype: honest_turn(self, positions - positions[..., :1], dtype)
        })  # fmt: skip
    else:
        honest_reach = kv_cache.DecoderState.reach
        monkeypatch.setattr(
            kv_cache.DecoderState,
            "reach",
            lambda self, new, dtype: honest_reach(self, new, dtype)._replace(mask=None),
        )
    with pytest.raises(AssertionError):
        check_law(thinker, make_input(24), max_length=12, examples=3)
