"""The streaming law of speech: codes in any pieces give the same wave, windows, noise and vocoder included."""

from __future__ import annotations

import pytest
import torch
from law import check_law
from torch import Tensor, nn

from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.speaker import Voice
from thinktalk.code2wav.streaming import Speech, SpeechState, Windows
from thinktalk.code2wav.windows import Cut
from thinktalk.config import BigVGANConfig, Code2WavConfig, DiTConfig, SpeakerEncoderConfig

CONFIG = Code2WavConfig(
    dit=DiTConfig(
        width=16, num_layers=3, num_heads=2, head_dim=8, code_width=8, num_codes=50, block_frames=6, num_mels=16,
        look_ahead_layers=(1,), look_backward_layers=(0,), speaker_width=4,
        speaker=SpeakerEncoderConfig(
            out_width=6, channels=(8, 8, 8, 16), kernels=(5, 3, 3, 1), dilations=(1, 2, 3, 1), attention_channels=4, se_channels=4
        ),
    ),
    vocoder=BigVGANConfig(
        num_mels=16, initial_channels=16, upsample_rates=(3, 2), upsample_kernels=(7, 4), resblock_kernels=(3,), resblock_dilations=((1, 2),)
    ),
)  # fmt: skip
FLOW = dict(points=3, method="midpoint")
CODES = 3 * (1 + 2 + 3 + 3) + 2  # four windows and a bit: groups (1, 2, 3, 3) of blocks of 3 codes
VOICE = Voice(
    "v", torch.ones(1, 4), torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(1)), 0
)


class Solo(Speech):
    """Every row speaks with one voice and one seed, as the law wants it of rows."""

    def init_state(self, batch: int, *, device=None, dtype=None, allocator=None) -> SpeechState:  # type: ignore[override]
        return super().init_state(batch, voice=VOICE, seed=3)


def make_speech(windows: Windows, kind: type[Speech] = Solo) -> Speech:
    """Weights of gain 1, or the wave would not hear the codes; float64 from the start, the flow's plan too."""
    torch.manual_seed(0)
    dit, vocoder = DiT(CONFIG.dit).double(), BigVGAN(CONFIG.vocoder).double()
    with torch.no_grad():
        for module in (dit, vocoder):
            for name, p in module.named_parameters():
                fan_in = p.shape[0] * p.shape[-1] // 2 if "ups." in name else p[0].numel()
                std = 0.3 if p.ndim == 1 else 1.0 if "codes" in name else fan_in**-0.5
                nn.init.normal_(p, std=std)
        vocoder.conv_post.weight.mul_(0.02)
    return kind(dit, vocoder, CONFIG, windows=windows)


def codes(batch: int, length: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 51, (batch, length), generator=generator)


REMEMBERS = Windows(groups=(1, 2, 3), **FLOW)


@pytest.mark.parametrize(
    "windows",
    [
        REMEMBERS,
        Windows(look_back_blocks=2, groups=(1, 2, 3), **FLOW),
        Windows(look_ahead_blocks=0, groups=(2,), vocoder_lookahead=3, guidance=0.0, **FLOW),
        Windows(look_back_blocks=0, look_ahead_blocks=2, groups=(1, 3), vocoder_lookahead=99, **FLOW),
    ],
    ids=["remembers", "looks back", "waits for nothing", "looks ahead"],
)  # fmt: skip
def test_speech_streams(windows: Windows) -> None:
    check_law(make_speech(windows), codes, max_length=CODES, examples=4)


class Hasty(Solo):
    """Planted: a window runs as soon as its own blocks are there, with as much look-ahead as happens to be there."""

    def wants(self, state: SpeechState) -> int:
        _, stop = self.windows.own(state.window)
        missing = stop * self.config.dit.block_codes - self._received(state)
        return 0 if state.closed else max(0, missing)


class OneGenerator(Solo):
    """Planted: noise comes from a generator that lives in the module, so one stream's noise depends on another's."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seeds = [0]

    def _draw(self, state: SpeechState, frames: int) -> None:
        self.seeds[0] += 1
        generator = torch.Generator().manual_seed(self.seeds[0]).get_state()
        state.generator = generator.expand(len(state.codes), -1)
        super()._draw(state, frames)


class SharedPast(Solo):
    """Planted: what was heard is kept in the module, where other streams overwrite it."""

    def _cut(self, state: SpeechState) -> Cut:
        state.past = self.__dict__.get("kept") if state.window else None
        return super()._cut(state)

    def _go_on(self, state: SpeechState, cut: Cut, past: Tensor | None) -> None:
        super()._go_on(state, cut, past)
        self.__dict__["kept"] = past


@pytest.mark.parametrize(
    ("fault", "broken"), [(Hasty, "law"), (OneGenerator, "law"), (SharedPast, "fork|rows|constancy")]
)  # fmt: skip
def test_planted_faults(fault: type[Speech], broken: str) -> None:
    with pytest.raises(AssertionError, match=broken):
        check_law(make_speech(REMEMBERS, fault), codes, max_length=CODES, examples=0)
