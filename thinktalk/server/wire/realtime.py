"""Realtime's client events: JSON text -> ClientEvent, or a Problem that says which field is wrong.

    {"type": "input_audio_buffer.append", "audio": "..."}  --read_event-->  Append(audio="...")

Names and shapes are those of OpenAI's GA protocol. Fields that this server has no use for (tracing, prompt, noise reduction)
are passed by, as unknown ones are; a known field with a value that makes no sense is refused. Our own are `seed` and
`temperature` of a session, and input_video among the parts of a message.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from thinktalk.server.problems import Problem

__all__ = [
    "Append", "Clear", "ClientEvent", "Commit", "ContentPart", "Format", "ItemCreate", "ItemDelete", "ItemRetrieve",
    "ItemTruncate", "NamedTool", "NewItem", "OutputClear", "ResponseCancel", "ResponseCreate", "ResponseParams", "SemanticVad",
    "ServerVad", "SessionConfig", "SessionUpdate", "Tool", "read_event", "updated",
]  # fmt: skip

RATES = {"audio/pcm": 24_000, "audio/pcmu": 8000, "audio/pcma": 8000}
Name = Annotated[str, Field(min_length=1, max_length=64)]
Id = Annotated[str, Field(min_length=1, max_length=128)]
Modalities = Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=2)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)] | Literal["inf"]


class Wire(BaseModel):
    """Unknown fields are passed by; numbers and strings are not taken for one another."""

    model_config = ConfigDict(extra="ignore", strict=True)


# ------------------------------------------------------------------------------------------------------------- sessions


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
        raise _problem(error, "session") from None


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    joined = dict(old)
    for name, value in new.items():
        before = joined.get(name)
        same = isinstance(before, dict) and isinstance(value, dict)
        if same and value.get("type", before.get("type")) == before.get("type"):
            value = _merged(before, value)  # another type begins with its own defaults
        joined[name] = value
    return joined


# ---------------------------------------------------------------------------------------------------------------- items


class ContentPart(Wire):
    """A part of a message."""

    type: Literal[
        "input_text", "input_audio", "input_image", "input_video", "output_text", "output_audio", "text"
    ]  # fmt: skip
    text: str | None = None
    audio: str | None = None
    image_url: str | None = None
    video_url: str | None = None
    transcript: str | None = None

    @model_validator(mode="after")
    def _has_it(self) -> ContentPart:
        needs = {"input_audio": "audio", "input_image": "image_url", "input_video": "video_url", "output_audio": "transcript"}  # fmt: skip
        field = needs.get(self.type, "text")
        if getattr(self, field) is None:
            raise ValueError(f"{self.type} without {field}")
        return self


class NewItem(Wire):
    """An item that a client adds."""

    type: Literal["message", "function_call", "function_call_output"]
    id: Id | None = None
    role: Literal["user", "assistant", "system"] | None = None
    content: list[ContentPart] = Field([], max_length=256)
    call_id: Id | None = None
    name: Name | None = None
    arguments: str | None = None
    output: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> NewItem:
        needs = {
            "message": ("role",),
            "function_call": ("name", "arguments"),
            "function_call_output": ("call_id", "output"),
        }
        for field in needs[self.type]:
            if getattr(self, field) is None:
                raise ValueError(f"{self.type} without {field}")
        kinds = {"user": "input", "system": "input_text", "assistant": "output"}.get(self.role or "", "")  # fmt: skip
        for part in self.content:
            if part.type != "text" and not part.type.startswith(kinds):
                raise ValueError(f"{part.type} in a message of role {self.role}")
        return self


class Reference(Wire):
    """An item that exists already."""

    type: Literal["item_reference"]
    id: Id


class ResponseOutput(Wire):
    """How one response sounds."""

    format: Format | None = None
    voice: Name | VoiceId | None = None


class ResponseAudio(Wire):
    """How one response sounds."""

    output: ResponseOutput = ResponseOutput()


class ResponseParams(Wire):
    """What is different for one response; None: as the session says."""

    audio: ResponseAudio = ResponseAudio()
    conversation: Literal["auto", "none"] = "auto"
    input: list[NewItem | Reference] | None = Field(None, max_length=1024)
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    metadata: dict[str, str] | None = None
    output_modalities: Modalities | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None


# --------------------------------------------------------------------------------------------------------------- events


class Event(Wire):
    """What every event has."""

    event_id: Annotated[str, Field(max_length=512)] | None = None


class SessionUpdate(Event):
    """Some fields of the session change."""

    type: Literal["session.update"]
    session: dict[str, Any]


class Append(Event):
    """Sound, base64."""

    type: Literal["input_audio_buffer.append"]
    audio: str


class Commit(Event):
    """What was appended is a message."""

    type: Literal["input_audio_buffer.commit"]


class Clear(Event):
    """What was appended is forgotten."""

    type: Literal["input_audio_buffer.clear"]


class OutputClear(Event):
    """Stop the sound; over a WebSocket the client plays it himself."""

    type: Literal["output_audio_buffer.clear"]


class ItemCreate(Event):
    """An item joins the conversation, after `previous_item_id` ("root": first; None: last)."""

    type: Literal["conversation.item.create"]
    item: NewItem
    previous_item_id: Id | None = None


class ItemRetrieve(Event):
    """Show an item."""

    type: Literal["conversation.item.retrieve"]
    item_id: Id


class ItemTruncate(Event):
    """Of an answer only so much was heard."""

    type: Literal["conversation.item.truncate"]
    item_id: Id
    content_index: int = Field(0, ge=0)
    audio_end_ms: int = Field(ge=0)


class ItemDelete(Event):
    """An item never was."""

    type: Literal["conversation.item.delete"]
    item_id: Id


class ResponseCreate(Event):
    """Answer now."""

    type: Literal["response.create"]
    response: ResponseParams = ResponseParams()


class ResponseCancel(Event):
    """Stop answering."""

    type: Literal["response.cancel"]
    response_id: Id | None = None


ClientEvent = (
    SessionUpdate | Append | Commit | Clear | OutputClear | ItemCreate | ItemRetrieve | ItemTruncate | ItemDelete
    | ResponseCreate | ResponseCancel
)  # fmt: skip

_READER: TypeAdapter[ClientEvent] = TypeAdapter(Annotated[ClientEvent, Field(discriminator="type")])


def read_event(text: str | bytes) -> ClientEvent:
    """One event of a client. Errors: Problem 400, whose `param` names the field."""
    try:
        return _READER.validate_json(text)
    except ValidationError as error:
        raise _problem(error, "") from None


def _problem(error: ValidationError, prefix: str) -> Problem:
    """The first thing that is wrong, and where."""
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
