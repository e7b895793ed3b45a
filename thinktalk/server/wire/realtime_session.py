"""Realtime's session: what a conversation is like, with every default -> the same with the fields that an update names.

    SessionConfig() --updated(config, {"instructions": "Be brief."})--> SessionConfig, or a Problem that says which field is wrong

Names and shapes are those of OpenAI's GA protocol. Fields that this server has no use for (tracing, prompt, noise reduction)
are passed by, as unknown ones are; a known field with a value that makes no sense is refused. Our own are `seed` and
`temperature`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from thinktalk.server.problems import Problem

__all__ = [
    "RATES", "Format", "Input", "Modalities", "Name", "NamedTool", "SemanticVad", "ServerVad", "SessionConfig", "Tokens", "Tool",
    "ToolChoice", "Transcription", "VoiceId", "Wire", "problem_in", "updated",
]  # fmt: skip

RATES = {"audio/pcm": 24_000, "audio/pcmu": 8000, "audio/pcma": 8000}
Name = Annotated[str, Field(min_length=1, max_length=64)]
Modalities = Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=2)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)] | Literal["inf"]


class Wire(BaseModel):
    """Unknown fields are passed by; numbers and strings are not taken for one another."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Format(Wire):
    """Sound on the wire: 16-bit little-endian at 24 kHz, or G.711 at 8 kHz."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int | None = None

    @model_validator(mode="after")
    def _rate(self) -> Format:
        if self.rate not in (None, RATES[self.type]):
            raise ValueError(f"rate {self.rate}: {self.type} has {RATES[self.type]}")
        return self

    @property
    def samples_per_second(self) -> int:
        """Its rate."""
        return RATES[self.type]


class ServerVad(Wire):
    """A turn ends by silence."""

    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0.0, le=1.0)
    prefix_padding_ms: int = Field(300, ge=0, le=5000)
    silence_duration_ms: int = Field(500, ge=0, le=60_000)
    idle_timeout_ms: int | None = Field(None, ge=1000, le=600_000)
    create_response: bool = True
    interrupt_response: bool = True


class SemanticVad(Wire):
    """A turn ends when what was said seems complete."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


class Transcription(Wire):
    """What the user says is written down, too, by the model itself."""

    model: str | None = None
    language: str | None = None
    prompt: str | None = None


class Input(Wire):
    """What is heard."""

    format: Format = Format()
    transcription: Transcription | None = None
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None = (
        ServerVad(type="server_vad")
    )


class VoiceId(Wire):
    """A voice by its id."""

    id: Name


class Output(Wire):
    """What is spoken."""

    format: Format = Format()
    voice: Name | VoiceId | None = None
    speed: float | None = None

    @model_validator(mode="after")
    def _speed(self) -> Output:
        if self.speed not in (None, 1.0):
            raise ValueError("speed: only 1.0; the model speaks at its own pace")
        return self

    @property
    def voice_name(self) -> str | None:
        """The voice's name."""
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice


class Audio(Wire):
    """Both directions."""

    input: Input = Input()
    output: Output = Output()


class Tool(Wire):
    """A function that the model may call."""

    type: Literal["function"] = "function"
    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    description: str | None = None
    parameters: dict[str, Any] | None = None


class NamedTool(Wire):
    """The one function that must be called."""

    type: Literal["function"]
    name: Name


ToolChoice = Literal["auto", "none", "required"] | NamedTool


class SessionConfig(Wire):
    """A session, with every default."""

    type: Literal["realtime"] = "realtime"
    model: str | None = None
    output_modalities: Modalities = ["audio"]
    instructions: str | None = None
    audio: Audio = Audio()
    max_output_tokens: Tokens = "inf"
    tools: list[Tool] = []
    tool_choice: ToolChoice = "auto"
    temperature: float | None = Field(None, ge=0.0, le=2.0)
    seed: int | None = Field(None, ge=0, le=2**63 - 1)


def updated(config: SessionConfig, changes: dict[str, Any]) -> SessionConfig:
    """The session with the fields that an update names; objects are joined field by field. Errors: Problem."""
    merged = _merged(config.model_dump(exclude_unset=False), changes)
    try:
        return SessionConfig.model_validate(merged)
    except ValidationError as error:
        raise problem_in(error, "session") from None


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    joined = dict(old)
    for name, value in new.items():
        before = joined.get(name)
        same = isinstance(before, dict) and isinstance(value, dict)
        if same and value.get("type", before.get("type")) == before.get("type"):
            value = _merged(before, value)  # another type begins with its own defaults
        joined[name] = value
    return joined


def problem_in(error: ValidationError, prefix: str) -> Problem:
    """What a client is told: the first thing that is wrong, and where."""
    first = error.errors(include_url=False, include_input=False)[0]
    steps = [s for s in first["loc"] if not (isinstance(s, str) and (s in _TAGS or "[" in s or s[:1].isupper()))]  # fmt: skip
    where = prefix
    for step in steps:
        where += f"[{step}]" if isinstance(step, int) else f".{step}" if where else str(step)
    message = first["msg"].removeprefix("Value error, ")
    codes = {"json_invalid": "invalid_json", "union_tag_invalid": "unknown_event", "missing": "missing_required_parameter"}  # fmt: skip
    code = codes.get(first["type"], "invalid_value")
    return Problem(400, f"{where}: {message}" if where else message, param=where or None, code=code)


_TAGS = {
    "session.update", "input_audio_buffer.append", "input_audio_buffer.commit", "input_audio_buffer.clear",
    "output_audio_buffer.clear", "conversation.item.create", "conversation.item.retrieve", "conversation.item.truncate",
    "conversation.item.delete", "response.create", "response.cancel", "server_vad", "semantic_vad",
}  # fmt: skip
