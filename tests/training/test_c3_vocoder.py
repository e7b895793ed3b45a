"""c3: losses against plain ones, who learns in which turn, crops, one batch learnt by heart by spectra and by a GAN."""

from __future__ import annotations

import math

import pytest
import torch

from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.config import BigVGANConfig, SpeechMelConfig
from thinktalk.layers.mel import speech_mel
from thinktalk.training import c3_vocoder as c3
from thinktalk.training.c3_vocoder import (
    Recordings,
    VocoderConfig,
    VocoderModules,
    VocoderStage,
    mel_loss,
)
from thinktalk.training.discriminators import Discriminators, PeriodDiscriminator

MEL = SpeechMelConfig(hop=16, num_mels=8)
VOCODER = BigVGANConfig(
    num_mels=8, initial_channels=16, upsample_rates=(4, 4), upsample_kernels=(8, 8), resblock_kernels=(3,),
    resblock_dilations=((1, 3),),
)  # fmt: skip


def make(*, adversarial: bool = True, seed: int = 0, **config) -> VocoderStage:
    torch.manual_seed(seed)
    judges = Discriminators(periods=(2, 3), period_channels=(4, 8), windows=(64,), scale_channels=4)
    modules = VocoderModules(BigVGAN(VOCODER), judges if adversarial else None)
    return VocoderStage(modules, MEL, VocoderConfig(crop_frames=32, adversarial=adversarial, **config))  # fmt: skip


def batch(seed: int = 0) -> Recordings:
    g = torch.Generator().manual_seed(seed)
    waves = []
    for n, hz in ((900, 440), (1400, 1500), (300, 900)):
        steps = torch.arange(n)
        waves.append(0.5 * torch.sin(2 * math.pi * hz / 24_000 * steps) + 0.02 * torch.randn(n, generator=g))  # fmt: skip
    return Recordings(waves)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --------------------------------------------------------------------------------------------------------------- plain


def plain_judges(stage: VocoderStage, true: torch.Tensor, made: torch.Tensor) -> tuple[float, float, float]:  # fmt: skip
    """(discriminator, fooled, features) in loops over judges, layers and rows."""
    discriminator = fooled = features = 0.0
    for judge in stage.modules.discriminators.judges:
        scores, others, layers = [], [], []
        for b in range(len(true)):
            (t, tf), (m, mf) = judge(true[b : b + 1]), judge(made[b : b + 1])
            scores.append(t), others.append(m)
            layers.append([(x - y).abs().mean() for x, y in zip(tf, mf, strict=True)])
        discriminator += torch.cat(scores).sub(1).pow(2).mean() + torch.cat(others).pow(2).mean()
        fooled += torch.cat(others).sub(1).pow(2).mean()
        features += torch.tensor(layers).mean(0).sum()
    return discriminator.item(), fooled.item(), features.item()


@torch.no_grad()
def compare(stage: VocoderStage, data: Recordings, *, seed: int = 0) -> None:
    wave, mel = stage.crop(data, chance(seed))
    made = stage.modules.vocoder(mel)
    discriminator, fooled, features = plain_judges(stage, wave, made)
    d_loss, _ = stage.loss(data, generator=chance(), turn="discriminator")
    g_loss, seen = stage.loss(data, generator=chance(), turn="generator")
    config = stage.config
    total = fooled + config.feature_weight * features + config.mel_weight * mel_loss(made, wave, 24_000).item()  # fmt: skip
    # float32 sums in another order
    assert d_loss.item() == pytest.approx(discriminator, rel=1e-5)
    assert float(seen["features"]) == pytest.approx(features, rel=1e-5)
    assert g_loss.item() == pytest.approx(total, rel=1e-5)


def test_losses_are_the_plain_ones():
    compare(make(), batch())


def test_other_crops_are_noticed():
    with pytest.raises(AssertionError):
        compare(make(), batch(), seed=1)


def test_a_game_played_for_the_wrong_side_is_found(monkeypatch):
    """Planted fault: the discriminator learns to call what is made true."""
    right = c3.discriminator_loss
    monkeypatch.setattr(c3, "discriminator_loss", lambda true, made: right(made, true))
    with pytest.raises(AssertionError):
        compare(make(), batch())


