"""The mel of the sound to be made, against a plain one written with numpy's FFT."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thinktalk.config import SpeechMelConfig, nano, omni_7b
from thinktalk.layers.mel import mel_filter_bank, speech_mel


def plain(pcm: np.ndarray, config: SpeechMelConfig, *, shift: int = 0) -> np.ndarray:
    """Frame by frame, float64; `shift` moves the windows (the planted fault)."""
    n, hop = config.n_fft, config.hop
    frames = len(pcm) // hop
    padded = np.pad(pcm[: frames * hop], (n - hop) // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    bands = mel_filter_bank(config.num_mels, n, config.sample_rate).numpy()
    rows = []
    for t in range(frames):
        start = max(0, t * hop - shift)
        spectrum = np.abs(np.fft.rfft(padded[start : start + n] * hann))
        rows.append(np.log(np.maximum(np.sqrt(spectrum**2 + 1e-9) @ bands, 1e-5)))
    return np.stack(rows, 1)


def sound(samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(samples, dtype=torch.float64)
    return 0.3 * torch.sin(steps**1.3 / 50) + 0.01 * torch.randn(samples, generator=generator).double()  # fmt: skip


@pytest.mark.parametrize("config", [omni_7b().code2wav.mel, nano().code2wav.mel])
def test_speech_mel_is_the_plain_one(config):
    pcm = sound(9 * config.hop + 17)
    ours = speech_mel(pcm[None], config)[0].numpy()
    assert ours.shape == (80, 9)
    # float64 and the same formula: only the order of sums differs
    np.testing.assert_allclose(ours, plain(pcm.numpy(), config), atol=1e-9)
    # ... and it would notice another sound, or windows that stand elsewhere
    assert np.abs(ours - speech_mel(0.9 * pcm[None], config)[0].numpy()).max() > 1e-2
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(ours, plain(pcm.numpy(), config, shift=1), atol=1e-9)


def test_rates_follow_the_configuration():
    assert omni_7b().code2wav.mel.frames_per_second == 100
    assert nano().code2wav.mel.frames_per_second == 50 and nano().code2wav.mel.n_fft == 1920


@pytest.mark.parametrize("samples", [0, 1, 239, 240, 300, 500, 1201])
def test_short_sounds(samples):
    mel = speech_mel(torch.zeros(2, samples))
    assert mel.shape == (2, 80, samples // 240)
    # all bands at the floor: sqrt(1e-9) = 3e-5 summed over a narrow band is still near 1e-5
    assert mel.isfinite().all() and (mel < -7).all()


def test_silence_has_a_gradient():
    """|X| has no slope at 0; a vocoder that starts silent must still learn."""
    pcm = torch.zeros(1, 2400, requires_grad=True)
    speech_mel(pcm).sum().backward()
    assert pcm.grad.isfinite().all()
