"""Codes to wave against transformers on random weights: speaker encoder, DiT, flow, BigVGAN, all together."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from reference import official_state_dict, part_weights, reference_config, tiny_reference
from torch import Tensor, nn
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as hf

from thinktalk import config as cfg
from thinktalk.code2wav import bigvgan, snake
from thinktalk.code2wav import blocks as blocks_module
from thinktalk.code2wav import dit as dit_module
from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.flow import METHODS, sample
from thinktalk.code2wav.model import Code2Wav
from thinktalk.code2wav.speaker import Voice
from thinktalk.weights.names import PART_PREFIXES, our_name

# float32 rounds at 6e-8; through 6 layers, or 30 convolutions with sines between, it grows to 5e-6 of the largest
# value: both sides are equally far from float64 (test_vocoder_in_float64 has them 1e-13 apart)
RELATIVE = 1e-5
WAVE = 1e-4  # of full scale: the flow compounds 36 evaluations before the vocoder

CODES = 29  # 58 frames: two whole blocks and a third that is cut


def compare(ours: Tensor, theirs: Tensor, relative: float = RELATIVE) -> None:
    assert ours.shape == theirs.shape
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert error <= relative, f"relative error {error:.2e}"


def moved(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_voice(seed: int = 3, frames: int = 47) -> Voice:
    return Voice("parity", draw(1, 192, seed=seed), draw(1, frames, 80, seed=seed + 1), 0)


def make_codes(n: int = CODES, high: int = 8193, seed: int = 5) -> Tensor:
    return torch.randint(0, high, (1, n), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return tiny_reference().token2wav


@pytest.fixture(scope="module")
def ours() -> Code2Wav:
    config = cfg.tiny().code2wav
    model = Code2Wav(DiT(config.dit), BigVGAN(config.vocoder), config)
    model.dit.load_state_dict(part_weights(tiny_reference(), "dit"))
    model.vocoder.load_state_dict(part_weights(tiny_reference(), "vocoder"))
    return model


@torch.no_grad()
def redrawn(model: nn.Module, part: str, mine: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Both sides with random weights of gain 1."""
    for i, (name, p) in enumerate(model.named_parameters()):
        fan_in = 1 if "codec_embed" in name else p.shape[0] * p.shape[-1] // 2 if "ups." in name else p[0].numel()  # fmt: skip
        p.add_(0.1 * draw(*p.shape, seed=i)) if p.ndim == 1 else p.copy_(draw(*p.shape, seed=i) / fan_in**0.5)  # fmt: skip
    renamed = {our_name(PART_PREFIXES[part] + k)[1]: t for k, t in model.state_dict().items()}
    mine.load_state_dict(renamed)
    return model.eval(), mine.eval()


@torch.inference_mode()
def velocities(dit: DiT, x: Tensor, codes: Tensor, voice: Voice, time: float) -> Tensor:
    """Both halves (2, 2n, 80) of one evaluation, without the block layout."""
    condition = dit.condition(list(codes), [voice])
    modulation = dit.modulate(torch.tensor([time])).at(0)
    size = dit.config.block_frames
    blocks = nn.functional.pad(x[0], (0, 0, 0, -x.shape[1] % size)).unflatten(0, (-1, size))
    halves = dit(blocks, modulation, condition).chunk(2)
    return torch.stack([half.flatten(0, 1)[: x.shape[1]] for half in halves])


@torch.inference_mode()
def reference_velocities(dit, x: Tensor, codes: Tensor, voice: Voice, time: float) -> Tensor:
    return dit(
        hidden_states=x, quantized_code=codes, speaker_embedding=voice.cond[:, None].repeat(1, x.shape[1], 1),
        condition_vector=voice.ref_mel, time_step=torch.tensor(time), apply_cfg=True,
    )  # fmt: skip


def evaluation(seed: int = 7) -> tuple[Tensor, Tensor, Voice, float]:
    return draw(1, 2 * CODES, 80, seed=seed), make_codes(), make_voice(), 0.37


def test_fixture_moves(ours: Code2Wav) -> None:
    """Codes, voice vector, reference mel, noise and time all move what is compared, or it would prove nothing."""
    x, codes, voice, time = evaluation()
    base = velocities(ours.dit, x, codes, voice, time)
    other_cond = dataclasses.replace(voice, cond=draw(1, 192, seed=90))
    other_mel = dataclasses.replace(voice, ref_mel=draw(1, 47, 80, seed=91))
    for changed in (
        (draw(*x.shape, seed=92), codes, voice, time), (x, make_codes(seed=93), voice, time),
        (x, codes, other_cond, time), (x, codes, other_mel, time), (x, codes, voice, 0.4),
    ):  # fmt: skip
        assert moved(velocities(ours.dit, *changed), base) >= 100 * RELATIVE
    noise = draw(2 * CODES, 80)
    wave = ours(codes[0], voice, noise=noise)
    for c, v, z in (
        (make_codes(seed=93), voice, noise), (codes, other_cond, noise), (codes, other_mel, noise),
        (codes, voice, draw(2 * CODES, 80, seed=94)),
    ):  # fmt: skip
        assert (ours(c[0], v, noise=z) - wave).abs().max() >= 100 * WAVE


