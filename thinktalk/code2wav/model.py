"""Code2Wav: codes (n,) and a voice -> 24 kHz wave (480 n,): the flow makes the mel, BigVGAN the wave."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.flow import sample_many
from thinktalk.code2wav.speaker import Voice
from thinktalk.config import Code2WavConfig

__all__ = ["Code2Wav"]


class Code2Wav(nn.Module):
    """Whole utterances at once, exactly as the reference."""

    def __init__(self, dit: DiT, vocoder: BigVGAN, config: Code2WavConfig):
        super().__init__()
        self.dit, self.vocoder, self.config = dit, vocoder, config

    @torch.inference_mode()
    def forward(
        self, codes: Tensor, voice: Voice, *, noise: Tensor | None = None, **flow
    ) -> Tensor:
        """Float32 samples (480 n,) of codes (n,), or (B, 480 n) of codes (B, n).

        `noise` (2n, 80) or (B, 2n, 80) fixes the result. `flow`: generator, points, guidance, sway, method of
        flow.sample_many. No codes give no samples. InputError as DiT.condition.
        """
        rows = codes if codes.ndim == 2 else codes[None]
        if noise is not None and noise.ndim == 2:
            noise = noise[None]
        waves = self.speak(list(rows), [voice] * len(rows), noise=noise, **flow)
        return torch.stack(waves) if codes.ndim == 2 else waves[0]

    @torch.inference_mode()
    def speak(
        self,
        codes: Sequence[Tensor],
        voices: Sequence[Voice],
        *,
        noise: Sequence[Tensor] | None = None,
        **flow,
    ) -> list[Tensor]:
        """Float32 waves (480 n,) of several utterances of any lengths, codes (n,) each."""
        said = [i for i, c in enumerate(codes) if len(c)]
        waves = [torch.zeros(0) for _ in codes]
        if not said:
            return waves
        mels = sample_many(
            self.dit,
            [codes[i] for i in said],
            [voices[i] for i in said],
            noise=None if noise is None else [noise[i] for i in said],
            **flow,
        )
        weight = self.vocoder.conv_post.weight
        for i, mel in zip(said, mels, strict=True):
            # one at a time: padding to equal lengths would change the last 25 frames of the shorter ones
            waves[i] = self.vocoder(mel[None].to(weight.device, weight.dtype))[0].float().cpu()
        return waves
