"""Encode: float sound (S,) in -1..1, piece by piece -> the bytes of a wav, mp3, flac, opus, aac or pcm16 stream.

    encoder = Encoder("opus", 24_000)
    encoder.feed(pcm), encoder.feed(more), ..., encoder.close()      bytes as soon as the format can give them

    encode(pcm, "wav", 24_000)                                       the same as a whole file, its length in its header

A stream cannot go back to its header, so a streamed wav says that it is as long as can be (players read to the end), and a
streamed flac or mp3 does not say how long it is (ffmpeg and browsers play it, libsndfile refuses such a flac). pcm16 is what OpenAI means by it: mono, little-endian, no header.
"""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np

from thinktalk.errors import InputError

__all__ = ["FORMATS", "MEDIA_TYPES", "Encoder", "encode", "pcm16"]

MEDIA_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "pcm16": "audio/pcm",
    "pcm": "audio/pcm",
}
"""By format; "pcm" is how /v1/audio/speech calls pcm16."""
FORMATS = tuple(MEDIA_TYPES)

# muxer, codec, bits a second (None: lossless)
CODECS = {
    "mp3": ("mp3", "libmp3lame", 64_000),
    "flac": ("flac", "flac", None),
    "opus": ("ogg", "libopus", 36_000),
    "aac": ("adts", "aac", 128_000),  # with 64 its first 50 ms are far off
}
COMMON = {"fflags": "+bitexact", "flush_packets": "1"}  # the same bytes for the same sound; at once
STREAM = {"mp3": {"write_xing": "0"}, "opus": {"page_duration": "100000"}}  # microseconds
UNKNOWN = 0xFFFF_FFFF  # the length of a wav whose end is not known


def pcm16(pcm: np.ndarray) -> bytes:
    """Float samples (S,) as little-endian 16-bit integers; what is outside of -1..1 is clipped."""
    return np.rint(np.clip(pcm, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()


def wav_header(sample_rate: int, num_bytes: int | None) -> bytes:
    """Of mono 16-bit sound."""
    riff = UNKNOWN if num_bytes is None else 36 + num_bytes
    data = UNKNOWN if num_bytes is None else num_bytes
    kind = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + kind + struct.pack("<4sI", b"data", data)


class Encoder:
    """One stream of sound. `whole`: nothing is given out before close(), which may then fill in the header."""

    def __init__(self, format: str, sample_rate: int = 24_000, *, whole: bool = False):
        if format not in FORMATS:
            raise InputError(f"format {format!r}: expected one of {', '.join(FORMATS)}")
        self.format, self.sample_rate, self.whole = format, sample_rate, whole
        self._samples = 0
        self._file: io.BytesIO | _Pipe = io.BytesIO() if whole else _Pipe()
        self._track = None
        if format in CODECS:
            muxer, codec, bits = CODECS[format]
            options = COMMON if whole else COMMON | STREAM.get(format, {})
            self._container = av.open(self._file, "w", format=muxer, options=options)
            self._track = self._container.add_stream(codec, rate=sample_rate, layout="mono")
            if bits is not None:
                self._track.bit_rate = bits
        elif format == "wav" and not whole:
            self._file.write(wav_header(sample_rate, None))

    @property
    def quick(self) -> bool:
        """Whether it writes samples as they are, which is less work than asking a thread."""
        return self._track is None

    def feed(self, pcm: np.ndarray) -> bytes:
        """More sound; the bytes that are ready."""
        pcm = np.asarray(pcm, np.float32)
        assert pcm.ndim == 1, f"expected sound (S,), got {pcm.shape}"
        if self._track is None:
            self._file.write(pcm16(pcm))
        elif len(pcm):
            frame = av.AudioFrame.from_ndarray(np.clip(pcm, -1.0, 1.0)[None], format="flt", layout="mono")  # fmt: skip
            frame.sample_rate, frame.pts = self.sample_rate, self._samples
            frame.time_base = Fraction(1, self.sample_rate)
            self._container.mux(self._track.encode(frame))
        self._samples += len(pcm)
        return b"" if self.whole else self._file.take()

    def close(self) -> bytes:
        """No more sound: the bytes that are left, of a whole file all of them."""
        if self._track is not None:
            if not self._samples:  # a muxer writes no header for a stream without a frame
                self.feed(np.zeros(self.sample_rate // 50, np.float32))
            self._container.mux(self._track.encode(None))
            self._container.close()
        if not self.whole:
            return self._file.take()
        data = self._file.getvalue()
        return wav_header(self.sample_rate, len(data)) + data if self.format == "wav" else data


def encode(pcm: np.ndarray, format: str, sample_rate: int = 24_000) -> bytes:
    """A whole file of float sound (S,). Errors: InputError for an unknown format."""
    encoder = Encoder(format, sample_rate, whole=True)
    encoder.feed(pcm)
    return encoder.close()


class _Pipe:
    """Where a muxer writes; it cannot seek, and so writes in order."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        taken, self._data = bytes(self._data), bytearray()
        return taken

    def getvalue(self) -> bytes:  # for the type of Encoder._file alone
        return bytes(self._data)
