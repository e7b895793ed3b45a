"""Sound in: any file, bytes or array -> mono float32 (S,) at 16 kHz. Sound out: float32 (S,) -> a WAV file.

    wav, flac, ogg -> soundfile;  everything else (mp3, m4a, webm, mp4, ...) -> PyAV
    -> mean of the channels -> soxr to the wanted rate

What a file is, its first bytes say, not its name. Decoding goes block by block, so a long file at a high rate never lies
in memory whole.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import soundfile

from thinktalk.errors import InputError
from thinktalk.media.container import (
    SoundSink,
    decode_sound,
    mean_channels,
    no_crash,
    open_container,
)
from thinktalk.media.fetch import describe, is_tensor, one_line, open_source, open_stream

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_SECONDS", "MIN_SECONDS", "WaveWriter", "load_audio", "write_wav"]

MAX_SECONDS = 3600.0
"""Longest sound read by default; the Thinker's context of 32768 tokens holds 1310 s."""
MIN_SECONDS = 0.02
"""A sound must be longer than two hops: with fewer than three mel frames the encoder makes no token of it."""
EXPECTED = "sound (wav, flac, mp3, ogg, opus, m4a, webm, ...)"


def load_audio(
    source: Any,
    *,
    sample_rate: int = 16_000,
    max_seconds: float = MAX_SECONDS,
    name: str | None = None,
    allow_urls: bool = False,
) -> np.ndarray:
    """Mono float32 (samples,) in -1..1 at `sample_rate` of a path, bytes, open file, URL, (array, rate) or array.

    Arrays are (samples,), (samples, channels) or (channels, samples), numpy or torch; integers are scaled by their type;
    an array without a rate is at `sample_rate`. Raises InputError for what is not sound, is truncated, holds NaN, or is
    not longer than 20 ms.

    >>> load_audio((np.zeros(48_000, np.int16), 48_000)).shape
    (16000,)
    """
    label = describe(source, name=name)
    if isinstance(source, tuple):
        if len(source) != 2:
            raise InputError(f"{label}: is a tuple of {len(source)}, expected (samples, rate)")
        pcm = _from_array(*source, sample_rate, max_seconds, label)
    elif isinstance(source, np.ndarray) or is_tensor(source):
        pcm = _from_array(source, sample_rate, sample_rate, max_seconds, label)
    else:
        opened = open_source(source, allow_urls=allow_urls, what=EXPECTED)
        pcm = _decode(opened, sample_rate, max_seconds, label)
    if not len(pcm):
        raise InputError(f"{label}: holds no samples, expected sound")
    if len(pcm) <= MIN_SECONDS * sample_rate:
        raise InputError(
            f"{label}: is {len(pcm)} samples ({1e3 * len(pcm) / sample_rate:.1f} ms) long, expected more than "
            f"{1e3 * MIN_SECONDS:.0f} ms of sound"
        )
    return pcm


def write_wav(path: str | os.PathLike[str], samples: np.ndarray | torch.Tensor, rate: int) -> None:
    """Write float samples (S,) in -1..1 as 16-bit mono WAV; the file appears whole or not at all.

    Raises InputError when the place cannot be written.
    """
    with WaveWriter(path, rate) as wave:
        wave.write(samples)


