"""Speaker: sound of the model -> base64 on the wire, in the client's format, half a second at a time.

float32 (S,) at the model's rate --resampled--> 16-bit at 24 kHz, or G.711 at 8 kHz --base64--> response.output_audio.delta
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

import numpy as np
import torch

from thinktalk.layers.resample import resampler
from thinktalk.server import g711
from thinktalk.server.wire.realtime_session import Format

__all__ = ["Speaker"]

PIECE_S = 0.5  # of sound in an event: players start sooner, frames stay small


class Speaker:
    """One answer's sound, in the order in which it comes."""

    def __init__(self, format: Format, rate: int):
        self.format = format
        self._resampler = resampler(rate, format.samples_per_second)
        self._state = self._resampler.init_state(1)

    def feed(self, pcm: np.ndarray, *, last: bool = False) -> Iterator[str]:
        """Base64 of what is ready of float32 (S,)."""
        with torch.inference_mode():
            x = torch.from_numpy(np.array(pcm, np.float32))[None]
            pcm = self._resampler.step(x, self._state, last=last)[0].numpy()
        size = int(PIECE_S * self.format.samples_per_second)
        for start in range(0, len(pcm), size):
            yield b64encode(self._encoded(pcm[start : start + size])).decode()

    def _encoded(self, pcm: np.ndarray) -> bytes:
        if self.format.type == "audio/pcm":
            return np.round(np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes()
        return g711.encode(pcm, "mu" if self.format.type == "audio/pcmu" else "a")
