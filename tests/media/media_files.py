"""Small sound, picture and video files made on the spot, as bytes."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

SOUND_FORMATS = [
    ("wav", "pcm_s16le"), ("wav", "pcm_f32le"), ("wav", "pcm_u8"), ("wav", "pcm_s24le"), ("wav", "adpcm_ms"),
    ("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus"), ("ogg", "flac"), ("mp4", "aac"),
    ("webm", "libopus"), ("matroska", "flac"), ("adts", "aac"), ("aiff", "pcm_s16be"),
]  # fmt: skip
VIDEO_FORMATS = [
    ("mp4", "libx264", "aac"), ("webm", "libvpx-vp9", "libopus"), ("webm", "libvpx", None),
    ("matroska", "libx264", None), ("mov", "libx264", "aac"), ("mpegts", "libx264", "aac"),
]  # fmt: skip
PICTURE_FORMATS = ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"]


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * math.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def pitch(pcm: np.ndarray, rate: int) -> float:
    """Hertz of the strongest component."""
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)), 8 * len(pcm)))
    return float(spectrum.argmax()) * rate / (8 * len(pcm))


def _add_sound(container, codec: str, rate: int, channels: int):
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    return container.add_stream(codec, rate=rate, layout=layout)


def _encode_sound(container, stream, pcm: np.ndarray, rate: int, channels: int, start_s: float = 0):
    layout = stream.layout.name
    convert = av.AudioResampler(
        format=stream.format.name, layout=layout, rate=stream.rate, frame_size=stream.frame_size or 1024
    )  # fmt: skip
    frame = av.AudioFrame.from_ndarray(np.stack([pcm] * channels), "fltp", layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, round(start_s * rate), Fraction(1, rate)
    for part in [*convert.resample(frame), *convert.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


@functools.cache
def sound_file(
    fmt: str, codec: str, *, seconds: float = 1.0, rate: int = 48_000, channels: int = 2
) -> bytes:
    """A 440 Hz tone at half of full scale."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=fmt) as container:
        stream = _add_sound(container, codec, rate, channels)
        _encode_sound(container, stream, tone(seconds, rate), rate, channels)
    return buffer.getvalue()


def brightness_frame(value: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A grey frame that tells its number; the top left corner is red, so that turns show."""
    frame = np.full((height, width, 3), value, np.uint8)
    frame[: height // 2, : width // 2] = (255, 0, 0)
    return frame


def number_of(frame: np.ndarray) -> float:
    """The grey value of a brightness_frame, from its bottom right."""
    return float(frame[-20:, -20:].mean())


@functools.cache
def video_file(
    fmt: str = "mp4",
    codec: str = "libx264",
    sound: str | None = "aac",
    *,
    frames: int = 50,
    fps: int = 25,
    times_s: Sequence[float] | None = None,
    sound_start_s: float = 0.0,
    step: int = 4,
) -> bytes:
    """Frame i is grey 20 + step i (modulo 220) at i / fps, or at times_s[i]; with a 440 Hz tone as long as the picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=fmt) as container:
        picture = container.add_stream(codec, rate=fps)
        picture.width, picture.height, picture.pix_fmt = 96, 64, "yuv420p"
        picture.codec_context.time_base = Fraction(1, 1000 if times_s else fps)
        track = _add_sound(container, sound, 48_000, 1) if sound else None
        count = len(times_s) if times_s else frames
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(brightness_frame(20 + i * step % 220), "rgb24")
            frame.pts = round(times_s[i] * 1000) if times_s else i
            frame.time_base = Fraction(1, 1000 if times_s else fps)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if track is not None:
            seconds = times_s[-1] if times_s else frames / fps
            _encode_sound(container, track, tone(seconds - sound_start_s, 48_000), 48_000, 1, sound_start_s)  # fmt: skip
    return buffer.getvalue()


def turned(mp4: bytes, degrees: int) -> bytes:
    """The same mp4 as a phone writes it that was held sideways: to be shown turned clockwise by this."""
    one = 1 << 16
    a, b = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    data = bytearray(mp4)
    identity = b"".join(v.to_bytes(4, "big") for v in (one, 0, 0, 0, one, 0, 0, 0, 1 << 30))
    at = data.index(identity, data.index(b"tkhd"))
    matrix = (a, b, 0, -b, a, 0, 0, 0, 1 << 30)
    data[at : at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in matrix)
    return bytes(data)


def noise_picture(height: int, width: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def picture_bytes(picture: Image.Image, fmt: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, fmt, **options)
    return buffer.getvalue()


@functools.cache
def animation(fmt: str, durations_ms: tuple[int, ...] = (200, 200, 200, 200)) -> bytes:
    """An animated picture whose frame i is grey 20 + 40 i."""
    frames = [
        Image.fromarray(brightness_frame(20 + 40 * i, 64, 64)) for i in range(len(durations_ms))
    ]
    return picture_bytes(
        frames[0], fmt, save_all=True, append_images=frames[1:], duration=list(durations_ms), loop=0,
        **({"lossless": True} if fmt == "WEBP" else {}),
    )  # fmt: skip


def heic_file(*, quarter_turns: int = 0) -> bytes:
    """A red picture of 96 x 64 with a blue quarter top left, to be shown turned counter-clockwise, as phones write it.

    corner.heic was made once: one picture coded by libx265 through PyAV, put into ISO boxes by hand.
    """
    data = bytearray((Path(__file__).parent / "corner.heic").read_bytes())
    data[data.index(b"irot") + 4] = quarter_turns
    return bytes(data)
