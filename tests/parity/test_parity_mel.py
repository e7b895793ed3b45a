"""log_mel against WhisperFeatureExtractor as the reference uses it: every clip padded with zeros to 300 s."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank as reference_bank

from thinktalk.layers import mel as mel_module
from thinktalk.layers.mel import log_mel, mel_filter_bank, num_frames

TOLERANCE = (
    1e-5  # same operations in float32; log10 of a power turns 1e-7 relative into 1e-7 absolute
)
SECONDS = 12  # the reference pads to 300 s; zeros beyond the clip change nothing, so pad to 12 s and save time


@functools.cache
def extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=128, chunk_length=SECONDS)


def reference_mel(pcm: np.ndarray) -> np.ndarray:
    out = extractor()(pcm, sampling_rate=16_000, return_attention_mask=True)
    return out["input_features"][0][:, : int(out["attention_mask"].sum())]


def clip(samples: int, *, loud_end: bool = False) -> np.ndarray:
    rng = np.random.default_rng(samples)
    pcm = rng.standard_normal(samples) * np.linspace(0.01, 0.3, samples)
    if loud_end:
        pcm[-min(samples, 30) :] *= 10
    return pcm.astype(np.float32)


def compare(pcm: np.ndarray) -> None:
    ours, theirs = log_mel(torch.from_numpy(pcm)[None])[0].numpy(), reference_mel(pcm)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE


BORDERS = [1, 2, 3, 150, 159, 160, 161, 199, 200, 201, 320, 399, 400, 401, 15_960, 16_000, 16_039, 16_041, 50_001]  # fmt: skip


@pytest.mark.parametrize("samples", BORDERS)
@pytest.mark.parametrize("loud_end", [False, True])
def test_equals_the_reference(samples, loud_end):
    compare(clip(samples, loud_end=loud_end))


def test_silence_and_full_scale():
    compare(np.zeros(1000, np.float32))
    compare(np.ones(1000, np.float32))


def test_every_sample_matters():
    """What the comparison sees: one sample in the middle or at the end moves the frames by far over 100 tolerances."""
    pcm = clip(8000)
    for at in (0, 4000, 7999):
        moved = pcm.copy()
        moved[at] += 0.1
        assert np.abs(reference_mel(moved) - reference_mel(pcm)).max() > 100 * TOLERANCE


def test_planted_fault_reflected_end(monkeypatch):
    """Reflecting at the end, as a plain centred STFT does, is not what the reference computes."""

    def reflected(pcm, config):
        half = config.n_fft // 2
        return torch.nn.functional.pad(pcm, (0, half), mode="reflect")

    monkeypatch.setattr(mel_module, "_silent_end", reflected)
    with pytest.raises(AssertionError):
        compare(clip(8000, loud_end=True))


def test_planted_fault_maximum_of_the_frames_only(monkeypatch):
    """The window just beyond the end hears a click at the very end best, and its maximum lifts the floor."""
    pcm = np.zeros(480, np.float32)
    pcm[-1] = 1.0
    compare(pcm)
    true = mel_module._silent_end
    monkeypatch.setattr(
        mel_module, "_silent_end", lambda x, c: true(x, c)[:, : 2 * c.hop + c.n_fft]
    )
    with pytest.raises(AssertionError):
        compare(pcm)


def test_rows_of_a_batch_are_as_alone():
    lengths = [1, 3000, 3161, 8000]
    rows = [clip(n, loud_end=True) for n in lengths]
    batch = np.full(
        (4, 8000), 7.0, np.float32
    )  # whatever lies beyond a row's end must not be heard
    for row, pcm in zip(batch, rows, strict=True):
        row[: len(pcm)] = pcm
    out = log_mel(torch.from_numpy(batch), lengths=torch.tensor(lengths)).numpy()
    for row, pcm in zip(out, rows, strict=True):
        assert np.abs(row[:, : num_frames(len(pcm))] - reference_mel(pcm)).max() <= TOLERANCE


def test_long_clips_go_in_pieces(monkeypatch):
    pcm = torch.from_numpy(clip(20_000))[None]
    whole = log_mel(pcm)
    monkeypatch.setattr(mel_module, "PIECE", 7)
    assert (log_mel(pcm) - whole).abs().max() < 1e-6  # float32 matmul of another width


def test_nothing_in_nothing_out():
    assert log_mel(torch.zeros(2, 0)).shape == (2, 128, 0)


def test_other_dtypes():
    pcm = torch.from_numpy(clip(4000))[None]
    assert log_mel(pcm.bfloat16()).dtype == torch.float32
    assert (
        log_mel(pcm.double()) - log_mel(pcm)
    ).abs().max() < 1e-4  # float32 rounding near the floor


@pytest.mark.parametrize(("num_mels", "n_fft", "rate"), [(128, 400, 16_000), (80, 1024, 24_000)])
def test_filter_bank_is_slaneys(num_mels, n_fft, rate):
    theirs = reference_bank(n_fft // 2 + 1, num_mels, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")  # fmt: skip
    # float64 on both sides, values up to 0.04
    assert np.abs(mel_filter_bank(num_mels, n_fft, rate).numpy() - theirs).max() < 1e-14


def test_constants_survive_inference_mode():
    """Constants made on a first call under inference_mode must not spoil a later call that needs gradients."""
    mel_module._constants.cache_clear()
    with torch.inference_mode():
        log_mel(torch.zeros(1, 400))
    pcm = torch.randn(1, 400, requires_grad=True)
    log_mel(pcm).sum().backward()
    assert pcm.grad is not None
