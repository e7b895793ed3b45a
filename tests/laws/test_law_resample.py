"""The streaming resampler under the law, against soxr, and with planted faults."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch
from law import check_law

from thinktalk.errors import InputError
from thinktalk.layers.resample import Resampler

RATES = [(48_000, 16_000), (8_000, 16_000), (44_100, 16_000), (24_000, 16_000), (16_000, 16_000)]


def noise(batch, length, generator):
    return torch.randn(batch, length, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("rate", "to"), RATES)
def test_any_chunking_is_the_whole(rate, to):
    check_law(Resampler(rate, to), noise, max_length=1500, examples=6)


@pytest.mark.parametrize(("rate", "to"), RATES)
def test_lengths_are_rounded_up(rate, to):
    for samples in (0, 1, 2, 159, 441, 1000):
        y = Resampler(rate, to)(torch.zeros(1, samples))
        assert y.shape[1] == -(-samples * to // rate)


@pytest.mark.parametrize(("rate", "to"), RATES[:4])
def test_as_good_as_soxr(rate, to):
    """A chord within the pass band: both are within 1e-4 of the same chord drawn at the new rate."""

    def chord(at):
        t = np.arange(at) / at
        return sum(np.sin(2 * np.pi * f * t + f) for f in (131.0, 997.0, 3301.0)) / 3

    ours = Resampler(rate, to)(torch.from_numpy(chord(rate))[None])[0].numpy()
    theirs = soxr.resample(chord(rate), rate, to, quality="HQ")
    middle = slice(to // 4, -to // 4)  # away from the edges, where the chord begins out of nothing
    # 80 dB is below the step of 13-bit sound; measured 1e-6 and better
    assert np.abs(ours[middle] - chord(to)[middle]).max() < 1e-4
    assert np.abs(ours[middle] - theirs[middle]).max() < 1e-4


def test_nothing_folds_back():
    """A tone above the new Nyquist is gone, not mirrored."""
    t = torch.arange(48_000, dtype=torch.float64) / 48_000
    y = Resampler(48_000)(torch.sin(2 * torch.pi * 9_500 * t)[None])
    assert y[0, 4000:-4000].abs().max() < 1e-5


def test_planted_faults_are_caught():
    class Forgetful(Resampler):
        def step(self, x, state, *, last=False):
            state.pcm = torch.zeros_like(state.pcm[:, : self.context])
            return super().step(x, state, last=last)

    class Late(Resampler):  # drops one input too many after each group
        def step(self, x, state, *, last=False):
            y = super().step(x, state, last=last)
            state.pcm = torch.cat([state.pcm[:, 1:], state.pcm[:, -1:]], 1)
            return y

    for fault in (Forgetful, Late):
        with pytest.raises(AssertionError):
            check_law(fault(48_000), noise, max_length=1500, examples=3)


@pytest.mark.parametrize("rate", [0, 999, 2_000_000, 22_051, 16_000.5])
def test_rates_that_cannot_be(rate):
    with pytest.raises(InputError, match="rate"):
        Resampler(rate)
