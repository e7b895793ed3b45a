"""Sound leaves the server in every format, piece by piece, and is the same sound again."""

from __future__ import annotations

import io
import struct

import av
import numpy as np
import pytest

from thinktalk.errors import InputError
from thinktalk.server import encode as encoding
from thinktalk.server.encode import CODECS, FORMATS, Encoder, encode

RATE = 24_000
DELAY = {"mp3": 2500, "aac": 2500, "opus": 400}  # samples that a codec may put before the sound
ERROR = {"mp3": 0.05, "aac": 0.05, "opus": 0.08, "flac": 2**-15, "wav": 2**-15, "pcm16": 2**-15, "pcm": 2**-15}  # fmt: skip


def chirp(seconds: float = 1.0) -> np.ndarray:
    """A tone that rises: it matches itself at one place only."""
    t = np.arange(round(RATE * seconds)) / RATE
    return (0.3 * np.sin(2 * np.pi * (200 + 400 * t) * t)).astype(np.float32)


def decoded(data: bytes, format: str) -> np.ndarray:
    if format.startswith("pcm"):
        return np.frombuffer(data, "<i2") / 32768
    resampler, pieces = av.AudioResampler("flt", "mono", RATE), []
    with av.open(io.BytesIO(data)) as container:
        frames = [*container.decode(audio=0), None]
        for frame in frames:
            pieces += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate(pieces)


def streamed(pcm: np.ndarray, format: str, piece: int) -> tuple[bytes, list[int]]:
    encoder = Encoder(format, RATE)
    parts = [encoder.feed(pcm[i : i + piece]) for i in range(0, len(pcm), piece)]
    return b"".join([*parts, encoder.close()]), [len(part) for part in parts]


def distance(heard: np.ndarray, said: np.ndarray, format: str) -> float:
    """The largest error, at the delay where it is least; the last 100 ms fade in some codecs."""
    said = said[: -RATE // 10]
    delays = range(0, max(1, min(DELAY.get(format, 1), len(heard) - len(said) + 1)))
    return min(float(np.abs(heard[d : d + len(said)] - said).max()) for d in delays)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_heard_is_what_was_said(format: str) -> None:
    said = chirp()
    stream, sizes = streamed(said, format, 2400)
    assert distance(decoded(stream, format), said, format) <= ERROR[format]
    assert distance(decoded(encode(said, format, RATE), format), said, format) <= ERROR[format]
    assert all(sizes[1:]), f"bytes leave with every 100 ms, got {sizes}"
    # planted fault: one piece lost
    holed, _ = streamed(np.delete(said, slice(4800, 7200)), format, 2400)
    assert distance(decoded(holed, format), said[:-2400], format) > 2 * ERROR[format]


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"opus", "mp3"}))
def test_any_cutting_gives_the_same_bytes(format: str) -> None:
    # ogg pages and mp3's header depend on when they must leave
    said = chirp(0.5)
    assert streamed(said, format, 777)[0] == streamed(said, format, 12_000)[0]


@pytest.mark.parametrize("format", FORMATS)
def test_silence_of_no_length_is_a_file(format: str) -> None:
    data = encode(np.zeros(0, np.float32), format, RATE)
    assert (data == b"") == format.startswith("pcm")
    if format in CODECS:
        assert np.abs(decoded(data, format)).max() < 1e-3


def test_the_header_of_a_wav() -> None:
    whole = encode(chirp(0.1), "wav", RATE)
    assert struct.unpack_from("<I", whole, 4)[0] == len(whole) - 8
    assert struct.unpack_from("<I", whole, 40)[0] == len(whole) - 44
    stream, _ = streamed(chirp(0.1), "wav", 240)
    assert stream[44:] == whole[44:] and struct.unpack_from("<I", stream, 40)[0] == 0xFFFF_FFFF


def test_what_is_too_loud_is_clipped() -> None:
    loud = np.array([2.0, -2.0, 1.0, -1.0, 0.0], np.float32)
    assert np.frombuffer(encoding.pcm16(loud), "<i2").tolist() == [32767, -32767, 32767, -32767, 0]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="format 'wma': expected one of wav, mp3"):
        Encoder("wma")
