"""Pieces: clips of any lengths cut into blocks, those of one length together, and joined again.

    clips of 5, 2 and 4 frames, blocks of 2      [0a 0b | 1a | 2a 2b] of 2 frames, [0c] of 1 frame

Layers then see few tensors of equal blocks (layers/segments.py) and a clip never hears another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from thinktalk.layers.segments import Run

__all__ = ["Pieces"]


@dataclass(frozen=True)
class Pieces:
    """Where each piece was: (clip, first frame, frames), whole blocks first, then the shorter rests by length."""

    cuts: tuple[tuple[int, int, int], ...]
    clips: int

    @classmethod
    def cut(cls, lengths: Sequence[int], block: int) -> Pieces:
        """The pieces of clips of so many frames, at most `block` frames each.

        >>> Pieces.cut([5, 2], 2).runs
        [(3, 2), (1, 1)]
        """
        cuts = [
            (clip, start, min(block, length - start))
            for clip, length in enumerate(lengths)
            for start in range(0, length, block)
        ]
        return cls(tuple(sorted(cuts, key=lambda cut: -cut[2])), len(lengths))

    @property
    def runs(self) -> list[Run]:
        """(count, frames) of the pieces of each length, as attention takes them."""
        return [(len(list(same)), n) for n, same in groupby(cut[2] for cut in self.cuts)]

    def stack(self, clips: Sequence[Tensor], dim: int = 0) -> list[Tensor]:
        """The pieces (count, ...) of each length, cut out of the clips along their dimension `dim`."""
        pieces = [clips[clip].narrow(dim, start, n) for clip, start, n in self.cuts]
        return [torch.stack(group) for group in _groups(pieces, self.runs)]

    def shorten(self, times: int) -> Pieces:
        """The same pieces where every `times` frames became one; a rest that does not fill one is dropped."""
        cuts = [(clip, start // times, n // times) for clip, start, n in self.cuts]
        return Pieces(tuple(cut for cut in cuts if cut[2]), self.clips)

    def join(self, y: Tensor) -> list[Tensor]:
        """What became of the frames, (sum of count * frames, ...) in the order of the runs, clip by clip again."""
        parts = y.split([n for _, _, n in self.cuts])
        whole: list[list[tuple[int, Tensor]]] = [[] for _ in range(self.clips)]
        for (clip, start, _), part in zip(self.cuts, parts, strict=True):
            whole[clip].append((start, part))
        return [
            torch.cat([part for _, part in sorted(clip, key=lambda item: item[0])]) if clip else y[:0]
            for clip in whole
        ]  # fmt: skip


def _groups(pieces: list[Tensor], runs: Sequence[Run]) -> list[list[Tensor]]:
    """Consecutive pieces, as many as each run has."""
    groups, start = [], 0
    for count, _ in runs:
        groups.append(pieces[start : start + count])
        start += count
    return groups
