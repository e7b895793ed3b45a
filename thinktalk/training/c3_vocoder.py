"""c3: mel to wave. Recordings -> losses of BigVGAN and of the discriminators that it learns to please.

    crop -> wave, mel -> BigVGAN -> wave'
    discriminator   sum_k  mean (1 - D_k(wave))^2 + mean D_k(wave')^2                            least squares (Mao 2017)
    generator       sum_k  mean (1 - D_k(wave'))^2 + 2 |features - features'| + 15 |mels - mels'|  (Lee 2023, BigVGAN)

`mels` are log-mels at seven window lengths, 32 to 2048 samples. A GAN wants a GPU: hours on one, months on two cores.
Without, `adversarial=False` trains the same BigVGAN on spectra alone: it speaks, but buzzes; say so where it is shipped.
That is also the right start of a GAN run. Float32: bfloat16 makes the anti-aliased activations slower and audible.

Letters: B crops, S samples, M mel bands, T mel frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.config import SpeechMelConfig
from thinktalk.layers.mel import speech_mel
from thinktalk.training.discriminators import Discriminators, Heard
from thinktalk.training.shown import Shown, Sound
from thinktalk.training.stage import Stage

__all__ = [
    "Recordings", "VocoderConfig", "VocoderModules", "VocoderStage", "discriminator_loss", "feature_loss",
    "generator_loss", "mel_loss", "spectral_loss",
]  # fmt: skip

MEL_SCALES = tuple((32 << i, 5 << i) for i in range(7))
"""(samples of a window, mel bands): 32 with 5 to 2048 with 320 (Kumar 2023, BigVGAN-v2)."""
STFT_SCALES = (512, 1024, 2048)
CONTEXT = 2  # frames: a mel window reaches one and a half hops beyond its frame


@dataclass(frozen=True)
class Recordings:
    """Speech at the vocoder's rate."""

    waves: Sequence[Tensor]
    """(samples,) each, in [-1, 1]."""
    mels: Sequence[Tensor] | None = None
    """(M, samples // hop) of each, such as a DiT makes them; None: the recording's own."""


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """What is trained on."""

    crop_frames: int = 64
    """Mel frames of a crop."""
    adversarial: bool | None = None
    """Whether discriminators listen; else spectra alone. None: if there are any (the recipe: if there is a GPU)."""
    mel_weight: float = 15.0
    """Weight of the mel loss, for which |a - b| of one unit (a factor of e) is 1."""
    feature_weight: float = 2.0
    """Weight of the discriminators' features."""


class VocoderModules(nn.Module):
    """BigVGAN and who judges it."""

    def __init__(self, vocoder: BigVGAN, discriminators: Discriminators | None = None):
        super().__init__()
        self.vocoder = vocoder
        self.discriminators = discriminators


