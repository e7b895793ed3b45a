"""Incoming: OpenAI's messages -> ours, media still as bytes or data: URLs (hub.prepared decodes them).

system, developer          system, with the tools' signatures at its end
user                       user; image_url, input_audio, video_url, input_video and file become image, audio, video, text
assistant                  assistant; past calls as the model wrote them, past sound (audio.id) as its words
tool, tool, ...            one user message with each result in <tool_response>
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Callable, Sequence
from typing import Any

from thinktalk.prompt import DEFAULT_SYSTEM, SPEECH_SYSTEM
from thinktalk.server.calls import call_text, result_text, with_tools
from thinktalk.server.problems import Problem
from thinktalk.server.wire.chat import FilePart, Message, Tool

__all__ = ["read_messages"]

Parts = list[dict[str, Any]]


def read_messages(
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] = (),
    speech: bool = False,
    said: Callable[[str], str | None] = lambda id: None,
    use_audio: bool | None = None,
) -> list[dict[str, Any]]:
    """The conversation as a session takes it. `said` knows the words of past sound by its id. Errors: Problem."""
    read: list[dict[str, Any]] = []
    asked: set[str] = set()  # ids of calls that may be answered now
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        match message.role:
            case "system" | "developer":
                read.append({"role": "system", "content": _text(message, where)})
            case "user":
                read.append({"role": "user", "content": _content(message, where, use_audio)})
            case "assistant":
                read.append({"role": "assistant", "content": _past(message, where, said)})
            case "tool":
                if message.tool_call_id not in asked:
                    raise _wrong(where, f"tool_call_id {message.tool_call_id!r} is no call of the message before it")  # fmt: skip
                result = result_text(_text(message, where))
                if messages[i - 1].role == "tool":
                    read[-1]["content"] += "\n" + result
                else:
                    read.append({"role": "user", "content": result})
        if message.role != "tool":
            asked = {call.id for call in message.tool_calls or ()}
    if tools:
        if read[0]["role"] != "system":
            read.insert(0, {"role": "system", "content": SPEECH_SYSTEM if speech else DEFAULT_SYSTEM})  # fmt: skip
        functions = [tool.function.model_dump() for tool in tools]
        read[0]["content"] = with_tools(read[0]["content"], functions)
    return read


def _text(message: Message, where: str) -> str:
    """Content of a role that has no media."""
    if isinstance(message.content, str):
        return message.content
    pieces = []
    for j, part in enumerate(message.content or ()):
        if part.type == "refusal":
            pieces.append(part.refusal)
        elif part.type == "text":
            pieces.append(part.text)
        else:
            raise _wrong(f"{where}.content[{j}]", f"{part.type} in a {message.role} message, expected text")  # fmt: skip
    return "".join(pieces)


def _past(message: Message, where: str, said: Callable[[str], str | None]) -> str:
    """What the assistant said and called."""
    text = _text(message, where) or message.refusal or ""
    if message.audio is not None and not text:
        words = said(message.audio.id)
        if words is None:
            raise Problem(
                404, f"{where}.audio.id: {message.audio.id!r} is not known here any more; give its transcript as content",
                param=f"{where}.audio.id", code="audio_not_found",
            )  # fmt: skip
        text = words
    calls = [call_text(call.function.name, call.function.arguments) for call in message.tool_calls or ()]  # fmt: skip
    return "\n".join([text] * bool(text) + calls)


def _content(message: Message, where: str, use_audio: bool | None) -> str | Parts:
    if isinstance(message.content, str):
        return message.content
    return [
        _part(part, f"{where}.content[{j}]", use_audio)
        for j, part in enumerate(message.content or ())
    ]


def _part(part: Any, where: str, use_audio: bool | None) -> dict[str, Any]:
    match part.type:
        case "text":
            return {"type": "text", "text": part.text}
        case "image_url":
            return {"type": "image", "image": part.image_url.url}
        case "input_audio":
            return {"type": "audio", "audio": _data(part.input_audio.data, where)}
        case "audio_url":
            return {"type": "audio", "audio": part.audio_url.url}
        case "video_url":
            return _video(part.video_url.url, use_audio)
        case "input_video":
            return _video(_data(part.input_video.data, where), use_audio)
        case "file":
            return _file(part, where, use_audio)
    raise _wrong(where, f"{part.type} in a user message, expected text or a medium")


def _video(source: Any, use_audio: bool | None) -> dict[str, Any]:
    heard = {} if use_audio is None else {"use_audio": use_audio}
    return {"type": "video", "video": source, **heard}


def _file(part: FilePart, where: str, use_audio: bool | None) -> dict[str, Any]:
    """A file is what its data: URL says, or else its name."""
    file = part.file
    if file.file_data is None:
        raise _wrong(where, "file_id names a file that was uploaded, and this server keeps none; send file_data")  # fmt: skip
    kind = mimetypes.guess_type(file.filename or "")[0] or ""
    if file.file_data[:5].lower() == "data:":
        kind = file.file_data[5:].partition(",")[0].partition(";")[0].lower() or kind
    data = _data(file.file_data, where)
    match kind.partition("/")[0]:
        case "image" | "audio" as name:
            return {"type": name, name: data}
        case "video":
            return _video(data, use_audio)
        case "text":
            try:
                return {"type": "text", "text": _decoded(file.file_data, where).decode()}
            except UnicodeDecodeError:
                raise _wrong(where, "a text file that is not UTF-8") from None
    raise _wrong(where, f"a file of type {kind or 'unknown'}, expected a picture, sound, video or text; name its type in a data: URL")  # fmt: skip


def _data(text: str, where: str) -> bytes | str:
    """base64 as bytes; a data: URL as it is."""
    return text if text[:5].lower() == "data:" else _decoded(text, where)


def _decoded(text: str, where: str) -> bytes:
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise _wrong(where, "a data: URL without ;base64, expected base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(where, "its data is not base64") from None


def _wrong(where: str, what: str) -> Problem:
    return Problem(400, f"{where}: {what}", param=where)