def test_mel_loss_by_hand():
    """One scale alone, from the mel that the vocoder reads; and zero for the same wave."""
    true, made = batch().waves[0][None, :512], batch(1).waves[0][None, :512]
    assert mel_loss(true, true, 24_000) == 0
    gaps = []
    for n_fft, bands in ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80)):
        config = SpeechMelConfig(hop=n_fft // 4, num_mels=bands)
        a, b = speech_mel(made, config), speech_mel(true, config)
        gaps.append(sum((x - y).abs().sum() for x, y in zip(a, b, strict=True)) / a.numel())
    assert mel_loss(made, true, 24_000).item() == pytest.approx(float(sum(gaps) / 5), rel=1e-5)
    assert mel_loss(made, true, 24_000) > 0.01


# --------------------------------------------------------------------------------------------------------------- turns


def moved(module: torch.nn.Module) -> set[str]:
    return {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}


def test_each_turn_moves_its_own_side():
    stage, data = make(), batch()
    assert stage.turns == ("discriminator", "generator")
    names = {n: {n2 for n2, _ in m.named_parameters()} for n, m in stage.modules.named_children()}
    stage.loss(data, generator=chance(), turn="discriminator")[0].backward()
    assert moved(stage.modules.discriminators) == names["discriminators"]
    assert moved(stage.modules.vocoder) == set()
    stage.modules.zero_grad()
    stage.loss(data, generator=chance(), turn="generator")[0].backward()
    assert moved(stage.modules.vocoder) == names["vocoder"]
    assert moved(stage.modules.discriminators) == set()
    assert all(p.requires_grad for p in stage.modules.parameters())
    sides = [{id(p) for p in stage.trainable(turn=turn)} for turn in stage.turns]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {id(p) for p in stage.modules.parameters()}


def test_without_judges_there_is_one_turn():
    stage = make(adversarial=False)
    assert stage.turns == ("generator",)
    loss, metrics = stage.loss(batch(), generator=chance())
    loss.backward()
    assert set(metrics) == {"mel", "spectra"}
    assert moved(stage.modules.vocoder) == {n for n, _ in stage.modules.vocoder.named_parameters()}


# --------------------------------------------------------------------------------------------------------------- crops


def test_a_crop_has_the_mel_of_the_whole():
    """Windows at a crop's edges hear the neighbours, as they will when a whole sentence is spoken."""
    stage, data = make(), batch()
    seen = set()
    for seed in range(6):
        waves, mels = stage.crop(data, chance(seed))
        for wave, mel, whole in zip(waves[:2], mels[:2], data.waves[:2], strict=True):
            starts = [s for s in range(0, len(whole) - 511, 16) if torch.equal(whole[s : s + 512], wave)]  # fmt: skip
            assert len(starts) == 1
            frame = starts[0] // 16
            seen.add(frame)
            expected = speech_mel(whole[None], MEL)[0, :, frame : frame + 32]
            torch.testing.assert_close(mel, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(waves[2, :300], data.waves[2]) and not waves[2, 300:].any()
    assert len(seen) > 6


def test_given_mels_are_cropped_alike():
    stage, data = make(), batch()
    own = [speech_mel(wave[None], MEL)[0] for wave in data.waves]
    waves, mels = stage.crop(Recordings(data.waves, own), chance(2))
    same_waves, same_mels = stage.crop(data, chance(2))
    assert torch.equal(waves, same_waves)
    torch.testing.assert_close(mels[:2], same_mels[:2], rtol=1e-5, atol=1e-5)
    assert mels.shape == same_mels.shape and mels.isfinite().all()


def test_a_period_is_seen_as_columns():
    """Samples p apart meet in one column: a wave of period p looks the same in every row, any other does not."""
    torch.manual_seed(0)
    judge = PeriodDiscriminator(4, (4, 8))
    wave = torch.randn(4).repeat(30)[None]
    _, (first, *_) = judge(wave)
    inside = first[0, :, 2:-2]
    assert (inside - inside[:, :1]).abs().max() < 1e-6
    _, (other, *_) = judge(torch.randn(5).repeat(24)[None])
    assert (other[0, :, 2:-2] - other[0, :, 2:3]).abs().max() > 1e-3


# ------------------------------------------------------------------------------------------------------------ learning


def learn(stage: VocoderStage, data: Recordings, steps: int, *, lr: float = 3e-3) -> list[dict[str, float]]:  # fmt: skip
    optimisers = {turn: torch.optim.AdamW(stage.trainable(turn=turn), lr=lr, betas=(0.8, 0.99)) for turn in stage.turns}  # fmt: skip
    history = []
    for _ in range(steps):
        line: dict[str, float] = {}
        for turn, optimiser in optimisers.items():
            loss, seen = stage.loss(data, generator=chance(), turn=turn)
            stage.modules.zero_grad()
            loss.backward()
            optimiser.step()
            line |= {name: float(value) for name, value in seen.items()}
        history.append(line)
    return history


def test_spectra_alone_teach_one_batch():
    history = learn(make(adversarial=False), batch(), 60)
    assert history[-1]["mel"] < 0.55 * history[0]["mel"]
    assert history[-1]["spectra"] < 0.8 * history[0]["spectra"]


def test_the_game_is_played_by_both():
    history = learn(make(), batch(), 40)
    assert history[-1]["mel"] < 0.6 * history[0]["mel"]
    # three judges that cannot tell score 0.5 each: 3 x (0.25 + 0.25)
    assert min(line["discriminator"] for line in history) < 1.4


def test_what_is_shown_is_what_it_makes_now():
    stage = make(adversarial=False)
    shown = stage.show(batch(), generator=chance())
    wave_BS, mel_BMT = stage.crop(batch(), chance())
    assert torch.equal(shown["true"].pcm, wave_BS[0])
    # a batch of one is summed in another order
    torch.testing.assert_close(shown["made"].pcm, stage.modules.vocoder.compute(mel_BMT)[0], atol=1e-5, rtol=1e-4)  # fmt: skip
    assert shown["made"].sample_rate == 24_000 and set(stage.parts()) == {"vocoder"}
