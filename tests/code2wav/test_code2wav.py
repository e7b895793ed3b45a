"""Code2Wav: faces, seeds, batches, long mels in windows."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from thinktalk.code2wav import model as model_module
from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.model import Code2Wav
from thinktalk.code2wav.speaker import Voice
from thinktalk.config import tiny


@pytest.fixture(scope="module")
def code2wav() -> Code2Wav:
    config = tiny().code2wav
    assert config is not None
    config = dataclasses.replace(config, vocoder=dataclasses.replace(config.vocoder, initial_channels=64))  # fmt: skip
    torch.manual_seed(0)
    model = Code2Wav(DiT(config.dit), BigVGAN(config.vocoder), config)
    with torch.no_grad():
        for p in model.vocoder.parameters():
            if p.ndim > 1:
                p.normal_(std=p[0].numel() ** -0.5)
        model.vocoder.conv_post.weight.mul_(0.02)
    return model


def draw(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


VOICE = Voice("v", draw(1, 192), draw(1, 30, 80), 0)
FAST = {"points": 2, "method": "euler"}


def test_shapes(code2wav: Code2Wav) -> None:
    codes = torch.arange(5)
    assert code2wav(codes, VOICE, **FAST).shape == (5 * 480,)
    assert code2wav(codes.expand(3, 5), VOICE, **FAST).shape == (3, 5 * 480)
    assert code2wav(codes.int(), VOICE, **FAST).dtype == torch.float32


def test_no_codes_no_sound(code2wav: Code2Wav) -> None:
    """The reference ends in a reshape error when the Talker stops at once."""
    assert code2wav(torch.zeros(0, dtype=torch.long), VOICE).shape == (0,)
    assert code2wav(torch.zeros(2, 0, dtype=torch.long), VOICE).shape == (2, 0)
    waves = code2wav.speak([torch.arange(0), torch.arange(3)], [VOICE, VOICE], **FAST)
    assert [len(w) for w in waves] == [0, 3 * 480]


def test_a_seed_fixes_the_wave(code2wav: Code2Wav) -> None:
    codes = torch.arange(6)

    def say(seed: int) -> torch.Tensor:
        return code2wav(codes, VOICE, generator=torch.Generator().manual_seed(seed), **FAST)

    assert torch.equal(say(1), say(1))
    assert not torch.equal(say(1), say(2))
    noise = torch.randn(12, 80, generator=torch.Generator().manual_seed(1))
    assert torch.equal(code2wav(codes, VOICE, noise=noise, **FAST), say(1))


def test_unequal_batch_is_each_alone(code2wav: Code2Wav) -> None:
    lengths = (3, 14, 8)
    said = [torch.arange(n) + n for n in lengths]
    noise = [draw(2 * n, 80, seed=n) for n in lengths]
    together = code2wav.speak(said, [VOICE] * 3, noise=noise, **FAST)
    for wave, c, z in zip(together, said, noise, strict=True):
        alone = code2wav(c, VOICE, noise=z, **FAST)
        assert (wave - alone).abs().max() <= 1e-5  # float32 sums in another order


def test_long_mels_go_through_in_windows(code2wav: Code2Wav, monkeypatch) -> None:
    mel = draw(1, 80, 130) - 3
    with torch.inference_mode():
        whole = code2wav.vocoder(mel)
    monkeypatch.setattr(model_module, "WINDOW_FRAMES", 50)
    assert whole.std() > 1e-3
    assert (code2wav.vocode(mel) - whole).abs().max() <= 1e-5  # float32 sums in another order
    monkeypatch.setattr(code2wav.vocoder, "left", 3)  # planted: too little context
    assert (code2wav.vocode(mel) - whole).abs().max() > 1e-4


def test_a_voice_moves(code2wav: Code2Wav) -> None:
    moved = VOICE.to("cpu", torch.float64)
    assert moved.cond.dtype == moved.ref_mel.dtype == torch.float64
    assert moved.name == "v"
