"""What a conversation gives back: text and sound as they come, and the whole reply at the end.

for event in omni.stream(messages): TextDelta | AudioChunk | Done(reply)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["AudioChunk", "ContextLimit", "Done", "Event", "Latency", "Reply", "TextDelta"]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """What the listener of a streamed reply waited for; None where there was nothing. docs/latency.md says more.

    input_ms, text_to_code_ms and code_to_sound_ms follow one another and add up to first_sound_ms.
    """

    input_ms: float | None
    """From the request to the first token of text: what was heard and seen last is encoded and read."""
    text_to_code_ms: float | None
    """From there to the first code of speech."""
    code_to_sound_ms: float | None
    """From there to the first sound."""
    steps_ms: float | None
    """Of first_sound_ms, the time inside steps of the model; the rest went by while others had their turn."""
    first_sound_ms: float | None
    """From the request to the first sound."""
    total_ms: float
    """From the request to the end."""
    real_time_factor: float | None
    """Time from the request to the last sound, over the length of the sound."""
    work_factor: float | None
    """Its own part of all steps of the model, over the length of the sound."""
    work_ms: dict[str, float]
    """Its own part of the steps of each kind: of a step over n replies, an n-th."""
    underruns: int
    """How often the listener had heard all that was there and waited for more."""
    underrun_ms: float
    """How long he waited so in all."""
    margin_ms: float | None
    """The least time by which a stretch of sound came before its turn to be played; 0 when one came late."""


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
    """Milliseconds of each stage; of a streamed reply, from the request to its first token, code, sound, and so on."""
    latency: Latency | None = None
    """What its listener waited for; None when it was not streamed."""

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


@dataclass(frozen=True, kw_only=True)
class ContextLimit:
    """The conversation has reached the model's context: not all that came was taken in, or no answer fits any more."""

    tokens: int
    """Tokens of the conversation."""
    limit: int
    """Tokens that fit, some kept for the answer."""


Event = TextDelta | AudioChunk | Done | ContextLimit
