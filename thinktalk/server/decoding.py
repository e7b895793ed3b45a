"""Decoding: one medium that a client sent -> plain arrays, within limits that are checked before the work.

    audio  bytes -> (float32 (S,), 16000)                           image  bytes -> PIL RGB
    voice  bytes -> (float32 (S,), the rate of what is spoken)      video  bytes -> media.video.Video

Runs wherever it is called: a Guard decides whether that is a thread or a process that may be killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import av

from thinktalk.config import OmniConfig, VisualConfig
from thinktalk.errors import InputError
from thinktalk.media.audio import load_audio
from thinktalk.media.container import no_crash, open_container
from thinktalk.media.image import load_image, open_picture, quiet
from thinktalk.media.video import load_video
from thinktalk.server.settings import Settings

__all__ = ["KINDS", "VOICE", "Guard", "Limits", "decode"]

KINDS = ("audio", "image", "video")
"""What messages hold."""
VOICE = "voice"
"""A clip of which a voice is made."""


class Guard(Protocol):
    """Who decodes for the server, so that a hostile file cannot harm it."""

    async def start(self) -> None:
        """Ready to decode."""

    async def decode(self, kind: str, data: bytes, *, name: str = "") -> Any:
        """What `decode` below gives. Errors: InputError, also for what took too long or too much memory."""

    async def close(self) -> None:
        """Nothing of it is left running."""


@dataclass(frozen=True)
class Limits:
    """What a medium may be at most; plain numbers, for another process too."""

    image_bytes: int
    image_pixels: int
    audio_bytes: int
    audio_seconds: float
    video_bytes: int
    video_seconds: float
    video_pixels: int
    visual: VisualConfig
    factor: int
    voice_seconds: float = 60.0
    voice_rate: int = 24_000

    @classmethod
    def of(cls, settings: Settings, config: OmniConfig) -> Limits:
        """Those of a server and its model."""
        return cls(
            settings.max_image_bytes,
            settings.max_image_pixels,
            settings.max_audio_bytes,
            settings.max_audio_seconds,
            settings.max_video_bytes,
            settings.max_video_seconds,
            settings.max_video_pixels,
            config.visual,
            config.thinker.vision.factor,
            settings.max_voice_seconds,
            24_000 if config.code2wav is None else config.code2wav.sample_rate,
        )

    def check_bytes(self, kind: str, count: int, name: str = "") -> None:
        """InputError for a file that is too large, before anything looks into it."""
        most = {
            "audio": self.audio_bytes,
            VOICE: self.audio_bytes,
            "image": self.image_bytes,
            "video": self.video_bytes,
        }
        if count > most[kind]:
            raise InputError(f"{name or kind}: has {count} bytes, expected at most {most[kind]}; send a smaller file")  # fmt: skip

    def rate(self, kind: str) -> int:
        """Samples a second of decoded sound."""
        return self.voice_rate if kind == VOICE else 16_000


def decode(kind: str, data: bytes, limits: Limits, *, name: str = "") -> Any:
    """One medium as plain arrays (see above). Errors: InputError."""
    name = name or kind
    limits.check_bytes(kind, len(data), name)
    if kind in ("audio", VOICE):
        most, rate = limits.voice_seconds if kind == VOICE else limits.audio_seconds, limits.rate(kind)  # fmt: skip
        return load_audio(data, sample_rate=rate, max_seconds=most, name=name), rate
    if kind == "image":
        with no_crash(name, "a picture"), quiet(), open_picture(data, name) as picture:
            _check_pixels(*picture.size, limits.image_pixels, name)
        return load_image(data, name=name)
    assert kind == "video", kind
    _check_video(data, limits, name)
    return load_video(data, visual=limits.visual, factor=limits.factor, name=name)


def _check_video(data: bytes, limits: Limits, name: str) -> None:
    """What the file says of itself; a file that lies is stopped by the guard's clock."""
    try:
        with open_container(data, name, "a video") as container:
            seconds = (container.duration or 0) / av.time_base
            sizes = [(stream.width, stream.height) for stream in container.streams.video]
    except InputError:
        return  # no container: an animated picture, or nothing; load_video will say
    if seconds > limits.video_seconds:
        raise InputError(f"{name}: is {seconds:.0f} s long, expected at most {limits.video_seconds:g} s; cut it")  # fmt: skip
    for size in sizes:
        _check_pixels(*size, limits.video_pixels, name)


def _check_pixels(width: int, height: int, most: int, name: str) -> None:
    if width * height > most:
        raise InputError(f"{name}: has {width} x {height} pixels, expected at most {most} in all; make it smaller")  # fmt: skip
