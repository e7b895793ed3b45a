"""What a conversation gives back: text and sound as they come, and the whole reply at the end.

for event in omni.stream(messages): TextDelta | AudioChunk | Done(reply)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["AudioChunk", "Done", "Event", "Reply", "TextDelta"]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One whole answer; neither token_ids nor codes hold their end token."""

    text: str
    """What the Thinker wrote."""
    token_ids: list[int]
    """Its tokens."""
    audio: np.ndarray | None = None
    """float32 (samples,) in [-1, 1]; None without speech."""
    codes: list[int] | None = None
    """Speech codes; None without speech."""
    sample_rate: int = 24_000
    """Samples a second of `audio`."""
    prompt_tokens: int = 0
    """Tokens of the prompt, media included."""
    finish: str = "stop"
    """Why the text ended: "stop" (its end token) or "length" (max_text_tokens or the context)."""
    timing: dict[str, float] = field(default_factory=dict)
    """Milliseconds of each stage."""

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return 0.0 if self.audio is None else len(self.audio) / self.sample_rate


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """The next piece of text, cut at whole characters."""

    text: str
    """The piece."""
    at_s: float
    """Seconds since the request."""


@dataclass(frozen=True, kw_only=True)
class AudioChunk:
    """The next piece of sound."""

    pcm: np.ndarray
    """float32 (samples,)."""
    start_s: float
    """Where it begins in the spoken answer (seconds)."""
    at_s: float
    """Seconds since the request."""
    sample_rate: int = 24_000
    """Samples a second."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """The end; everything that was said, as `chat` would have returned it."""

    reply: Reply
    """The whole reply."""


Event = TextDelta | AudioChunk | Done
