"""What /v1/chat/completions takes and gives, as OpenAI's clients write and read it.

Fields that ask for something else than the default must be understood or refused by name: an answer that quietly ignores
`response_format` is a wrong answer. Fields that change nothing about it (metadata, store, user, ...) are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from thinktalk.server.encode import FORMATS

__all__ = ["Audio", "ChatCompletion", "ChatRequest", "Message", "NamedChoice", "Part", "Tool", "ToolCall"]  # fmt: skip

MAX_SEED = (1 << 63) - 1
MAX_STOPS = 4


class Wire(BaseModel):
    """JSON is taken as it is: "1" is no number."""

    model_config = ConfigDict(strict=True)


# ------------------------------------------------------------------------------------------------------------- messages


class TextPart(Wire):
    type: Literal["text"]
    text: str


class RefusalPart(Wire):
    type: Literal["refusal"]
    refusal: str


class Url(Wire):
    url: str = Field(description="A data: URL, or a web address where the server fetches them")


class ImagePart(Wire):
    type: Literal["image_url"]
    image_url: Url


class FileBytes(Wire):
    data: str = Field(description="base64, or a data: URL")
    format: str | None = Field(None, description="What it is; the file itself says so, too")


class AudioPart(Wire):
    type: Literal["input_audio"]
    input_audio: FileBytes


class AudioUrlPart(Wire):
    type: Literal["audio_url"]
    audio_url: Url


class VideoUrlPart(Wire):
    type: Literal["video_url"]
    video_url: Url


class VideoPart(Wire):
    type: Literal["input_video"]
    input_video: FileBytes


class FileData(Wire):
    file_data: str | None = Field(None, description="base64, or a data: URL")
    filename: str | None = None
    file_id: str | None = None


class FilePart(Wire):
    type: Literal["file"]
    file: FileData


Part = Annotated[
    TextPart | RefusalPart | ImagePart | AudioPart | AudioUrlPart | VideoUrlPart | VideoPart | FilePart,
    Field(discriminator="type"),
]  # fmt: skip


class Function(Wire):
    name: str
    arguments: str = Field(description="JSON")


class ToolCall(Wire):
    """A call that the model made."""

    id: str
    type: Literal["function"] = "function"
    function: Function


class AudioId(Wire):
    id: str


class Message(Wire):
    """One message of any role; which fields a role may have, chat.py checks."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    audio: AudioId | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Message:
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a tool message needs tool_call_id")
        if self.role != "assistant" and (self.audio is not None or self.tool_calls):
            raise ValueError(f"a {self.role} message has no audio and no tool_calls")
        empty = self.audio is None and not self.tool_calls and self.refusal is None
        if self.content is None and empty:
            raise ValueError("a message needs content")
        return self


# ---------------------------------------------------------------------------------------------------------------- tools


class Signature(Wire):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Wire):
    """A function that the model may call."""

    type: Literal["function"]
    function: Signature


class Named(Wire):
    name: str


class NamedChoice(Wire):
    """This function is to be called."""

    type: Literal["function"]
    function: Named


# -------------------------------------------------------------------------------------------------------------- request


class VoiceId(Wire):
    id: str


class Audio(Wire):
    """How the answer is spoken."""

    voice: str | VoiceId = "default"
    format: str = Field("wav", json_schema_extra={"enum": [f for f in FORMATS if f != "pcm"]})

    @model_validator(mode="after")
    def _known(self) -> Audio:
        if self.format not in FORMATS or self.format == "pcm":
            have = ", ".join(f for f in FORMATS if f != "pcm")
            raise ValueError(f"format {self.format!r}: expected one of {have}")
        return self

    @property
    def voice_name(self) -> str:
        """Its voice's name."""
        return self.voice if isinstance(self.voice, str) else self.voice.id


class StreamOptions(Wire):
    include_usage: bool | None = None


class ResponseFormat(Wire):
    type: Literal["text", "json_object", "json_schema"]


class ChatRequest(Wire):
    """A conversation to answer."""

    messages: Annotated[list[Message], Field(min_length=1)]
    model: str | None = None
    modalities: Annotated[list[Literal["text", "audio"]], Field(min_length=1)] | None = None
    audio: Audio | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    use_audio_in_video: bool | None = Field(None, description="Whether videos are heard (they are)")
    # what is refused when it asks for something
    n: int | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    functions: list[Any] | None = None
    function_call: Any = None

    @property
    def speaks(self) -> bool:
        """Whether sound is asked for."""
        return "audio" in (self.modalities or ())

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings before which the answer ends."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in given if stop)

    def unsupported(self) -> tuple[str, str] | None:
        """A field that asks for what this server does not do, and what it does."""
        said = {
            "n": (self.n not in (None, 1), "one answer a request; send several requests"),
            "response_format": (
                self.response_format is not None and self.response_format.type != "text",
                "text; ask for JSON in the prompt, or define a tool",
            ),
            "logprobs": (bool(self.logprobs), "no log probabilities"),
            "top_logprobs": (bool(self.top_logprobs), "no log probabilities"),
            "logit_bias": (bool(self.logit_bias), "no bias on tokens"),
            "frequency_penalty": (bool(self.frequency_penalty), "no such penalty"),
            "presence_penalty": (bool(self.presence_penalty), "no such penalty"),
            "functions": (bool(self.functions), "tools, which replaced functions"),
            "function_call": (self.function_call is not None, "tool_choice, which replaced it"),
        }
        return next(((name, have) for name, (asked, have) in said.items() if asked), None)


# --------------------------------------------------------------------------------------------------------------- answer


class SpokenMessage(BaseModel):
    id: str
    data: str
    expires_at: int
    transcript: str


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    audio: SpokenMessage | None = None


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: None = None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: dict[str, int]


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    latency: dict[str, Any] | None = None
    """Our own: what its listener waited for."""
