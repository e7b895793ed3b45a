"""The audio encoder by itself: clips together as clips alone, tails, passes, dtypes, training after inference."""

import pytest
import torch

from thinktalk.config import tiny
from thinktalk.encoders import audio
from thinktalk.encoders.audio import AudioEncoder, audio_token_count

CONFIG = tiny().thinker.audio


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return AudioEncoder(CONFIG).eval()


def mel(frames, seed=0):
    return torch.randn(CONFIG.num_mels, frames, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("frames", range(0, 450, 7))
def test_token_count_is_the_reference_formula(frames):
    assert audio_token_count(frames) == max(0, ((frames - 1) // 2 + 1 - 2) // 2 + 1)


def test_clips_together_equal_clips_alone(encoder, monkeypatch):
    lengths = [200, 3, 777, 0, 37, 1, 400, 37, 237]
    mels = [mel(frames, seed) for seed, frames in enumerate(lengths)]
    with torch.inference_mode():
        alone = [encoder.encode([one])[0] for one in mels]
        assert [len(tokens) for tokens in alone] == [audio_token_count(n) for n in lengths]
        for blocks in (1, 3, 100):  # however the pieces fall into passes
            monkeypatch.setattr(audio, "PASS_BLOCKS", blocks)
            for tokens, want in zip(encoder.encode(mels), alone, strict=True):
                # float32 rounds at 6e-8; batched matmuls may sum in another order
                torch.testing.assert_close(tokens, want, rtol=0, atol=1e-5)
        other = encoder.encode([mel(frames, 100 + frames) for frames in lengths])
    for tokens, want in zip(other, alone, strict=True):
        assert not len(want) or (tokens - want).abs().max() > 1e-3  # another sound, other tokens


def test_no_clips_give_no_tokens(encoder):
    assert encoder.encode([]) == []


def test_a_block_sees_itself_alone(encoder):
    a, b = mel(600, 1), mel(600, 2)
    b[:, 200:400] = a[:, 200:400]
    with torch.inference_mode():
        x, y = encoder.encode([a])[0], encoder.encode([b])[0]
    assert torch.equal(x[50:100], y[50:100])
    assert not torch.allclose(x[:50], y[:50], atol=1e-3)


def test_positions_begin_anew_in_every_block(encoder):
    one = mel(200)
    with torch.inference_mode():
        x = encoder.encode([one.repeat(1, 3)])[0]
    assert torch.equal(x[:50], x[100:])


def test_a_row_of_blocks_is_a_clip(encoder):
    x = torch.stack([mel(437, 3), mel(437, 4)])
    with torch.inference_mode():
        rows, clips = encoder(x), encoder.encode(x.unbind())
    for row, clip in zip(rows, clips, strict=True):
        torch.testing.assert_close(row, clip, rtol=0, atol=1e-5)  # float32 rounding, as above


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(encoder, dtype):
    half = AudioEncoder(CONFIG).to(dtype).eval()
    half.load_state_dict(encoder.state_dict())
    with torch.inference_mode():
        want, got = encoder.encode([mel(250)])[0], half.encode([mel(250)])[0]
    assert got.dtype == dtype
    # bfloat16 keeps 8 bits: 0.4 % an operation, some dozens of them in two layers
    assert (got - want).abs().max() < 0.05 * want.abs().max()
    assert half(mel(2)[None]).shape == (1, 0, CONFIG.out_width)


def test_training_after_inference_reaches_every_weight(encoder):
    """A position table cached in inference mode used as such in training would raise."""
    audio._sinusoids.cache_clear()
    with torch.inference_mode():
        encoder.encode([mel(300)])
    encoder.zero_grad()
    encoder.encode([mel(300), mel(100)])[0].square().sum().backward()
    idle = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max()]
    assert idle == ["bos_eos.weight"]  # the reference never reads it either
