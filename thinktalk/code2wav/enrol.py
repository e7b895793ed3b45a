"""Enrolling: the mel of a clip (T, M) -> what the DiT and the Talker can be told of its voice.

    ref_mel    the clip itself: the DiT's own encoder hears who speaks
    bos_token  the nearest own voice's, by that encoder: the Talker knows no other tokens
    cond       zeros for a DiT that was trained without (nano). Officially it is the vector of an encoder that was never
               published; here it is fitted, the DiT frozen, to what it says of the clip:

               min over cond of E |v(x_t, t | codes, cond, ref_mel) - (mel - noise)|^2      x_t = (1 - t) noise + t mel

The last fifth of the clip is not learnt from: the vector kept is the one that did best there, the start among them.

Letters: T frames, M mel bands, B pieces, P blocks, F frames a block, n codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from thinktalk.code2wav.dit import DiT, Timbre
from thinktalk.code2wav.speaker import Voice
from thinktalk.errors import ConfigError, InputError

__all__ = ["STEPS", "Fit", "fit_cond", "has_cond", "nearest"]

STEPS = 200
RATE = 0.03  # in deviations of the vector it starts from
BETA_1, BETA_2 = 0.9, 0.99
PIECES, PIECE_BLOCKS = 4, 5  # heard together in a step: 480 frames, 4.8 s
EVERY = 10  # steps between looks at the held-out frames
HELD_BLOCKS, HELD_TIMES = 12, 4  # looked at: at most 2.9 s, at so many moments of the flow


@dataclass(frozen=True)
class Fit:
    """A fitted vector, and how much better than the start it explains frames that it was not fitted to."""

    cond: Tensor  # (1, speaker_width)
    before: float
    """Flow loss of the held-out frames with the vector it began with."""
    after: float
    steps: int


def has_cond(voices: Mapping[str, Voice]) -> bool:
    """Whether a model's own voices have a vector besides their mel."""
    return any(bool(voice.cond.any()) for voice in voices.values())


@torch.inference_mode()
def nearest(dit: DiT, ref_mel: Tensor, voices: Mapping[str, Voice]) -> Voice:
    """The voice whose ref_mel sounds most like ref_mel (1, T, M): the cosine of what the DiT's speaker encoder makes of them."""
    assert voices, "a model that speaks has a voice"
    like = dict(dtype=dit.input.weight.dtype, device=dit.input.weight.device)
    ours = dit.speaker(ref_mel.to(**like)).float()

    def likeness(voice: Voice) -> float:
        return float(F.cosine_similarity(ours, dit.speaker(voice.ref_mel.to(**like)).float()))

    return max(voices.values(), key=likeness)