class VocoderStage(Stage):
    """Batches are Recordings; the discriminators learn first, then the vocoder, on the same crops."""

    def __init__(
        self, modules: VocoderModules, mel: SpeechMelConfig, config: VocoderConfig | None = None
    ):
        self.modules: VocoderModules = modules
        self.mel = mel
        config = config or VocoderConfig()
        there = modules.discriminators is not None
        listens = there if config.adversarial is None else config.adversarial
        self.config = replace(config, adversarial=listens)
        assert not listens or there, "a GAN needs discriminators"
        assert mel.hop == modules.vocoder.config.hop, f"mel hop {mel.hop}, vocoder hop {modules.vocoder.config.hop}"  # fmt: skip
        self.turns = ("discriminator", "generator") if listens else ("generator",)

    def parts(self) -> Mapping[str, nn.Module]:
        """The vocoder."""
        return {"vocoder": self.modules.vocoder}

    def trainable(self, turn: str = "generator", **_: str) -> Iterable[nn.Parameter]:
        """The vocoder's, or the discriminators'."""
        if turn == "discriminator":
            assert self.modules.discriminators is not None
            return self.modules.discriminators.parameters()
        return self.modules.vocoder.parameters()

    def weight(self, batch: Recordings) -> float:
        """Crops, which are equally long."""
        return float(len(batch.waves))

    def loss(
        self, batch: Recordings, *, generator: torch.Generator, turn: str = "generator", **_: str
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The loss of one side of the game."""
        wave_BS, mel_BMT = self.crop(batch, generator)
        judges = self.modules.discriminators
        if turn == "discriminator":
            assert judges is not None
            with torch.no_grad():
                made_BS = self.modules.vocoder.compute(mel_BMT)
            loss = discriminator_loss(judges(wave_BS), judges(made_BS))
            return loss, {"discriminator": loss.detach()}
        made_BS = self.modules.vocoder.compute(mel_BMT)
        mel = mel_loss(made_BS, wave_BS, self.mel.sample_rate)
        metrics: dict[str, Tensor | float] = {"mel": mel.detach()}
        if not self.config.adversarial:
            spectra = spectral_loss(made_BS, wave_BS)
            return self.config.mel_weight * mel + spectra, metrics | {"spectra": spectra.detach()}
        assert judges is not None
        with torch.no_grad():
            true = judges(wave_BS)
        with _frozen(judges):
            heard = judges(made_BS)
        fooled, features = generator_loss(heard), feature_loss(heard, true)
        metrics |= {"fooled": fooled.detach(), "features": features.detach()}
        total = fooled + self.config.feature_weight * features + self.config.mel_weight * mel
        return total, metrics

    def show(self, batch: Recordings, *, generator: torch.Generator) -> Shown:
        """A piece of the batch's first recording, as it was and as it is made of its mel now."""
        wave_BS, mel_BMT = self.crop(batch, generator)
        made_BS = self.modules.vocoder.compute(mel_BMT[:1])
        rate = self.mel.sample_rate
        return {"true": Sound(wave_BS[0], rate), "made": Sound(made_BS[0], rate)}

    def crop(self, batch: Recordings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Waves (B, S) and mels (B, M, T) of a piece of each recording; a short one is followed by silence."""
        config, hop = self.mel, self.mel.hop
        device, size = next(self.modules.vocoder.parameters()).device, self.config.crop_frames
        where = torch.rand(len(batch.waves), generator=generator, device=generator.device).tolist()
        waves, mels = [], []
        for i, (wave, u) in enumerate(zip(batch.waves, where, strict=True)):
            wave = wave.to(device, torch.float32)
            wave = F.pad(wave, (0, max(0, size * hop - len(wave))))
            total = len(wave) // hop
            start = min(int(u * (total - size + 1)), total - size)
            waves.append(wave[start * hop : (start + size) * hop])
            if batch.mels is not None:
                given = batch.mels[i].to(device, torch.float32)
                silence = speech_mel(wave.new_zeros(1, hop), config)[0]
                given = torch.cat([given, silence.expand(-1, max(0, total - given.shape[1]))], 1)
                mels.append(given[:, start : start + size])
                continue
            first, end = max(0, start - CONTEXT), min(total, start + size + CONTEXT)
            around = speech_mel(wave[None, first * hop : end * hop], config)[0]
            mels.append(around[:, start - first : start - first + size])
        return torch.stack(waves), torch.stack(mels)


# -------------------------------------------------------------------------------------------------------------- losses


def discriminator_loss(true: Sequence[Heard], made: Sequence[Heard]) -> Tensor:
    """1 for what is true, 0 for what is made, in least squares."""
    pairs = zip(true, made, strict=True)
    return torch.stack([(1 - t.float()).square().mean() + m.float().square().mean() for (t, _), (m, _) in pairs]).sum()  # fmt: skip


def generator_loss(made: Sequence[Heard]) -> Tensor:
    """1 for what is made."""
    return torch.stack([(1 - score.float()).square().mean() for score, _ in made]).sum()


def feature_loss(made: Sequence[Heard], true: Sequence[Heard]) -> Tensor:
    """Mean distance of each layer's features, summed over layers and discriminators (Larsen 2016)."""
    layers = [
        (m.float() - t.float()).abs().mean()
        for (_, made_features), (_, true_features) in zip(made, true, strict=True)
        for m, t in zip(made_features, true_features, strict=True)
    ]
    return torch.stack(layers).sum()


def mel_loss(made_BS: Tensor, true_BS: Tensor, sample_rate: int) -> Tensor:
    """Mean distance of natural-log mels, averaged over the window lengths that fit into the crop."""
    base = SpeechMelConfig(sample_rate=sample_rate)
    gaps = []
    for n_fft, bands in MEL_SCALES:
        if n_fft <= made_BS.shape[1]:
            config = replace(base, hop=n_fft // 4, num_mels=bands)
            gaps.append((speech_mel(made_BS, config) - speech_mel(true_BS, config)).abs().mean())
    return torch.stack(gaps).mean()


def spectral_loss(made_BS: Tensor, true_BS: Tensor) -> Tensor:
    """Spectral convergence and log-magnitude distance, averaged over three window lengths (Yamamoto 2020)."""
    parts = []
    for n_fft in STFT_SCALES:
        if n_fft > made_BS.shape[1]:
            continue
        made, true = (_magnitude(wave, n_fft) for wave in (made_BS, true_BS))
        convergence = (made - true).norm() / true.norm().clamp(min=1e-6)
        parts.append(convergence + (made.log() - true.log()).abs().mean())
    return torch.stack(parts).mean() if parts else made_BS.sum() * 0


def _magnitude(wave_BS: Tensor, n_fft: int) -> Tensor:
    window = torch.hann_window(n_fft, device=wave_BS.device, dtype=wave_BS.dtype)
    spectrum = torch.stft(wave_BS, n_fft, n_fft // 4, window=window, return_complex=True)
    # |X| has no slope at 0 and its logarithm no bottom
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=1e-7).sqrt()


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Gradients pass through but none is computed for the weights, which are a third of the work.

    Sharded weights are left as they are: FSDP decides once who learns, and the loop clears all gradients between turns.
    """
    learning = [p for p in module.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