class WaveWriter:
    """A 16-bit mono WAV written piece by piece; the file appears whole at the end of `with`, or not at all.

    Raises InputError when the place cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], rate: int):
        self.path, self.rate = Path(path), rate
        self.part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")

    def __enter__(self) -> Self:
        with self._explained():
            if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
                raise OSError("not a regular file")
            self._file = self.part.open("w+b")
            self._wave = soundfile.SoundFile(
                self._file, "w", self.rate, 1, format="WAV", subtype="PCM_16"
            )
        return self

    def write(self, samples: np.ndarray | torch.Tensor) -> None:
        """Float samples (S,) in -1..1."""
        if is_tensor(samples):
            samples = samples.detach().cpu().float().numpy()
        assert samples.ndim == 1, f"expected mono (S,), got {samples.shape}"
        with self._explained():
            self._wave.write(np.clip(np.rint(samples * 32767.0), -32768, 32767).astype(np.int16))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._explained():
                self._wave.close()
                self._file.close()
                if kind is None:
                    self.part.replace(self.path)
        finally:
            self._drop()

    def _drop(self) -> None:
        with contextlib.suppress(OSError):
            self.part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, soundfile.SoundFileError) as error:
            self._drop()
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{describe(self.path)}: cannot be written ({one_line(reason)}); choose another place") from None  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- arrays


def _from_array(
    samples: Any, rate: Any, sample_rate: int, max_seconds: float, name: str
) -> np.ndarray:
    if is_tensor(samples):
        samples = samples.detach().cpu()
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    with no_crash(name, "samples (S,) with a rate in samples a second"):
        samples = np.asarray(samples)
        if isinstance(rate, bool) or not float(rate).is_integer():
            raise InputError(f"{name}: has the rate {one_line(str(rate))}, expected whole samples a second")  # fmt: skip
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "iuf":
        raise InputError(f"{name}: is {samples.dtype} of shape {samples.shape}, expected numbers (S,) or (S, channels)")  # fmt: skip
    if not samples.size:
        raise InputError(f"{name}: holds no samples, expected sound")
    if samples.ndim == 2:
        samples = samples if samples.shape[0] >= samples.shape[1] else samples.T
    sink = SoundSink(int(rate), sample_rate, max_seconds, name)
    block = max(1, (1 << 20) // (samples.shape[1] if samples.ndim == 2 and samples.shape[1] else 1))
    for start in range(0, len(samples), block):
        sink.push(mean_channels(_scaled(samples[start : start + block])))
    return sink.finish()


def _scaled(samples: np.ndarray) -> np.ndarray:
    """Floats as they are, integers by their full scale."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # float64 beyond float32: SoundSink will refuse it
            return samples.astype(np.float32)
    half = 1 << (8 * samples.dtype.itemsize - 1)
    middle = half if samples.dtype.kind == "u" else 0  # unsigned sound rests in the middle
    return ((samples.astype(np.float64) - middle) / half).astype(np.float32)


# --------------------------------------------------------------------------------------------------------------- files


def _decode(opened: bytes | Path, sample_rate: int, max_seconds: float, name: str) -> np.ndarray:
    with no_crash(name, EXPECTED), open_stream(opened) as file:
        head = file.read(1 << 16)
    if head[:4] in (b"RIFF", b"RF64", b"fLaC", b"OggS"):
        _check_whole(opened, head, name)
        pcm = _by_soundfile(opened, sample_rate, max_seconds, name)
        if pcm is not None:
            return pcm
    with open_container(opened, name, EXPECTED) as container:
        if not container.streams.audio:
            raise InputError(f"{name}: has no sound track, expected {EXPECTED}")
        return decode_sound(
            container, opened, sample_rate=sample_rate, max_seconds=max_seconds, name=name
        )


def _by_soundfile(
    opened: bytes | Path, sample_rate: int, max_seconds: float, name: str
) -> np.ndarray | None:
    """libsndfile, in blocks of at most a million numbers; None where it does not know the coding (PyAV may).

    mp3 is left to PyAV: libsndfile's mpg123 writes complaints to standard error.
    """
    with no_crash(name, EXPECTED), open_stream(opened) as file:
        try:
            sound = soundfile.SoundFile(file)
        except soundfile.SoundFileError:
            return None
        with sound:
            sink = SoundSink(sound.samplerate, sample_rate, max_seconds, name)
            block = max(1, (1 << 20) // sound.channels)
            while len(part := sound.read(block, dtype="float32", always_2d=True)):
                sink.push(mean_channels(part))
            if sink.heard < sound.frames < 1 << 48:  # more: the writer did not know the length
                raise InputError(f"{name}: is truncated, it declares {sound.frames} samples and holds {sink.heard}")  # fmt: skip
            return sink.finish()


def _check_whole(opened: bytes | Path, head: bytes, name: str) -> None:
    """InputError where a wav or ogg file ends in the middle of what it declares; libsndfile reads on silently."""
    size = len(opened) if isinstance(opened, bytes) else opened.stat().st_size
    if head[:4] == b"RIFF":
        at = 12
        while at + 8 <= len(head):
            chunk, length = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
            # writers to a pipe leave 0 or the largest number there
            if chunk == b"data":
                if at + 8 + length > size and length < 0x7FFF_0000:
                    raise InputError(f"{name}: is truncated, it declares {length} bytes of sound and holds {size - at - 8}")  # fmt: skip
                return
            at += 8 + length + length % 2
    if head[:4] == b"OggS":
        with no_crash(name, EXPECTED), open_stream(opened) as file:
            file.seek(max(0, size - (1 << 17)))  # a page is at most 65307 bytes
            tail = file.read()
        page = tail[tail.rfind(b"OggS") :]
        if len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
            raise InputError(f"{name}: is truncated in the middle of a page, expected a complete file")  # fmt: skip
