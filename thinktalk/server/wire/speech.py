"""What /v1/audio/speech takes, as OpenAI's clients write it; `seed` is our own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from thinktalk.server.wire.chat import MAX_SEED, VoiceId, Wire

__all__ = ["SpeechRequest"]

MAX_CHARACTERS = 4096
"""As OpenAI has it."""


class SpeechRequest(Wire):
    """A text to say."""

    input: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, pattern=r"\S")]
    model: str | None = None
    voice: str | VoiceId = "default"
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    seed: Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED)] | None = None
    # what is refused when it asks for something
    speed: float = 1.0
    instructions: str | None = None

    @property
    def voice_name(self) -> str:
        """Its voice's name."""
        return self.voice if isinstance(self.voice, str) else self.voice.id

    def unsupported(self) -> tuple[str, str] | None:
        """A field that asks for what this server does not do."""
        if self.speed != 1.0:
            return "speed", f"{self.speed:g}, and the model speaks at its own pace; play it faster or slower"  # fmt: skip
        if self.instructions:
            return "instructions", "the model takes none for how to speak; choose another voice"
        return None
