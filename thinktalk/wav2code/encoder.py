"""SpeechTokenizer: log-mel (B, 128, L) -> codes (B, L // 4), 25 a second (or 50), in independent blocks of 2 s.

    mel 100/s -> conv -> conv (stride 2) 50/s + sinusoids -> pre-LN layers -> mean of `pool` frames -> norm -> FSQ -> codes
                                                                                            or choice: an existing decoder's

The lower half of an ASR encoder with a quantiser on top: what a recogniser needs of speech, and little of who speaks
(CosyVoice 2's S3 tokens; training/c1_tokenizer.py trains it). Names and shapes of its layers are the audio encoder's, so
that one trained to hear is where it starts. A wave is Chain(LogMel(), tokenizer).

Letters: B rows, C pieces (blocks or rests) of one length, M mel bands, L mel frames, S frames after the strided convolution,
n codes, N = all frames, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.config import Wav2CodeConfig
from thinktalk.layers.audio_block import AudioBlock, sinusoids
from thinktalk.layers.linear import Linear
from thinktalk.layers.segments import Run
from thinktalk.stream import Blocked
from thinktalk.wav2code.fsq import FSQ
from thinktalk.wav2code.pieces import Pieces

__all__ = ["SpeechTokenizer"]

PASS_BLOCKS = 32  # blocks that run together at most when there is nothing to learn (64 s of sound): bounds memory


class SpeechTokenizer(Blocked):
    """Wave to codes. As a stream it waits for whole blocks; `encode` runs clips of any lengths at once."""

    time_dim, out_time_dim = 2, 1

    def __init__(self, config: Wav2CodeConfig):
        super().__init__()
        self.config = config
        self.block = config.block_frames
        self.ratio = Fraction(1, config.frames_per_code)
        self.conv1 = nn.Conv1d(config.num_mels, config.width, 3, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(
            AudioBlock(config.width, config.num_heads, config.ffn_width)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.fsq = None if config.choices else FSQ(config.width, config.levels)
        self.choice = Linear(config.width, config.choices) if config.choices else None

    def features(self, mels: Sequence[Tensor]) -> tuple[Tensor, Pieces]:
        """What is quantised, (N, D), of log-mels (M, L) each, and which clip each row is of (`join` parts them)."""
        weight = self.norm.weight
        pieces = Pieces.cut([mel.shape[1] for mel in mels], self.block)
        fronts = [self._front(x.to(weight.device, weight.dtype)) for x in pieces.stack(mels, 1)]
        if not fronts:
            return weight.new_empty(0, self.config.width), pieces
        runs = [(len(x_CSD), x_CSD.shape[1]) for x_CSD in fronts]
        x_ND = torch.cat([x_CSD.flatten(0, 1) for x_CSD in fronts])
        for layer in self.layers:
            x_ND = layer(x_ND, runs)
        parts = x_ND.split([C * S for C, S in runs])
        counts = [L // self.config.frames_per_code for _, L in pieces.runs]
        pooled = [self._pool(*part) for part in zip(parts, runs, counts, strict=True)]
        return self.norm(torch.cat(pooled)), pieces.shorten(self.config.frames_per_code)

    def index(self, x_ND: Tensor) -> Tensor:
        """Indices (N,) of features: the point of the grid they round to, or the likeliest of an existing decoder's codes."""
        if self.choice is not None:
            return self.choice(x_ND).argmax(-1)
        assert self.fsq is not None
        return self.fsq(x_ND).indices

    @torch.no_grad()
    def encode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Codes (L // 4,) int64 of each log-mel (M, L), as if each were alone.

        >>> [codes.shape for codes in tokenizer.encode([torch.zeros(128, 200), torch.zeros(128, 37)])]
        [torch.Size([50]), torch.Size([9])]
        """
        cut = [piece for mel in mels for piece in mel.split(self.block, 1)]
        codes = []
        for start in range(0, len(cut), PASS_BLOCKS):
            x_ND, pieces = self.features(cut[start : start + PASS_BLOCKS])
            codes += pieces.join(self.index(x_ND) + self.config.first_code)
        each = iter(codes)
        return [torch.cat([next(each) for _ in mel.split(self.block, 1)]) for mel in mels]

    # ---------------------------------------------------------------------------------------------------------- stream

    def compute(self, x: Tensor) -> Tensor:
        """Whole blocks, or one shorter rest, (B, M, L) -> (B, codes)."""
        return torch.stack(self.encode(x.unbind()))

    def empty_input(self, batch: int, *, device=None, dtype=None) -> Tensor:
        return torch.empty(batch, self.config.num_mels, 0, device=device, dtype=dtype)

    def empty_output(self, x: Tensor) -> Tensor:
        return torch.empty(len(x), 0, dtype=torch.int64, device=x.device)

    # ------------------------------------------------------------------------------------------------------------ parts

    def _front(self, mel_CML: Tensor) -> Tensor:
        """Convolutions and positions, which begin anew in every block: (C, M, L) -> (C, S, D)."""
        x_CDS = F.gelu(self.conv2(F.gelu(self.conv1(mel_CML))))
        x_CSD = x_CDS.transpose(1, 2).contiguous()
        table = sinusoids((self.block + 1) // 2, x_CSD.shape[2], x_CSD.device, x_CSD.dtype)
        return x_CSD + table[: x_CSD.shape[1]]

    def _pool(self, x_ND: Tensor, run: Run, n: int) -> Tensor:
        """Mean of `pool` consecutive frames in each piece; a rest is dropped: (C * S, D) -> (C * n, D)."""
        pool = self.config.pool
        kept = x_ND.unflatten(0, run)[:, : n * pool]
        return kept.unflatten(1, (n, pool)).mean(2).flatten(0, 1)
