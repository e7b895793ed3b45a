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

WINDOW_FRAMES = (
    1000  # 10 s: the context computed twice costs 7 %, a minute of speech would need 1 GB at once
)


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
        for i, mel in zip(said, mels, strict=True):
            # one at a time: padding to equal lengths would change the last frames of the shorter ones
            waves[i] = self.vocode(mel[None])[0]
        return waves

    @torch.inference_mode()
    def vocode(self, mel: Tensor) -> Tensor:
        """Float32 wave (B, 240 T) on the CPU of mel (B, 80, T), in windows, so that memory does not grow with T."""
        weight = self.vocoder.conv_post.weight
        mel = mel.to(weight.device, weight.dtype)
        state = self.vocoder.init_state(len(mel), device=weight.device, dtype=weight.dtype)
        windows = mel.split(WINDOW_FRAMES, 2)
        waves = [
            self.vocoder.step(window, state, last=i == len(windows) - 1)
            for i, window in enumerate(windows)
        ]
        return torch.cat(waves, 1).float().cpu()