def test_speaker(ours: Code2Wav, theirs: nn.Module) -> None:
    encoder = theirs.code2wav_dit_model.input_embed.spk_encoder
    with torch.inference_mode():
        for frames in (ours.dit.speaker.min_frames, 47, 200):
            mel = make_voice(frames=frames).ref_mel
            compare(ours.dit.speaker(mel), encoder(mel))
        with pytest.raises(AssertionError, match="relative error"):  # planted: another voice
            compare(ours.dit.speaker(mel), encoder(mel.flip(1)))


def test_velocity(ours: Code2Wav, theirs: nn.Module) -> None:
    args = evaluation()
    compare(velocities(ours.dit, *args), reference_velocities(theirs.code2wav_dit_model, *args))


FAULTS = {
    "rotary of no head": lambda m: m.setattr(dit_module, "rotate_first_head_", lambda *a: None),
    "tail not masked": lambda m: m.setattr(blocks_module, "_exists", lambda left, n: (left > 0)[:, None].expand(-1, n)),
    "epsilon of another norm": lambda m: m.setattr(dit_module, "NORM_EPS", 1e-2),
    "time of another scale": lambda m: m.setattr(dit_module, "TIME_SCALE", 999),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_velocity_planted_faults(ours, theirs, monkeypatch, fault: str) -> None:
    args = evaluation()
    expected = reference_velocities(theirs.code2wav_dit_model, *args)
    FAULTS[fault](monkeypatch)
    with pytest.raises(AssertionError, match="relative error"):
        compare(velocities(ours.dit, *args), expected)


@pytest.mark.parametrize("field", ["look_back", "look_ahead"])
def test_velocity_planted_blindness(ours, theirs, monkeypatch, field: str) -> None:
    args = evaluation()
    for layer in ours.dit.layers:
        monkeypatch.setattr(layer.attn, field, False)
    with pytest.raises(AssertionError, match="relative error"):
        compare(velocities(ours.dit, *args), reference_velocities(theirs.code2wav_dit_model, *args))


def reference_mel(model, codes: Tensor, voice: Voice, seed: int, **flow) -> Tensor:
    torch.manual_seed(seed)
    return model.sample(voice.cond, voice.ref_mel, codes, **flow)


@pytest.mark.parametrize(
    ("theirs_flow", "ours_flow"),
    [
        ({}, {}),
        ({"num_steps": 4, "sway_coefficient": None}, {"points": 4, "sway": None}),
        ({"num_steps": 3, "guidance_scale": 0.0}, {"points": 3, "guidance": 0.0}),
        ({"num_steps": 3, "guidance_scale": 2.0}, {"points": 3, "guidance": 2.0}),
    ],
)
def test_sample(ours: Code2Wav, theirs: nn.Module, theirs_flow: dict, ours_flow: dict) -> None:
    codes, voice = make_codes(), make_voice()
    expected = reference_mel(theirs.code2wav_dit_model, codes, voice, 11, **theirs_flow)
    torch.manual_seed(11)  # noise drawn from torch's own generator is the reference's
    compare(sample(ours.dit, codes, voice, **ours_flow), expected)
    noise = torch.randn(1, 2 * CODES, 80, generator=torch.Generator().manual_seed(11))
    compare(sample(ours.dit, codes, voice, noise=noise, **ours_flow), expected)


def test_sample_planted_faults(ours, theirs, monkeypatch) -> None:
    codes, voice = make_codes(), make_voice()
    expected = reference_mel(theirs.code2wav_dit_model, codes, voice, 11, num_steps=3)
    noise = torch.randn(1, 2 * CODES, 80, generator=torch.Generator().manual_seed(11))
    compare(sample(ours.dit, codes, voice, noise=noise, points=3), expected)
    for fault in ({"sway": None}, {"guidance": 0.51}, {"method": "midpoint"}, {"points": 4}):
        with pytest.raises(AssertionError, match="relative error"):
            compare(sample(ours.dit, codes, voice, noise=noise, **{"points": 3, **fault}), expected)
    classic = dataclasses.replace(METHODS["rk4"], b=(1 / 6, 1 / 3, 1 / 3, 1 / 6))
    monkeypatch.setitem(METHODS, "rk4", classic)  # the other well-known fourth-order rule's weights
    with pytest.raises(AssertionError, match="relative error"):
        compare(sample(ours.dit, codes, voice, noise=noise, points=3), expected)


def vocoder_mel(frames: int = 23) -> Tensor:
    return (
        draw(1, 80, frames, seed=21) - 3
    )  # around the mean of natural-log mels, so that nothing saturates


def test_vocoder(ours: Code2Wav, theirs: nn.Module) -> None:
    mel = vocoder_mel()
    with torch.inference_mode():
        wave = theirs.code2wav_bigvgan_model(mel)
        assert wave.abs().max() < 1, "the wave must not saturate, or faults would hide"
        compare(ours.vocoder(mel)[0], wave)
        assert moved(ours.vocoder(mel + 0.1), ours.vocoder(mel)) >= 100 * RELATIVE
        mel[:, :, 11] += 0.01  # planted: one frame a little louder
        with pytest.raises(AssertionError, match="relative error"):
            compare(ours.vocoder(mel)[0], wave)


def test_vocoder_in_float64(ours: Code2Wav, theirs: nn.Module) -> None:
    """In float64 the two are the same function: what is left in float32 is rounding."""
    mel = vocoder_mel(9).double()
    with torch.inference_mode():
        wave = copy.deepcopy(theirs.code2wav_bigvgan_model).double()(mel)
        compare(copy.deepcopy(ours.vocoder).double()(mel)[0], wave, 1e-12)


def test_vocoder_planted_faults(ours, theirs, monkeypatch) -> None:
    mel = vocoder_mel(9)
    with torch.inference_mode():
        wave = theirs.code2wav_bigvgan_model(mel)
        real = snake._filter
        monkeypatch.setattr(snake, "_filter", lambda *a: real(*a).roll(1))
        with pytest.raises(AssertionError, match="relative error"):
            compare(ours.vocoder(mel)[0], wave)
        monkeypatch.setattr(snake, "_filter", real)
        monkeypatch.setattr(bigvgan, "REFERENCE_DB", 0.0)
        with pytest.raises(AssertionError, match="relative error"):
            compare(ours.vocoder(mel)[0], wave)


def test_other_sizes() -> None:
    """The shipped small model's shapes: 25 codes a second, blocks of 12 frames, hop 480."""
    config = cfg.nano()
    theirs_config = reference_config(config).token2wav_config
    assert config.code2wav is not None
    dit, mine = redrawn(
        hf.Qwen2_5OmniToken2WavDiTModel._from_config(theirs_config.dit_config, attn_implementation="sdpa"),
        "dit", DiT(config.code2wav.dit),
    )  # fmt: skip
    args = draw(1, 26, 80), make_codes(13, high=1001), make_voice(), 0.6
    compare(velocities(mine, *args), reference_velocities(dit, *args))
    vocoder, my_vocoder = redrawn(
        hf.Qwen2_5OmniToken2WavBigVGANModel(theirs_config.bigvgan_config),
        "vocoder", BigVGAN(config.code2wav.vocoder),
    )  # fmt: skip
    with torch.inference_mode():
        vocoder.conv_post.weight.mul_(0.015)
        my_vocoder.conv_post.weight.mul_(0.015)
        compare(my_vocoder(vocoder_mel(7))[0], vocoder(vocoder_mel(7)))


def test_wave(ours: Code2Wav, theirs: nn.Module) -> None:
    """Codes to wave from the same noise; a batch of two is two single calls."""
    codes, voice = make_codes(), make_voice()
    torch.manual_seed(12)
    wave = theirs(codes, conditioning=voice.cond, reference_mel=voice.ref_mel)
    noise = torch.randn(2 * CODES, 80, generator=torch.Generator().manual_seed(12))
    mine = ours(codes[0], voice, noise=noise)
    assert mine.dtype == torch.float32
    assert (mine - wave).abs().max() <= WAVE
    both = ours(codes.expand(2, -1), voice, noise=torch.stack([noise, noise]))
    assert (both - wave).abs().max() <= WAVE
    other = ours(codes[0], voice, noise=noise, points=9)  # planted: one point fewer
    assert (other - wave).abs().max() > WAVE


def test_every_tensor_has_a_place(ours: Code2Wav) -> None:
    """Strict loading both ways: no tensor of the reference is left over, none of ours is unfilled."""
    names = {our_name(n) for n in official_state_dict(tiny_reference()) if n.startswith("token2wav.")}  # fmt: skip
    mine = {(p, n) for p, m in (("dit", ours.dit), ("vocoder", ours.vocoder)) for n in m.state_dict()}  # fmt: skip
    assert names == mine
