"""Invariants: an Implementation is asked small questions, and each answer is held against a law -> Findings.

An Implementation answers with plain tensors and knows nothing of the laws; an Invariant knows the law and nothing of the
code. A third implementation is one class with some of these methods; what raises NotImplementedError is not asked.

Letters: T tokens, P tokens of a prompt, F mel frames, H heads, K head width, D width, N tokens, V vocabulary, B rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from thinktalk.eval.conformance.layouts import Layout
from thinktalk.media.timeline import Video

__all__ = [
    "PLANTS", "DiTAttention", "Finding", "Implementation", "Invariant", "Sampling", "Speech", "examine",
]  # fmt: skip

PLANTS = {
    "dit-rope": "the DiT's angles in half order under interleaved pairs (transformers from October 2025 to July 2026)",
    "av-ids": "the sound of a video one id too late (the kind of off-by-one that vLLM had until April 2025)",
}
"""Faults that were shipped, by the name under which they can be planted."""


@dataclass(frozen=True)
class DiTAttention:
    """What one attention layer of the DiT was given, and what its heads made of it before the output projection."""

    layer: int
    back: bool  # whether it hears the block before
    ahead: bool  # whether it hears the block after
    block_frames: int
    x_FD: Tensor
    heads_FHK: Tensor
    q: tuple[Tensor, Tensor]  # weight (H * K, D), bias (H * K,)
    k: tuple[Tensor, Tensor]
    v: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Speech:
    """One spoken answer, overheard: what Thinker and Talker read, as vectors of the Thinker's width D."""

    media_P: Tensor  # bool: where a medium stands in the prompt
    prompt_embeds_PD: Tensor  # what the Thinker read, media included
    prompt_hidden_PD: Tensor  # its last hidden states, after the final norm
    prompt_positions_3P: Tensor
    reply_embeds_ND: Tensor  # of the reply tokens that the Thinker read: all but the last
    reply_hidden_ND: Tensor
    words: dict[str, Tensor]  # (D,) Thinker embeddings: voice, text_end, text_pad
    marks: dict[str, Tensor]  # (D,) codec embeddings: pad, bos
    codes_CD: Tensor  # codec embeddings of the codes that were fed back
    inputs_TD: Tensor  # what the Talker read, before its projection: P + 2 + C
    positions_3T: Tensor


@dataclass(frozen=True)
class Sampling:
    """Settings of a draw; the defaults are the reference's for codes."""

    temperature: float = 0.9
    top_k: int = 40
    top_p: float = 0.8
    repetition_penalty: float = 1.05
    suppress: tuple[int, ...] = ()


_UNASKED = "it has no answer to this"


class Implementation(Protocol):
    """What an implementation is asked. Inherit from it and write what you have: the rest is not asked."""

    name: str
    version: str = ""
    known: dict[str, str] = {}
    """Invariants it is known to break, and what is known of that; they do not count as broken."""

    def positions(self, layout: Layout) -> tuple[Tensor, int]:
        """TMRoPE ids (3, T) of a prompt whose tokens and media are given, and the delta of generation."""
        raise NotImplementedError(_UNASKED)

    def order(self, video: Video) -> list[tuple[str, int]]:
        """Runs of "video" and "audio" tokens between the marks of a video with sound, neighbours of one kind joined."""
        raise NotImplementedError(_UNASKED)

    def audio_tokens(self, mel_frames: int) -> int:
        """Audio tokens of a clip of so many mel frames."""
        raise NotImplementedError(_UNASKED)

    def hear(self, mel: Tensor) -> Tensor:
        """Audio tokens (N, D) of a log-mel (128, L)."""
        raise NotImplementedError(_UNASKED)

    def see(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Vision tokens (N / 4, D) of patches (N, 1176) of a grid (times, rows, columns)."""
        raise NotImplementedError(_UNASKED)

    def rotate(
        self, x_THK: Tensor, positions_3T: Tensor, sections: tuple[int, int, int], theta: float
    ) -> Tensor:
        """Queries of the Thinker turned by multimodal positions."""
        raise NotImplementedError(_UNASKED)

    def dit_attention(self, codes: int) -> list[DiTAttention]:
        """Every attention layer of one evaluation of the DiT, of an utterance of so many codes."""
        raise NotImplementedError(_UNASKED)

    def speech(self, *, padded: bool) -> Speech:
        """A prompt with a sound, answered aloud; with a pad token before it, or alone."""
        raise NotImplementedError(_UNASKED)

    def probabilities(self, logits_BV: Tensor, said_BT: Tensor, sampling: Sampling) -> Tensor:
        """What the next code is drawn from (B, V), after the codes said."""
        raise NotImplementedError(_UNASKED)

    def flow_times(self) -> list[float]:
        """The times at which the flow asks the DiT, in order, with default settings."""
        raise NotImplementedError(_UNASKED)

    def planted(self, plant: str) -> AbstractContextManager[None]:
        """With a fault of PLANTS in its code."""
        raise NotImplementedError(_UNASKED)


@dataclass(frozen=True)
class Invariant:
    """A law. `examine` gives None where it is kept, or one line that says how it broke."""

    key: str
    law: str
    examine: Callable[[Implementation], str | None]


@dataclass(frozen=True)
class Finding:
    """One invariant of one implementation."""

    implementation: str
    key: str
    law: str
    outcome: str
    """ "kept", "broken", "known" (broken, as is known) or "not asked"."""
    detail: str = ""
    seconds: float = 0.0


def examine(implementation: Implementation, invariants: Iterable[Invariant]) -> Iterator[Finding]:
    """A Finding an invariant. An implementation that fails to answer has broken the law: an interface that moved is a finding."""
    name = f"{implementation.name} {implementation.version}".rstrip()
    for invariant in invariants:
        start = time.perf_counter()
        outcome = "kept"
        try:
            detail = invariant.examine(implementation)
        except NotImplementedError as error:
            outcome, detail = "not asked", str(error)
        except Exception as error:  # whatever another project raises
            detail = f"raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if outcome == "kept" and detail is not None:
            outcome = "broken"
            if invariant.key in implementation.known:
                outcome, detail = "known", f"{implementation.known[invariant.key]}: {detail}"
        seconds = time.perf_counter() - start
        yield Finding(name, invariant.key, invariant.law, outcome, detail or "", round(seconds, 3))
