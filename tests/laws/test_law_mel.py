"""LogMel under the streaming law, and both log-mels against each other."""

from __future__ import annotations

import pytest
import torch
from law import check_law

from thinktalk.config import MelConfig
from thinktalk.layers.mel import LogMel, log_mel


def sound(batch, length, generator):
    # louder and louder, with a quiet second row: the running maximum and its floor both work
    ramp = torch.linspace(0.001, 0.5, max(length, 1), dtype=torch.float64)[:length]
    gain = torch.tensor([1.0, 1e-3], dtype=torch.float64)[:batch, None]
    return gain * ramp * torch.randn(batch, length, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(
    ("block_frames", "max_length"), [(5, 2450), (1, 700), (2, 900), (200, 33000)]
)
def test_log_mel_streams(block_frames, max_length):
    examples = 12 if block_frames < 200 else 2
    check_law(LogMel(block_frames=block_frames), sound, max_length=max_length, examples=examples)


def test_a_block_of_one_frame_promises_no_more_than_it_can():
    """After 200 samples the first window is heard, but its mirrored start needs sample 200: one more."""
    check_law(LogMel(block_frames=1), sound, min_length=200, max_length=210, examples=25)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 199, 200, 201, 640, 760, 799, 800, 801, 840, 841])
def test_log_mel_streams_around_its_borders(length):
    # 5 frames of 160 samples a block; the first window is whole at 201, the fifth at 840 samples
    check_law(LogMel(block_frames=5), sound, min_length=length, max_length=length, examples=6,
              sensitive=length > 0)  # fmt: skip


def test_one_block_is_the_whole_clip():
    """Up to 2 s the stream's maximum is the clip's, so both definitions agree to the bit."""
    for length in (1, 3, 700, 31_900, 32_000):
        pcm = sound(2, length, torch.Generator().manual_seed(length))
        assert torch.equal(LogMel()(pcm), log_mel(pcm))


class DeafToTheEnd(LogMel):
    """Planted fault: the maximum leaves out the windows beyond the last frame."""

    def _normalise(self, log_BMT, emit, state):
        return super()._normalise(log_BMT[..., :emit], emit, state)


class WholeChunkMaximum(LogMel):
    """Planted fault: blocks share the maximum of the chunk that they came in."""

    def _normalise(self, log_BMT, emit, state):
        if emit:
            state.peak = torch.maximum(state.peak, log_BMT.amax((1, 2), keepdim=True))
        return super()._normalise(log_BMT, emit, state)


def test_the_law_sees_a_maximum_that_depends_on_chunks():
    with pytest.raises(AssertionError, match="law"):
        check_law(WholeChunkMaximum(block_frames=5), sound, max_length=2450, examples=5)


def test_the_end_counts():
    pcm = torch.zeros(1, 480, dtype=torch.float64)
    pcm[0, -1] = 1.0  # heard best by the window centred just beyond the last frame
    assert torch.equal(LogMel()(pcm), log_mel(pcm))
    assert (DeafToTheEnd()(pcm) - log_mel(pcm)).abs().max() > 1e-3


def test_a_state_tells_its_phase_for_every_configuration():
    with pytest.raises(AssertionError, match="overlap"):
        LogMel(MelConfig(n_fft=400, hop=200))
