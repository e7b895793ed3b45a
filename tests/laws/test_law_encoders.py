"""The streaming law of the encoders: blocks of 2 s, temporal grids; and faults it must notice."""

import pytest
import torch
from law import check_law

from thinktalk.config import tiny
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.encoders.vision import VisionEncoder, VisionStream

CONFIG = tiny().thinker
H, W = 6, 10


def mel(batch, length, generator):
    return torch.randn(
        batch, CONFIG.audio.num_mels, length, generator=generator, dtype=torch.float64
    )


def grids(batch, length, generator):
    shape = (batch, length, H * W, CONFIG.vision.patch_values)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def audio_encoder(kind=AudioEncoder):
    torch.manual_seed(0)
    return kind(CONFIG.audio)


def vision_stream(kind=VisionStream):
    torch.manual_seed(0)
    return kind(VisionEncoder(CONFIG.vision), H, W)


def test_audio_encoder_keeps_the_law():
    check_law(audio_encoder(), mel, max_length=650, examples=8)


def test_vision_encoder_keeps_the_law():
    check_law(vision_stream(), grids, max_length=5, examples=8)


class Leaky(AudioEncoder):
    """Planted fault: blocks that come together pass something on to each other."""

    def compute(self, x):
        tokens = super().compute(x)
        return tokens + 1e-3 * tokens.mean(1, keepdim=True)


class Remembering(AudioEncoder):
    """Planted fault: the module remembers what it heard."""

    def compute(self, x):
        self.heard = getattr(self, "heard", 0) + x.shape[2]
        return super().compute(x)


class Averaging(VisionStream):
    """Planted fault: a grid sees the ones that come with it."""

    def compute(self, x):
        return super().compute(x + 1e-3 * x.mean(1, keepdim=True))


def test_leaking_blocks_are_noticed():
    with pytest.raises(AssertionError, match="law"):
        check_law(audio_encoder(Leaky), mel, max_length=650, examples=0)


def test_a_memory_in_the_module_is_noticed():
    with pytest.raises(AssertionError, match="constancy"):
        check_law(audio_encoder(Remembering), mel, max_length=250, examples=0)


def test_grids_that_see_each_other_are_noticed():
    with pytest.raises(AssertionError, match="law"):
        check_law(vision_stream(Averaging), grids, max_length=3, examples=0)
