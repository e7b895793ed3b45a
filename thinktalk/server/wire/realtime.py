"""Realtime's client events: JSON text -> ClientEvent, or a Problem that says which field is wrong.

    {"type": "input_audio_buffer.append", "audio": "..."}  --read_event-->  Append(audio="...")

Names and shapes are those of OpenAI's GA protocol; unknown fields are passed by. Our own is input_video among the parts of a message.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from thinktalk.server.wire.realtime_session import (
    Format,
    Modalities,
    Name,
    Tokens,
    Tool,
    ToolChoice,
    VoiceId,
    Wire,
    problem_in,
)

__all__ = [
    "Append", "Clear", "ClientEvent", "Commit", "ContentPart", "ItemCreate", "ItemDelete", "ItemRetrieve", "ItemTruncate", "NewItem",
    "OutputClear", "Reference", "ResponseCancel", "ResponseCreate", "ResponseParams", "SessionUpdate", "read_event",
]  # fmt: skip

Id = Annotated[str, Field(min_length=1, max_length=128)]


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
        raise problem_in(error, "") from None
