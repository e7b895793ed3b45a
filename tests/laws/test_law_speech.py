"""The streaming law of speech: codes in any pieces give the same wave, windows, noise and vocoder included."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from law import check_law
from torch import Tensor, nn

from thinktalk.code2wav import streaming
from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.speaker import Voice
from thinktalk.code2wav.streaming import Speech, SpeechState, Windows
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


@pytest.mark.parametrize(
    ("back", "ahead", "groups", "vocoder_lookahead"),
    [(None, 1, (1, 2, 3), None), (2, 1, (1, 2, 3), None), (1, 0, (2,), 0), (0, 2, (1, 3), 99)],
)
def test_speech_streams(back: int | None, ahead: int, groups: Sequence[int], vocoder_lookahead: int | None) -> None:  # fmt: skip
    windows = Windows(
        look_back_blocks=back, look_ahead_blocks=ahead, groups=tuple(groups), vocoder_lookahead=vocoder_lookahead, **FLOW
    )  # fmt: skip
    check_law(make_speech(windows), codes, max_length=CODES, examples=6)
