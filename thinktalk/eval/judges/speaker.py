"""Speakers: pcm (S,) at 16 kHz -> a voice (256,) of unit length, by Resemblyzer's encoder (Wan 2018, GE2E), in plain torch.

    40 mel bands, power, no logarithm, 100 frames a second --windows of 1.6 s--> LSTM x 3 -> linear, ReLU, unit length -> mean

The same voice 0.92 to 0.95, others 0.45 to 0.72 (Kokoro's, measured). Its weights are a pickle: it is read as a table of
tensors and nothing in it is run. The original cuts silence by WebRTC's detector; here what lies 40 dB under the loudest
30 ms is cut, but for 0.12 s on either side of what is louder: the same length to 0.1 s, the same voice to a cosine of 0.993.

S samples, T frames, M mel bands, W windows.
"""

from __future__ import annotations

import io
import os
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from thinktalk.data.synth.packages import Package, fetch, files
from thinktalk.errors import InputError
from thinktalk.layers.mel import mel_filter_bank

__all__ = ["VoiceEncoder", "trimmed"]

WEIGHTS = Package("pip", "resemblyzer", "0.1.4", "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f")  # fmt: skip
"""Apache-2.0."""
SAMPLE_RATE, HOP, N_FFT, NUM_MELS = 16_000, 160, 400, 40
WINDOW = 160  # frames: 1.6 s
WINDOWS_PER_SECOND = 1.3
FULL_ENOUGH = 0.75  # share of the last window that must be sound
LOUDNESS_DB = -30.0  # what is softer is made that loud
BLOCK, QUIET_DB, MARGIN = 480, -40.0, 4  # 30 ms; 0.12 s


class VoiceEncoder(nn.Module):
    """Who speaks."""

    name = f"resemblyzer {WEIGHTS.version}"

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(NUM_MELS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        bands = mel_filter_bank(NUM_MELS, N_FFT, SAMPLE_RATE).float()
        self.register_buffer("bands_FM", bands, persistent=False)

    @classmethod
    def fetched(cls, cache: str | os.PathLike[str] | None = None) -> Self:
        """With the published weights. Errors: InputError (the package cannot be had, or holds something else)."""
        (content,) = (c for _, c in files(fetch(WEIGHTS, cache), "resemblyzer/pretrained.pt"))
        return cls.read(content)

    @classmethod
    def read(cls, content: bytes) -> Self:
        """With the weights of a checkpoint of Resemblyzer. Errors: InputError (no plain table of its tensors)."""
        encoder = cls()
        try:
            stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            known = encoder.state_dict()
            state = {name: stored["model_state"][name] for name in known}
            encoder.load_state_dict(state)
        except Exception as error:  # the unpickler raises nearly anything on bytes it does not like
            why = " ".join(str(error).split())[:120]
            raise InputError(f"{WEIGHTS}: is no plain table of its tensors ({why}), nothing in it was run; fetch it again") from None  # fmt: skip
        return encoder.eval().requires_grad_(False)

    def forward(self, mel_WTM: Tensor) -> Tensor:
        """Windows of mel frames -> voices (W, 256), unit length."""
        _, (hidden, _) = self.lstm(mel_WTM)
        return functional.normalize(functional.relu(self.linear(hidden[-1])), dim=1)

    @torch.inference_mode()
    def embed(self, pcm: np.ndarray) -> np.ndarray:
        """The voice (256,) of a wave (S,) at 16 kHz, unit length. Errors: InputError (nothing but silence)."""
        sound = trimmed(np.asarray(pcm, np.float32))
        if not len(sound) or not np.any(sound):
            raise InputError("sound: is nothing but silence, expected a voice; give one that speaks")  # fmt: skip
        starts = _windows(len(sound))
        mel_TM = self.mel(torch.from_numpy(_padded(sound, (starts[-1] + WINDOW) * HOP)))
        windows = self(torch.stack([mel_TM[start : start + WINDOW] for start in starts]))
        return functional.normalize(windows.mean(0), dim=0).numpy()

    def mel(self, pcm_S: Tensor) -> Tensor:
        """Mel powers (S // 160 + 1, 40), windows centred, zeros beyond both ends."""
        spectrum = torch.stft(
            pcm_S, N_FFT, HOP, window=torch.hann_window(N_FFT), center=True, pad_mode="constant", return_complex=True
        )  # fmt: skip
        return spectrum.abs().square().T @ self.bands_FM


def trimmed(pcm: np.ndarray) -> np.ndarray:
    """The wave without its long pauses, and at least as loud as the encoder is used to."""
    power = float(np.mean(np.square(pcm))) if len(pcm) else 0.0
    if power == 0:
        return pcm[:0]
    pcm = pcm * np.float32(max(1.0, 10 ** (LOUDNESS_DB / 20) / power**0.5))
    blocks = _padded(pcm, -(-len(pcm) // BLOCK) * BLOCK).reshape(-1, BLOCK)
    loud = np.sqrt(np.mean(np.square(blocks), 1))
    speaks = loud > loud.max() * 10 ** (QUIET_DB / 20)
    near = np.convolve(speaks, np.ones(2 * MARGIN + 1))[MARGIN : MARGIN + len(blocks)]
    return blocks[near > 0].reshape(-1)


def _padded(pcm: np.ndarray, length: int) -> np.ndarray:
    """Zeros behind a wave up to a length."""
    return np.pad(pcm, (0, max(0, length - len(pcm))))


def _windows(samples: int) -> list[int]:
    """First frames of the windows over a wave, as the original lays them: 1.3 a second, the last one three quarters full."""
    frames = -(-(samples + 1) // HOP)
    step = round(SAMPLE_RATE / WINDOWS_PER_SECOND / HOP)
    starts = list(range(0, max(1, frames - WINDOW + step + 1), step))
    full = (samples - starts[-1] * HOP) / (WINDOW * HOP)
    return starts[:-1] if full < FULL_ENOUGH and len(starts) > 1 else starts