def fit_cond(
    dit: DiT,
    mel: Tensor,
    start: Tensor,
    *,
    codes: Tensor | None = None,
    steps: int = STEPS,
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> Fit:
    """The `cond` with which the frozen DiT explains mel (T, M) best, from `start` (1, speaker_width) on.

    `codes` (n,) are what is said; None: the null code stands for all of them, as in the free half of guidance. `on_step`
    hears the number of each step; what it raises ends the fit. InputError for a clip under six blocks (1.4 s officially).
    ConfigError for a DiT in int8, which has no gradient.
    """
    if any(t.dtype == torch.int8 for t in dit.state_dict().values()):
        raise ConfigError("code2wav: is int8, expected floats to fit a voice; load it with dtype float32 or bfloat16")  # fmt: skip
    with torch.inference_mode(False), torch.enable_grad():
        clip = _Clip(dit, mel, codes, torch.Generator().manual_seed(seed))
        start = start.detach().clone().to(clip.device, torch.float32)
        cond = start.clone().requires_grad_()
        rate = RATE * (float(start.square().mean().sqrt()) or 1.0)
        mean, square = torch.zeros_like(start), torch.zeros_like(start)
        before = after = clip.held_loss(start)
        best = start
        for step in range(1, steps + 1):
            (slope,) = torch.autograd.grad(clip.loss(cond), cond)
            with (
                torch.no_grad()
            ):  # Adam (Kingma & Ba 2015); importing torch.optim takes a second and 600 modules
                mean.lerp_(slope, 1 - BETA_1)
                square.lerp_(slope.square(), 1 - BETA_2)
                deviation = (square / (1 - BETA_2**step)).sqrt() + 1e-12
                cond -= rate * mean / (1 - BETA_1**step) / deviation
            if step % EVERY == 0 or step == steps:
                now = clip.held_loss(cond)
                if now < after:
                    best, after = cond.detach().clone(), now
            if on_step is not None:
                on_step(step)
    return Fit(best.cpu(), before, after, steps)


class _Clip:
    """A clip as whole blocks: most to learn from, the last to be asked."""

    def __init__(self, dit: DiT, mel: Tensor, codes: Tensor | None, generator: torch.Generator):
        config = dit.config
        self.dit, self.generator = dit, generator
        self.device = dit.input.weight.device
        codes = torch.zeros(len(mel) // config.repeats, dtype=torch.int64) if codes is None else codes  # fmt: skip
        blocks = min(len(mel) // config.block_frames, len(codes) // config.block_codes)
        if blocks < 6:
            raise InputError(f"clip: has {blocks} blocks of {config.block_frames} mel frames, expected at least 6; record a longer one")  # fmt: skip
        self.mel = mel.detach().to(self.device, torch.float32).clone()
        self.codes = codes.to(self.device)
        self.learnt = blocks - max(1, blocks // 5)
        held = min(HELD_BLOCKS, blocks - self.learnt)
        self.held = [(self.learnt, held)] * HELD_TIMES
        self.held_times = (torch.arange(HELD_TIMES) + 0.5) / HELD_TIMES
        self.held_noise = self._noise(self.held)
        # the encoder, too, hears none of the frames that will be asked
        heard = self.mel[: self.learnt * config.block_frames].to(dit.input.weight.dtype)
        with torch.no_grad():
            self.speaker = dit.speaker(heard[None])

    def loss(self, cond: Tensor) -> Tensor:
        """The flow loss of a few pieces, at moments spread over logit-normal time (Esser 2024)."""
        count = min(PIECE_BLOCKS, self.learnt)
        first = torch.randint(self.learnt - count + 1, (PIECES,), generator=self.generator)
        pieces = [(int(f), count) for f in first]
        even = (torch.arange(PIECES) + torch.rand(PIECES, generator=self.generator)) / PIECES
        times = torch.sigmoid(torch.special.ndtri(even.clamp(1e-4, 1 - 1e-4)))
        return self._error(cond, pieces, times, self._noise(pieces))

    @torch.no_grad()
    def held_loss(self, cond: Tensor) -> float:
        """The flow loss of the held-out frames, the same draws every time."""
        return float(self._error(cond, self.held, self.held_times, self.held_noise))

    def _noise(self, pieces: Sequence[tuple[int, int]]) -> list[Tensor]:
        size = self.dit.config.block_frames
        return [
            torch.randn(n * size, self.mel.shape[1], generator=self.generator).to(self.device)
            for _, n in pieces
        ]

    def _error(
        self, cond: Tensor, pieces: Sequence[tuple[int, int]], times_B: Tensor, noise: list[Tensor]
    ) -> Tensor:
        """Mean square of velocity - (mel - noise) over pieces (first block, blocks), each at its time."""
        dit, config = self.dit, self.dit.config
        said = dit.input.voiced(self.speaker, cond.to(self.speaker.dtype))
        codes = [self.codes.split(config.block_codes)[a : a + n] for a, n in pieces]
        timbre = Timbre(said=said, free=said)
        condition = dit.condition([torch.cat(c) for c in codes], [timbre] * len(pieces), guided=False)  # fmt: skip
        blocks, size = condition.blocks, config.block_frames
        target_PFM = blocks.pack([self.mel[a * size : (a + n) * size] for a, n in pieces])
        noise_PFM = blocks.pack(noise)
        row_P = torch.cat([torch.full((n,), i) for i, (_, n) in enumerate(pieces)]).to(self.device)
        times_B = times_B.to(self.device)
        t_P11 = times_B[row_P][:, None, None]
        x_PFM = (1 - t_P11) * noise_PFM + t_P11 * target_PFM
        velocity_PFM = dit(x_PFM, dit.modulate(times_B).at(row_P), condition).float()
        return (velocity_PFM - (target_PFM - noise_PFM)).square().mean()
