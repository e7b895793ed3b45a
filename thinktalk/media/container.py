"""Containers (mp4, webm, mp3, ...) through PyAV, opened so that hostile files stay harmless.

    bytes or Path -> open_container -> packets -> decode_sound -> mono float32 at any rate

FFmpeg would follow a playlist that pretends to be a video to any file or address; here it reads one stream of bytes, only
real containers are allowed, and no protocol at all. Every failure of the libraries below becomes an InputError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr

from thinktalk.errors import InputError
from thinktalk.media.fetch import one_line, open_stream

__all__ = [
    "Reach",
    "SoundSink",
    "SoundTrack",
    "decode_sound",
    "mean_channels",
    "no_crash",
    "open_container",
]

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,ogg,mp3,wav,w64,flac,aac,avi,mpegts,mpeg,flv,asf,"
    "aiff,caf,au,amr,ac3,eac3,gif,m4v,mpegvideo,h264,hevc,ivf,dts,wv,tta,ape"
)
"""Containers that hold their own data; playlists, image lists and devices are not among them."""
MIN_RATE, MAX_RATE = 1000, 768_000
"""Samples a second that a file may claim."""
GAP_SECONDS = 0.1
"""Longer holes between time stamps become silence, so that sound stays beside the picture."""
TRUSTED = {"mov", "matroska", "flac", "wav"}
"""Containers whose declared duration is written in them, not guessed from a bit rate."""


@contextlib.contextmanager
def no_crash(name: str, expected: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{name}: needs more memory than there is, expected a smaller file") from None  # fmt: skip
    except (
        Exception
    ) as error:  # decoders raise anything: OSError, ValueError, SyntaxError, struct.error, ...
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{name}: cannot be decoded ({one_line(str(reason), 120)}), expected {expected}") from error  # fmt: skip


@contextlib.contextmanager
def open_container(opened: bytes | Path, name: str, what: str) -> Iterator[Any]:
    """An open av container; errors inside the block become InputError."""
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    with no_crash(name, what):
        _check_avi(opened, name)
    with (
        no_crash(name, what),
        open_stream(opened) as file,
        av.open(file, options=options, metadata_errors="ignore") as container,
    ):
        yield container


def _check_avi(opened: bytes | Path, name: str) -> None:
    """FFmpeg plays a cut avi silently to where it ends; its RIFF header tells the size it had."""
    size = len(opened) if isinstance(opened, bytes) else opened.stat().st_size
    with open_stream(opened) as file:
        head = file.read(12)
    declared = int.from_bytes(head[4:8], "little") + 8
    if head[:4] == b"RIFF" and head[8:] == b"AVI " and size < declared < 0x7FFF_0000:
        raise InputError(f"{name}: is truncated, it declares {declared} bytes and holds {size}; expected a complete file")  # fmt: skip


class Reach:
    """How far the packets of a container went, against the duration that it declares."""

    def __init__(self, container: Any, opened: bytes | Path):
        formats = set(container.format.name.split(","))
        trusted = formats & TRUSTED or ("mp3" in formats and _mp3_declares(opened))
        self.declared = container.duration / av.time_base if trusted and container.duration else 0.0
        self.start = (container.start_time or 0) / av.time_base
        self.seconds = 0.0
        self.previous: dict[int, int] = {}

    def see(self, packet: Any) -> None:
        """Note where a packet ends."""
        if packet.pts is None or not packet.time_base or packet.is_corrupt:
            return
        index = packet.stream.index
        step = packet.duration or packet.pts - self.previous.get(index, packet.pts)
        self.previous[index] = packet.pts
        end = float((packet.pts + step) * packet.time_base) - self.start
        self.seconds = max(self.seconds, end)

    def check(self, name: str) -> None:
        """InputError where the file ends before its declared end (a packet or two are no reason to complain)."""
        if self.seconds < self.declared * 0.98 - 0.1:
            raise InputError(
                f"{name}: is truncated, it declares {self.declared:.2f} s and ends after {self.seconds:.2f} s; "
                "expected a complete file"
            )


def _mp3_declares(opened: bytes | Path) -> bool:
    """Whether an mp3 declares its length in a Xing or Info frame; without it FFmpeg guesses from the bit rate."""
    with open_stream(opened) as file:
        head = file.read(10)
        tag = 0
        if head[:3] == b"ID3" and len(head) == 10:
            tag = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))  # fmt: skip
        file.seek(tag)
        first_frame = file.read(64)
    return b"Xing" in first_frame or b"Info" in first_frame


class SoundSink:
    """Collects mono blocks at the file's rate, resampled on the way; bounded by max_seconds."""

    def __init__(self, rate: int, sample_rate: int, max_seconds: float, name: str):
        if not MIN_RATE <= rate <= MAX_RATE:
            raise InputError(f"{name}: has {rate} samples a second, expected {MIN_RATE} to {MAX_RATE}")  # fmt: skip
        self.rate, self.max_samples, self.name = rate, int(max_seconds * rate), name
        self.max_seconds, self.heard = max_seconds, 0
        self.blocks: list[np.ndarray] = []
        same = rate == sample_rate
        self.resampler = None if same else soxr.ResampleStream(rate, sample_rate, 1, "float32")

    def push(self, mono: np.ndarray) -> None:
        """Add a block (n,) of float32."""
        self.heard += len(mono)
        if self.heard > self.max_samples:
            raise InputError(f"{self.name}: is longer than {self.max_seconds:.0f} s; cut it, or raise max_seconds")  # fmt: skip
        # beyond 36 dB over full scale it is no sound: integers that were not scaled, or garbage
        if not np.all(np.abs(mono) <= 64.0):
            what = "NaN or infinite samples" if not np.isfinite(mono).all() else "samples over 64"
            raise InputError(f"{self.name}: holds {what}, expected numbers in -1..1")
        mono = np.ascontiguousarray(mono, np.float32)
        self.blocks.append(self.resampler.resample_chunk(mono) if self.resampler else mono)

    def silence(self, seconds: float) -> None:
        """Add zeros, in blocks."""
        samples = round(seconds * self.rate)
        while samples > 0 and self.heard <= self.max_samples:
            block = min(samples, 1 << 16)
            self.push(np.zeros(block, np.float32))
            samples -= block

    def finish(self) -> np.ndarray:
        """All of it, (samples,) at sample_rate."""
        if self.resampler is not None and self.heard:
            self.blocks.append(self.resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        return np.concatenate(self.blocks) if self.blocks else np.zeros(0, np.float32)


class SoundTrack:
    """Decodes the first sound track packet by packet into mono float32, holes in time filled with silence.

    Packets that do not decode are left out (their place becomes silence); when none decodes, finish raises the error.
    """

    def __init__(self, container: Any, sample_rate: int, max_seconds: float, name: str):
        self.index = container.streams.audio[0].index
        self.sample_rate, self.max_seconds, self.name = sample_rate, max_seconds, name
        self.to_mono = _Mono()
        self.sink: SoundSink | None = None
        self.start_s: float | None = None
        self.error: Exception | None = None

    def see(self, packet: Any) -> None:
        """Decode a packet if it is of this track."""
        if packet.stream.index != self.index:
            return
        try:
            frames = packet.decode()
        except (av.FFmpegError, EOFError) as failure:
            self.error = failure
            return
        for frame in frames:
            self._push(frame)

    def _push(self, frame: Any) -> None:
        rate, at_s = frame.rate, frame.time
        if self.sink is None:
            self.sink = SoundSink(rate, self.sample_rate, self.max_seconds, self.name)
            self.start_s = at_s
        if rate != self.sink.rate:
            raise InputError(f"{self.name}: changes from {self.sink.rate} to {rate} samples a second on the way, expected one rate")  # fmt: skip
        if at_s is not None and self.start_s is not None:
            gap_s = at_s - self.start_s - self.sink.heard / rate
            if gap_s > GAP_SECONDS:
                self.sink.silence(min(gap_s, self.max_seconds + 1))
        self.sink.push(self.to_mono(frame))

    def finish(self) -> np.ndarray:
        """Mono float32 (samples,) from the track's own first sample on; empty for an empty track."""
        if self.sink is None:
            if self.error is not None:
                raise self.error
            return np.zeros(0, np.float32)
        return self.sink.finish()


def decode_sound(
    container: Any, opened: bytes | Path, *, sample_rate: int, max_seconds: float, name: str
) -> np.ndarray:
    """The first sound track of a container as mono float32 (samples,)."""
    track, reach = SoundTrack(container, sample_rate, max_seconds, name), Reach(container, opened)
    for packet in container.demux():
        reach.see(packet)
        track.see(packet)
    reach.check(name)
    return track.finish()


class _Mono:
    """An audio frame of any sample format as mono float32: the mean of its channels."""

    def __init__(self) -> None:
        self.key: tuple | None = None
        self.convert: Any = None

    def __call__(self, frame: Any) -> np.ndarray:
        key = (frame.format.name, frame.layout.name, frame.rate)
        if key != self.key:  # a stream may change its channels in the middle
            self.key = key
            self.convert = av.AudioResampler(format="fltp", layout=frame.layout, rate=frame.rate)
        frame.pts = None  # the converter would fill or drop samples at jumps in time
        planes = [part.to_ndarray() for part in self.convert.resample(frame)]
        return mean_channels(np.concatenate(planes, 1).T) if planes else np.zeros(0, np.float32)


def mean_channels(samples: np.ndarray) -> np.ndarray:
    """(S,) float32 of floats (S,) or (S, channels)."""
    if samples.ndim == 1 or samples.shape[1] == 1:
        return samples.reshape(-1).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf: SoundSink will refuse it
        return samples.mean(1, dtype=np.float32)
