"""AudioEncoder: log-mel (B, 128, L) -> audio tokens (B, L // 4, D), in independent blocks of 2 s (200 frames -> 50 tokens).

    mel 100/s -> conv -> conv (stride 2) 50/s + sinusoids -> pre-LN layers -> mean of pairs 25/s -> norm -> proj

A block sees itself alone, so a stream of blocks is exact, and the blocks of all rows and clips run together.

Letters: B rows, C pieces (blocks or tails) of one length, M mel bands, L mel frames, S frames after the strided convolution,
N = sum(C * S), D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import groupby, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.config import AudioEncoderConfig
from thinktalk.layers.audio_block import AudioBlock
from thinktalk.layers.audio_block import sinusoids as _sinusoids
from thinktalk.layers.linear import Linear
from thinktalk.layers.segments import Run
from thinktalk.stream import Blocked

__all__ = ["AudioEncoder", "audio_token_count"]

PASS_BLOCKS = 16
"""Blocks that run together at most (32 s of sound): bounds the activations, 33 MB in the widest place at the official size,
which malloc still keeps for the next layer instead of giving it back to the system."""


def audio_token_count(mel_frames: int) -> int:
    """Audio tokens of a clip: halved and rounded up by the convolution, halved and rounded down by the pooling.

    >>> [audio_token_count(frames) for frames in (0, 2, 3, 200, 203)]
    [0, 0, 1, 50, 51]
    """
    return (mel_frames + 1) // 2 // 2


class AudioEncoder(Blocked):
    """The audio tower. As a stream it waits for whole blocks; `encode` runs clips of any lengths at once."""

    time_dim = 2
    out_time_dim = 1

    def __init__(self, config: AudioEncoderConfig):
        super().__init__()
        self.config = config
        self.block = config.block_frames
        self.ratio = Fraction(config.block_tokens, config.block_frames)
        self.conv1 = nn.Conv1d(config.num_mels, config.width, 3, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(
            AudioBlock(config.width, config.num_heads, config.ffn_width)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.proj = Linear(config.width, config.out_width)
        self.bos_eos = nn.Embedding(2, config.out_width)  # in the checkpoint, read by nothing

    def encode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Audio tokens (audio_token_count(L), D) of each log-mel (M, L), as if each were alone.

        >>> [tokens.shape for tokens in encoder.encode([torch.zeros(128, 200), torch.zeros(128, 37)])]
        [torch.Size([50, 2048]), torch.Size([9, 2048])]
        """
        pieces = [mel.split(self.block, 1) for mel in mels]
        flat = [piece for clip in pieces for piece in clip]
        tokens = [self.norm.weight.new_empty(0, self.config.out_width)] * len(flat)
        # full blocks first, then tails by length: pieces of one length become one tensor
        order = sorted(range(len(flat)), key=lambda i: -flat[i].shape[1])
        order = [i for i in order if audio_token_count(flat[i].shape[1])]
        for start in range(0, len(order), PASS_BLOCKS):
            batch = order[start : start + PASS_BLOCKS]
            groups = [list(g) for _, g in groupby(batch, key=lambda i: flat[i].shape[1])]
            outputs = self._run([torch.stack([flat[i] for i in group]) for group in groups])
            for i, output in zip(batch, outputs, strict=True):
                tokens[i] = output
        each = iter(tokens)
        return [torch.cat(list(islice(each, len(clip)))) for clip in pieces]

    # ---------------------------------------------------------------------------------------------------------- stream

    def compute(self, x: Tensor) -> Tensor:
        """Whole blocks, or one shorter rest, (B, M, L) -> (B, tokens, D)."""
        return torch.stack(self.encode(x.unbind()))

    def empty_input(self, batch: int, *, device=None, dtype=None) -> Tensor:
        return torch.empty(batch, self.config.num_mels, 0, device=device, dtype=dtype)

    def empty_output(self, x: Tensor) -> Tensor:
        return self.norm.weight.new_empty(len(x), 0, self.config.out_width)

    # ----------------------------------------------------------------------------------------------------------- tower

    def _run(self, groups: Sequence[Tensor]) -> list[Tensor]:
        """Pieces (C, M, L) of each length -> tokens (S // 2, D) of every piece, in order."""
        x_ND, runs = self.frames(groups)
        return list(self.adapt(x_ND, runs).split([S // 2 for C, S in runs for _ in range(C)]))

    def adapt(self, x_ND: Tensor, runs: Sequence[Run]) -> Tensor:
        """What the Thinker is told of what the last layer says (see `frames`): tokens (N', out_width), 25 a second."""
        parts = x_ND.split([C * S for C, S in runs])
        x_ND = torch.cat([self._pool(part, *run) for part, run in zip(parts, runs, strict=True)])
        return self.proj(self.norm(x_ND))

    def frames(self, groups: Sequence[Tensor]) -> tuple[Tensor, list[Run]]:
        """What the last layer says (N, D), 50 frames a second, of pieces (C, M, L) of each length, and their runs (C, S)."""
        weight = self.norm.weight
        fronts = [self._front(mel.to(weight.device, weight.dtype)) for mel in groups]
        runs = [(x_CSD.shape[0], x_CSD.shape[1]) for x_CSD in fronts]
        x_ND = torch.cat([x_CSD.flatten(0, 1) for x_CSD in fronts])
        for layer in self.layers:
            x_ND = layer(x_ND, runs)
        return x_ND, runs

    def _front(self, mel_CML: Tensor) -> Tensor:
        """Convolutions and positions, which begin anew in every block: (C, M, L) -> (C, S, D)."""
        x_CDS = F.gelu(self.conv2(F.gelu(self.conv1(mel_CML))))
        x_CSD = x_CDS.transpose(1, 2).contiguous()
        positions = _sinusoids(self.config.window_frames, x_CSD.shape[2], x_CSD.device, x_CSD.dtype)
        return x_CSD + positions[: x_CSD.shape[1]]

    @staticmethod
    def _pool(x_ND: Tensor, C: int, S: int) -> Tensor:
        """Mean of consecutive pairs in each piece; an odd last frame is dropped: (C * S, D) -> (C * (S // 2), D)."""
        pairs = x_ND.view(C, S, -1)[:, : S // 2 * 2].unflatten(1, (S // 2, 2))
        return pairs.mean(2).flatten(0, 1)
