"""Windows: which blocks of codes go through the DiT together when speech is streamed; a fixed function of the block's index.

    own blocks, groups (2, 3, 4, 6, 8, 12, 12, ...)    0 1 | 2 3 4 | 5 6 7 8 | 9 ...
    window 2, one block of look-ahead                                5 6 7 8 + 9         9 is computed again later
    ... and two blocks of look-back                            3 4 + 5 6 7 8 + 9

Timing never moves a boundary, so however the codes come, the sound is the same. Without look-back a window still hears the
past: what the look-back layers heard of the block before is remembered from window to window.

Letters: B rows, n codes, F frames (a block's, in memories), M mel bands, D width;
memories: C evaluations of the flow x look-back layers, H halves (conditioned, free), R = H x utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thinktalk.code2wav.dit import DiT, Memory, Timbre
from thinktalk.code2wav.flow import MIN_GUIDANCE, Plan, integrate
from thinktalk.errors import ConfigError
from thinktalk.stream import unstack

__all__ = ["Cut", "Windows", "sample_windows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """How codes are cut for streaming, and how the flow walks in each window."""

    look_back_blocks: int | None = None
    """Blocks (240 ms) before its own that a window computes anew; None computes none and remembers what its look-back
    layers heard of the block before at every evaluation, so that the past is heard exactly as it was spoken."""
    look_ahead_blocks: int = 1
    """Blocks after its own that a window waits for."""
    groups: tuple[int, ...] = (2, 3, 4, 6, 8, 12)
    """Own blocks of the first windows: small for an early first sound, then growing for speed; the last one repeats. The first
    has two, since the vocoder gives no sound of one block alone until it has heard the next."""
    vocoder_lookahead: int | None = None
    """Mel frames the vocoder waits for; None is what its convolutions reach (24 officially: the rest is below float32)."""
    points: int = 10
    """Times of the flow's walk."""
    guidance: float = 0.5
    """Strength of the classifier-free guidance."""
    sway: float | None = -1.0
    """Sway of the walk's times."""
    method: str = "rk4"
    """Solver of the flow: rk4, midpoint, euler."""

    def __post_init__(self) -> None:
        if not self.groups or min(self.groups) < 1:
            raise ConfigError(f"windows: groups {self.groups}, expected one or more blocks each")
        for name in ("look_back_blocks", "look_ahead_blocks", "vocoder_lookahead"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"windows: {name} {value}, expected 0 or more")

    def own(self, index: int) -> tuple[int, int]:
        """First block of window number `index` and the one after its last."""
        told = len(self.groups) - 1
        start = sum(self.groups[: min(index, told)]) + max(0, index - told) * self.groups[-1]
        return start, start + self.groups[min(index, told)]

    def computed(self, index: int) -> tuple[int, int]:
        """The same with what it looks back and ahead at."""
        start, stop = self.own(index)
        return max(0, start - (self.look_back_blocks or 0)), stop + self.look_ahead_blocks


@dataclass(frozen=True)
class Cut:
    """One window of one stream, whose rows are equally far."""

    timbre: Timbre  # (B, D) each
    codes: Tensor  # (B, n)
    noise: Tensor  # (B, F, M) of all its frames
    past: (
        Tensor | None
    )  # (B, C, H, F, D) what the look-back layers heard of the block before; None at the start
    skip: int  # frames of the look-back
    keep: int  # own frames; 0 when only the vocoder's last frames are left
    last: bool  # whether the stream ends with it


@torch.inference_mode()
def sample_windows(
    dit: DiT, cuts: Sequence[Cut], walk: Plan, *, guidance: float, remember: bool
) -> list[tuple[Tensor, Tensor | None]]:
    """Mel (B, M, own frames) of windows of several streams in one walk, and with `remember` the past of the next ones.

    As flow.sample_many, where every window was an utterance; a window's result does not depend on its company.
    """
    if not cuts:
        return []
    guided, size = guidance >= MIN_GUIDANCE, dit.config.block_frames
    rows = [(cut, row) for cut in cuts for row in range(len(cut.codes))]
    condition = dit.condition(
        [cut.codes[row] for cut, row in rows],
        [timbre for cut in cuts for timbre in unstack(cut.timbre)],
        guided=guided,
        past=[cut.past is not None for cut, _ in rows] if remember else None,
    )
    blocks, device = condition.blocks, condition.constant.device
    if remember:
        counts = torch.tensor([0, *(-(-frames // size) for frames in blocks.frames)]).cumsum(0)
        newest = torch.tensor([-(-(cut.skip + cut.keep) // size) - 1 for cut, _ in rows])
        kept = counts[:-1] + newest  # the last own block of each window
        if guided:
            kept = torch.cat([kept, counts[-1] + kept])
        condition = replace(condition, memory=Memory(_join_pasts(cuts), kept.to(device)))
    x_PFM = blocks.pack([cut.noise[row].to(device) for cut, row in rows])
    mel_PFM = integrate(dit, x_PFM, condition, walk, guidance=guidance)
    own = [mel[cut.skip :][: cut.keep].T for (cut, _), mel in zip(rows, blocks.unpack(mel_PFM), strict=True)]  # fmt: skip
    sizes = [len(cut.codes) for cut in cuts]
    pasts: Sequence[Tensor | None] = [None] * len(cuts)
    if condition.memory is not None and condition.memory.made:
        made_CRFD = torch.stack(condition.memory.made)
        pasts = made_CRFD.unflatten(1, (1 + guided, -1)).permute(2, 0, 1, 3, 4).split(sizes)
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [
        (torch.stack(own[end - n : end]), past if past is None else past.contiguous())
        for end, n, past in zip(ends, sizes, pasts, strict=True)
    ]


def _join_pasts(cuts: Sequence[Cut]) -> Tensor | None:
    """The pasts of all streams as (C, R, F, D), zeros where a stream has none; None when none has."""
    known = next((cut.past for cut in cuts if cut.past is not None), None)
    if known is None:
        return None
    shape = known.shape[1:]
    parts = [known.new_zeros(len(cut.codes), *shape) if cut.past is None else cut.past for cut in cuts]  # fmt: skip
    return torch.cat(parts).permute(1, 2, 0, 3, 4).flatten(1, 2)
