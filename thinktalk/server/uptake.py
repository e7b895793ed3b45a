"""Uptake: an item that a client adds -> Item, with its media decoded by the guard. Nothing of it stands anywhere before that.

input_audio  base64 of audio/pcm at 24 kHz (as OpenAI's), or of a file: its first bytes say which
input_image  data: URL       input_video  data: URL (our own)
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any

import numpy as np
import torch

from thinktalk.layers.resample import resampler
from thinktalk.server.hub import Hub
from thinktalk.server.items import RATE, Item, Media, Part, Sound, new_id
from thinktalk.server.problems import Problem
from thinktalk.server.wire.realtime import ContentPart, NewItem
from thinktalk.server.wire.realtime_session import RATES

__all__ = ["new_item"]

FILES = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3")


async def new_item(given: NewItem, hub: Hub) -> Item:
    """The item. Errors: Problem, InputError."""
    most = hub.settings.max_text_chars
    said = [p.text or p.transcript or "" for p in given.content] + [given.arguments or "", given.output or ""]  # fmt: skip
    if sum(map(len, said)) > most:
        raise Problem(413, f"item: {sum(map(len, said))} characters, expected at most {most}", param="item", code="item_too_large")  # fmt: skip
    item = Item(given.type, id=given.id or new_id("item"))
    if given.type == "message":
        assert given.role is not None
        item.role = given.role
        for number, part in enumerate(given.content):
            item.parts.append(await _part(part, hub, f"item.content[{number}]"))
            item.content.append(_shown(part))
    else:
        item.call_id = given.call_id or new_id("call")
        item.name = given.name or ""
        item.text = (given.output if given.type == "function_call_output" else given.arguments) or ""  # fmt: skip
        item.role = "assistant" if given.type == "function_call" else "user"
    return item


async def _part(part: ContentPart, hub: Hub, where: str) -> Part:
    """What the model reads of a part."""
    match part.type:
        case "input_image":
            return Media("image", await hub.decoded("image", part.image_url, name=f"{where}.image_url"))  # fmt: skip
        case "input_video":
            return Media("video", await hub.decoded("video", part.video_url, name=f"{where}.video_url"))  # fmt: skip
        case "input_audio":
            return await _sound(part.audio or "", hub, f"{where}.audio")
        case "output_audio":
            return part.transcript or ""
        case _:
            return part.text or ""


async def _sound(audio: str, hub: Hub, where: str) -> Sound:
    try:
        data = b64decode(audio, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(400, f"{where}: not base64", param=where, code="invalid_audio") from None
    if data.startswith(FILES):
        pcm, _ = await hub.decoded("audio", data, name=where)
    else:
        pcm = await hub.call(lambda: _raw(data))
    most = hub.settings.max_audio_seconds
    if len(pcm) > most * RATE:
        raise Problem(413, f"{where}: {len(pcm) / RATE:.0f} s, expected at most {most:g} s", param=where, code="audio_too_long")  # fmt: skip
    if len(pcm) <= RATE // 50:
        raise Problem(400, f"{where}: {1000 * len(pcm) // RATE} ms of sound, expected more than 20 ms", param=where, code="audio_too_short")  # fmt: skip
    sound = Sound()
    sound.add(pcm)
    return sound


def _raw(data: bytes) -> np.ndarray:
    """16-bit samples at the protocol's rate -> float32 at 16 kHz."""
    pcm = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / 32768
    with torch.inference_mode():
        return resampler(RATES["audio/pcm"], RATE)(torch.from_numpy(pcm)[None])[0].numpy()


def _shown(part: ContentPart) -> dict[str, Any]:
    """What the client is shown of a part: not the sound, and of media not their bytes."""
    match part.type:
        case "input_audio":
            return {"type": "input_audio", "transcript": part.transcript}
        case "input_image" | "input_video":
            return {"type": part.type}
        case "output_audio":
            return {"type": "output_audio", "transcript": part.transcript}
        case _:
            return {"type": part.type, "text": part.text}
