"""What /v1/voices answers, and /v1/audio/voices, as OpenAI's client reads it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

__all__ = ["AudioVoice", "DeletedAudioVoice", "DeletedVoice", "VoiceInfo", "VoiceList"]


class VoiceInfo(BaseModel):
    """A voice that `voice` may name."""

    id: str
    """What requests call it: its name."""
    object: Literal["voice"] = "voice"
    name: str
    created_at: int
    """Seconds since 1970; of the model's own voices, when the server began."""
    deletable: bool
    """Enrolled here, by who asks or by anybody where no keys are set."""
    experimental: bool = False
    """The model cannot hear this voice whole: what it lacks was fitted or borrowed."""


class VoiceList(BaseModel):
    """All of them, the default one first."""

    object: Literal["list"] = "list"
    data: list[VoiceInfo]


class DeletedVoice(BaseModel):
    """It is gone."""

    id: str
    object: Literal["voice"] = "voice"
    deleted: Literal[True] = True


class AudioVoice(BaseModel):
    """A new voice for OpenAI's client."""

    id: str
    object: Literal["audio.voice"] = "audio.voice"
    name: str
    created_at: int
    type: Literal["audio_sample"] = "audio_sample"


class DeletedAudioVoice(BaseModel):
    """It is gone, for OpenAI's client."""

    id: str
    object: Literal["audio.voice.deleted"] = "audio.voice.deleted"
    deleted: Literal[True] = True
