"""Vocoding: mels of several streams (B, M, F) -> waves (B, 240 F), as far as the vocoder sees ahead; the rest comes later.

BigVGAN hears 34 frames to each side, but what only the tails of its anti-aliasing filters reach is far below float32
(docs/streaming.md). So a stream hears what the convolutions reach: 24 frames officially, or fewer ahead if it is told so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from thinktalk.code2wav.bigvgan import BigVGAN, receptive_field
from thinktalk.stream import Windowed, WindowedState, stack, unstack

__all__ = ["StreamVocoder"]


class StreamVocoder(Windowed):
    """BigVGAN with a look-ahead of our choice.

    Below the exact field a sample depends on the mel beyond its look-ahead that happens to be there: chunks must then be
    cut at fixed places, as the windows of speech are.
    """

    time_dim, out_time_dim = 2, 1

    def __init__(self, vocoder: BigVGAN, lookahead: int | None = None):
        super().__init__()
        self.bigvgan = vocoder
        self.ratio = vocoder.ratio
        behind, ahead = receptive_field(vocoder.config, snake_reach=0)
        self.lookahead = min(ahead if lookahead is None else lookahead, vocoder.lookahead)
        exact = self.lookahead == vocoder.lookahead
        self.left = vocoder.left if exact else behind

    @property
    def weight(self) -> Tensor:
        """A weight: where, and in which precision, the vocoder computes."""
        return self.bigvgan.conv_post.weight

    def compute(self, window: Tensor) -> Tensor:
        return self.bigvgan.compute(window)

    def empty_input(self, batch: int, *, device=None, dtype=None) -> Tensor:
        return self.bigvgan.empty_input(batch, device=device, dtype=dtype)

    def empty_output(self, x: Tensor) -> Tensor:
        return self.bigvgan.empty_output(x)

    def step_many(
        self, mels: Sequence[Tensor], states: Sequence[WindowedState], lasts: Sequence[bool]
    ) -> list[Tensor]:
        """Waves (B, S) of the next mels of several streams; streams that are equally far go in one batch."""
        alike = defaultdict(list)
        for i, (mel, state, last) in enumerate(zip(mels, states, lasts, strict=True)):
            alike[state.context.shape[2], state.pending.shape[2], mel.shape[2], last].append(i)
        waves, after = [torch.empty(0)] * len(mels), list(states)
        for (*_, last), members in alike.items():
            mel = torch.cat([mels[i] for i in members]).to(self.weight)
            together = stack([states[i] for i in members])
            wave, parted = self.step(mel, together, last=last), unstack(together)
            for i, own in zip(members, wave.split([len(mels[i]) for i in members]), strict=True):
                after[i], parted = stack(parted[: len(own)]), parted[len(own) :]
                waves[i] = own
        for state, new in zip(states, after, strict=True):  # all or none go on
            state.context, state.pending = new.context, new.pending
        return waves
