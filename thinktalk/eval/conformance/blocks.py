"""Laws of ears and eyes: how many tokens, and who hears or sees whom. Exactly what makes both streamable.

A change outside of a block must not move its tokens (up to the rounding of a batch of another shape), a change inside must.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thinktalk.eval.conformance.invariant import Implementation, Invariant
from thinktalk.eval.conformance.layouts import audio_counts

__all__ = ["INVARIANTS"]

STILL = 1e-4  # of the largest value: float32 in another batch shape rounds 100 times less
MOVED = 1e-2
BLOCK_FRAMES, BLOCK_TOKENS = 200, 50  # 2 s


def _noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _far(a: Tensor, b: Tensor) -> float:
    """Largest difference, in parts of the largest value."""
    return ((a - b).abs().max() / b.abs().max()).item()


def _counts(implementation: Implementation) -> str | None:
    """Frames are halved by the convolution (up), then by the pooling (down)."""
    for frames, tokens in audio_counts().items():
        if (got := implementation.audio_tokens(frames)) != tokens:
            return f"{frames} mel frames: {got} tokens, expected {tokens}"
    return None


def _hear(implementation: Implementation) -> str | None:
    """Two blocks and a tail: each heard as if alone."""
    mel = _noise(128, 2 * BLOCK_FRAMES + 60, seed=1)
    mel[:, BLOCK_FRAMES : 2 * BLOCK_FRAMES] = mel[:, :BLOCK_FRAMES]  # the same sound twice
    whole = implementation.hear(mel)
    if len(whole) != 2 * BLOCK_TOKENS + 15:
        return f"{mel.shape[1]} mel frames: {len(whole)} tokens, expected {2 * BLOCK_TOKENS + 15}"
    first, second, tail = whole.split(BLOCK_TOKENS)
    if (far := _far(second, first)) > STILL:
        return f"the same 2 s, said twice, differ by {far:.1e}: positions do not begin anew every 2 s, or blocks hear each other"
    changed = mel.clone()
    changed[:, BLOCK_FRAMES - 1] += 1
    moved = implementation.hear(changed).split(BLOCK_TOKENS)
    if (far := _far(moved[0], first)) < MOVED:
        return f"a block whose last frame changed moved by {far:.1e} only: it does not hear itself whole"
    for name, now, before in (("second", moved[1], second), ("last", moved[2], tail)):
        if (far := _far(now, before)) > STILL:
            return f"a change in the first 2 s moved the {name} block by {far:.1e}: blocks hear each other"
    if (far := _far(implementation.hear(mel[:, 2 * BLOCK_FRAMES :]), tail)) > STILL:
        return f"the tail alone differs by {far:.1e} from the tail of the whole"
    return None


def _see(implementation: Implementation) -> str | None:
    """Two pairs of frames in one video are two videos of one pair."""
    times, rows, columns = 2, 4, 10
    patches = _noise(times * rows * columns, 1176, seed=2)
    whole = implementation.see(patches, (times, rows, columns)).chunk(2)
    for number, (alone, together) in enumerate(zip(patches.chunk(2), whole, strict=True)):
        if (far := _far(implementation.see(alone, (1, rows, columns)), together)) > STILL:
            return f"pair {number} of a video differs by {far:.1e} from the same pair alone: frames see each other, or know their time"
    changed = patches.clone()
    changed[0] += 1
    moved = implementation.see(changed, (times, rows, columns)).chunk(2)
    if (far := (moved[0][-1] - whole[0][-1]).abs().max().item()) == 0:
        return "the last token of a picture does not see its first patch: no layer sees the whole picture"
    return None


INVARIANTS = (
    Invariant("audio.count", "25 audio tokens a second: mel frames halved up, then down", _counts),
    Invariant("audio.blocks", "sound is heard in blocks of 2 s (200 frames), each as if alone, positions from 0 in each", _hear),
    Invariant("vision.frames", "each pair of frames is seen as if alone, and as a whole", _see),
)  # fmt: skip
