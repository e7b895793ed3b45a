"""Voice activity: pcm (512,) at 16 kHz -> probability that somebody speaks, every 32 ms, with the published Silero weights.

    64 samples of before + 512 --STFT (258, 4)--> magnitudes (129, 4) --4 convolutions--> (128, 1) --LSTM--> probability

The weights come with the package silero-vad (MIT), which is never imported: it would set the number of torch's threads. The
network is written here, and a test holds it against the package's own. (Of its files the .safetensors has other weights than
those that the package runs, so they are taken from the latter.) All memory is in VadState; a Vad is shared by every conversation.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.errors import ConfigError
from thinktalk.stream import State

__all__ = ["FRAME", "RATE", "Vad", "VadState", "load_vad"]

RATE = 16_000
FRAME = 512  # samples: 32 ms, what the network was trained on
CONTEXT = 64  # samples of the frame before
WIDTH = 128
NAMES = {
    "_model.": "", "stft.forward_basis_buffer": "stft.weight", "encoder.": "convs.", ".reparam_conv": "",
    "decoder.rnn": "lstm", "decoder.decoder.2": "out",
}  # fmt: skip


@dataclass
class VadState(State):
    """What it remembers of one stream."""

    before: Tensor  # (B, 64) the last samples, zeros at start
    hidden: Tensor  # (B, 128)
    cell: Tensor  # (B, 128)


class Vad(nn.Module):
    """Silero's network for 16 kHz (version 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        shapes = [(129, 128, 1), (128, 64, 2), (64, 64, 2), (64, WIDTH, 1)]
        self.convs = nn.ModuleList(nn.Conv1d(i, o, 3, stride=s, padding=1) for i, o, s in shapes)
        self.lstm = nn.LSTMCell(WIDTH, WIDTH)
        self.out = nn.Conv1d(WIDTH, 1, 1)

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
        spectrum = self.stft(F.pad(x, (0, 64), mode="reflect").unsqueeze(1))
        real, imaginary = spectrum.chunk(2, 1)
        x = (real.square() + imaginary.square()).sqrt()
        for conv in self.convs:
            x = conv(x).relu()
        state.hidden, state.cell = self.lstm(x.squeeze(-1), (state.hidden, state.cell))
        return self.out(state.hidden.relu().unsqueeze(-1)).sigmoid().flatten()


@functools.cache
def load_vad() -> Vad:
    """The published weights, loaded once a process. Errors: ConfigError when the package is not installed."""
    found = importlib.util.find_spec("silero_vad")
    places = found.submodule_search_locations if found is not None else None
    if not places:
        raise ConfigError("turn_detection: the voice detector is not installed; pip install 'thinktalk[serve]'")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch is tired of its own format
        packed = torch.jit.load(Path(places[0]) / "data" / "silero_vad.jit", map_location="cpu")
    theirs = {name: value for name, value in packed.state_dict().items() if "_8k" not in name}
    vad = Vad()
    vad.load_state_dict({_ours(name): value for name, value in theirs.items()})
    return vad.eval().requires_grad_(False)


def _ours(name: str) -> str:
    """Their name of a parameter -> ours.

    >>> _ours("_model.encoder.0.reparam_conv.weight"), _ours("_model.decoder.rnn.bias_hh")
    ('convs.0.weight', 'lstm.bias_hh')
    """
    for old, new in NAMES.items():
        name = name.replace(old, new)
    return name
