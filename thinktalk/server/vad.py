"""Voice activity: pcm (512,) at 16 kHz -> probability that somebody speaks, every 32 ms, with the published Silero weights.

    64 samples of before + 512 --STFT (258, 4)--> magnitudes (129, 4) --4 convolutions--> (128, 1) --LSTM--> probability

The weights come with the package silero-vad (MIT), which is never imported: it would load a second runtime and set the
number of torch's threads. The network is written here, and a test holds it against the package's own. All memory is in
VadState; a Vad is shared by every conversation.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from thinktalk.errors import ConfigError
from thinktalk.stream import State

__all__ = ["FRAME", "RATE", "Vad", "VadState", "load_vad"]

RATE = 16_000
FRAME = 512  # samples: 32 ms, what the network was trained on
CONTEXT = 64  # samples of the frame before
WIDTH = 128


@dataclass
class VadState(State):
    """What it remembers of one stream."""

    before: Tensor  # (B, 64) the last samples, zeros at start
    hidden: Tensor  # (B, 128)
    cell: Tensor  # (B, 128)


class Vad(nn.Module):
    """Silero's network for 16 kHz (version 6); parameters are named as in its safetensors file."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, WIDTH, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(WIDTH, WIDTH)
        self.final_conv = nn.Conv1d(WIDTH, 1, 1)

    def init_state(self, batch: int = 1) -> VadState:
        """Silence before the first sample."""
        return VadState(
            torch.zeros(batch, CONTEXT), torch.zeros(batch, WIDTH), torch.zeros(batch, WIDTH)
        )

    @torch.inference_mode()
    def step(self, pcm: Tensor, state: VadState) -> Tensor:
        """Probability (B,) of speech in one frame (B, 512) in -1..1."""
        assert pcm.shape[1] == FRAME, f"expected {FRAME} samples, got {pcm.shape[1]}"
        x = torch.cat([state.before, pcm], 1)
        state.before = x[:, -CONTEXT:].clone()
        spectrum = self.stft_conv(F.pad(x, (0, 64), mode="reflect").unsqueeze(1))
        real, imaginary = spectrum.chunk(2, 1)
        x = (real.square() + imaginary.square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        state.hidden, state.cell = self.lstm_cell(x.squeeze(-1), (state.hidden, state.cell))
        return self.final_conv(state.hidden.relu().unsqueeze(-1)).sigmoid().flatten()


@functools.cache
def load_vad() -> Vad:
    """The published weights, loaded once a process. Errors: ConfigError when the package is not installed."""
    found = importlib.util.find_spec("silero_vad")
    places = found.submodule_search_locations if found is not None else None
    if not places:
        raise ConfigError("turn_detection: the voice detector is not installed; pip install 'thinktalk[serve]'")  # fmt: skip
    vad = Vad()
    vad.load_state_dict(load_file(Path(places[0]) / "data" / "silero_vad_16k.safetensors"))
    return vad.eval().requires_grad_(False)
