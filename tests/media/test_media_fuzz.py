"""Damaged files of every format end in InputError or in sound and pictures, never in anything else.

Each example is a whole file that was cut, had bytes flipped, or had bytes overwritten; headers are hit more often.
"""

from __future__ import annotations

import functools
import resource
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import (
    PICTURE_FORMATS,
    SOUND_FORMATS,
    VIDEO_FORMATS,
    animation,
    heic_file,
    noise_picture,
    picture_bytes,
    sound_file,
    video_file,
)

from thinktalk.config import VisualConfig
from thinktalk.errors import InputError
from thinktalk.media.audio import load_audio
from thinktalk.media.image import load_image
from thinktalk.media.video import load_video

VISUAL = VisualConfig(video_min_tokens=4, video_max_tokens=8)
EXAMPLES = 40  # a format and run; many thousands were run once by hand


@st.composite
def damage(draw: st.DrawFn) -> list[tuple]:
    """Cuts and changes at relative places."""
    edits: list[tuple] = []
    if draw(st.booleans()):
        edits.append(("cut", draw(st.floats(0, 1))))
    for _ in range(draw(st.integers(0 if edits else 1, 6))):
        place = draw(st.floats(0, 1)) ** draw(st.sampled_from([1, 4]))  # 4: near the start
        edits.append(("set", place, draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))))  # fmt: skip
    return edits


def damaged(data: bytes, edits: list[tuple]) -> bytes:
    out = bytearray(data)
    for kind, place, *value in edits:
        if kind == "cut":
            del out[int(place * len(out)) :]
        elif out:
            out[min(int(place * len(out)), len(out) - 1)] = value[0]
    return bytes(out)


def survives(load, data: bytes) -> None:
    message = ""
    try:
        load(data)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 600


def run(load, data: bytes, capfd) -> None:
    load(data)  # it is a good file

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(damage())
    def fuzz(edits):
        survives(load, damaged(data, edits))

    fuzz()
    assert capfd.readouterr().err == ""  # and the libraries below keep silent


@pytest.mark.parametrize(("fmt", "codec"), SOUND_FORMATS)
def test_sound(fmt, codec, capfd):
    run(load_audio, sound_file(fmt, codec, seconds=0.2, channels=1), capfd)


@pytest.mark.parametrize("fmt", PICTURE_FORMATS)
def test_pictures(fmt, capfd):
    run(load_image, picture_bytes(noise_picture(40, 50), fmt), capfd)


def test_heic(capfd):
    pytest.importorskip("pi_heif")
    run(load_image, heic_file(), capfd)


@pytest.mark.parametrize(
    ("fmt", "codec", "sound"), [*VIDEO_FORMATS, ("avi", "mpeg4", "libmp3lame")]
)
def test_videos(fmt, codec, sound, capfd):
    data = video_file(fmt, codec, sound, frames=8)
    run(functools.partial(load_video, visual=VISUAL), data, capfd)


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
def test_animations(fmt, capfd):
    run(functools.partial(load_video, visual=VISUAL), animation(fmt), capfd)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_noise(data):
    for load in (load_audio, load_image, functools.partial(load_video, visual=VISUAL)):
        survives(load, data)


MAGIC = [b"RIFF\x24\0\0\0WAVEfmt ", b"OggS\0\x02", b"fLaC\0\0\0\x22", b"\x1aE\xdf\xa3", b"\0\0\0\x20ftypisom", b"ID3\x04",
         b"GIF89a", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x24\0\0\0WEBPVP8 ", b"\0\0\0\x20ftypavif",
         b"\0\0\0\x20ftypheic", b"BM", b"II*\0", b"\xff\xfb\x90", b"FORM\0\0\0\x20AIFF", b"FLV\x01\x05", b"G" + bytes(187)]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MAGIC), st.binary(max_size=300))
def test_noise_behind_a_true_beginning(magic, data):
    for load in (load_audio, load_image, functools.partial(load_video, visual=VISUAL)):
        survives(load, magic + data)


def many_channels() -> bytes:
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + 40_000, b"WAVE", b"fmt ", 16, 1, 1000, 16_000, 32_000_000, 2000, 16, b"data", 40_000)  # fmt: skip
    return header + bytes(40_000)


def huge_gif() -> bytes:
    data = bytearray(picture_bytes(noise_picture(40, 50), "GIF"))
    data[6:10] = struct.pack("<HH", 65_535, 65_535)
    return bytes(data)


def huge_mp4() -> bytes:
    """The size that the container declares, 16384 x 16384, in place of 96 x 64."""
    data = video_file(frames=8)
    return data.replace(struct.pack(">HH", 96, 64), struct.pack(">HH", 16_384, 16_384))


@pytest.mark.parametrize(
    ("load", "make"),
    [
        (load_audio, many_channels), (load_image, huge_gif), (functools.partial(load_video, visual=VISUAL), huge_gif),
        (functools.partial(load_video, visual=VISUAL), huge_mp4),
    ],
)  # fmt: skip
def test_bombs_take_bounded_memory(load, make):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    survives(load, make())
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 500  # a picture of the largest size allowed takes 360
