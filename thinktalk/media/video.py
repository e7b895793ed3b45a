"""Videos in: mp4, webm, mkv, mov, gif, ... -> frames (T, H, W, 3) sampled by true time stamps, and their sound.

    demux once      time stamps of all pictures (no decoding), the sound track decoded on the way
    choose          seconds x 2 frames a second, an even number in 4..768, equally far apart in time
    decode once     in order; a chosen frame is turned upright, resized to its budget and kept, the others are dropped

so memory holds the chosen frames at their final size and nothing else. For a video of constant rate the choice is that
of qwen-omni-utils frame for frame; at a varying rate a frame is chosen that was on the screen at that time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from PIL import Image

from thinktalk.config import VisualConfig
from thinktalk.errors import InputError
from thinktalk.media.audio import MIN_SECONDS
from thinktalk.media.container import (
    Reach,
    SoundTrack,
    no_crash,
    open_container,
)  # fmt: skip
from thinktalk.media.fetch import describe, is_tensor, open_source, open_stream
from thinktalk.media.image import open_picture, quiet, resize_image, smart_resize, to_rgb

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_SECONDS", "Video", "choose_frames", "load_video", "video_size"]

MAX_SECONDS = 3600.0
"""Longest video read."""
MAX_FRAMES = 500_000
"""Most pictures a video may hold: they all have to be decoded."""
MAX_FRAME_PIXELS = 8192 * 4352
"""Largest picture in a video (8K)."""
SAMPLE_RATE = 16_000
FACTOR = 28
EXPECTED = "a video (mp4, webm, mkv, mov, gif, ...)"


@dataclass
class Video:
    """Frames ready for patchify, with their clock."""

    frames: np.ndarray
    """(T, H, W, 3) uint8 RGB, upright, H and W multiples of 28."""
    fps: float
    """Frames of this set a second."""
    seconds: float
    """Duration of the whole video."""
    audio: np.ndarray | None
    """Mono float32 (S,) at 16 kHz, starting with the first frame; None where there is no sound or it was not wanted."""

    def seconds_per_grid(self, temporal_patch: int = 2) -> float:
        """Seconds between two temporal patches."""
        return temporal_patch / self.fps


def load_video(
    source: Any,
    *,
    visual: VisualConfig,
    want_audio: bool = True,
    factor: int = FACTOR,
    name: str | None = None,
    allow_urls: bool = False,
) -> Video:
    """The sampled, resized frames of a path, bytes, open file, URL, (frames, fps), or a list of frames; a Video stays as it is.

    (frames, fps) is a video in memory: uint8 (T, H, W, 3) or PIL images. A bare array or list of frames counts as sampled
    already, at visual.video_fps. Raises InputError for what is not a video, has no frames, or is too long or large.
    """
    label = describe(source, name=name)
    if isinstance(source, Video):  # decoded elsewhere, by the same settings
        return source if want_audio else replace(source, audio=None)
    with no_crash(label, EXPECTED), quiet():
        if isinstance(source, tuple):
            if len(source) != 2:
                raise InputError(f"{label}: is a tuple of {len(source)}, expected (frames, fps)")
            return _from_frames(source[0], source[1], visual, factor, label)
        if isinstance(source, (list, np.ndarray)) or is_tensor(source):
            return _from_frames(source, None, visual, factor, label)
        opened = open_source(source, allow_urls=allow_urls, what=EXPECTED)
        with open_stream(opened) as file:
            head = file.read(32)
        if (
            head[:3] == b"GIF"
            or head[8:12] in (b"WEBP", b"avis")
            or head[:8] == b"\x89PNG\r\n\x1a\n"
        ):
            return _from_animation(opened, visual, factor, label)
        return _from_container(opened, visual, want_audio, factor, label)


def video_size(
    num_frames: int,
    height: int,
    width: int,
    visual: VisualConfig,
    *,
    factor: int = FACTOR,
    name: str = "a video",
) -> tuple[int, int]:
    """(height, width) of each frame so that a pair has 128..768 tokens and the whole video at most 115200.

    As qwen-omni-utils: long videos get smaller frames, but never below 1.05 x the least.
    """
    token_pixels = factor * factor
    least = visual.video_min_tokens * token_pixels
    total = visual.video_total_tokens * token_pixels
    most = max(min(visual.video_max_tokens * token_pixels, total / num_frames * 2), int(least * 1.05))  # fmt: skip
    return smart_resize(height, width, factor=factor, min_pixels=least, max_pixels=most, name=name)


def choose_frames(
    times_s: np.ndarray, visual: VisualConfig, *, last_s: float = 0.0
) -> tuple[np.ndarray, float, float]:
    """Indices of the frames to take, their rate, and the duration, from the sorted times (N,) of all frames.

    n = seconds x fps, within video_min_frames..video_max_frames, even; at a constant rate no more than there are. They
    stand equally far apart between the first and the last frame. Half-way cases round to even, as the reference does.
    `last_s` is how long the last frame is shown, where that is known; else as long as is usual.

    >>> choose_frames(np.arange(100) / 25, VisualConfig())[0]
    array([ 0, 14, 28, 42, 57, 71, 85, 99])
    """
    N = len(times_s)
    gaps = np.diff(times_s)
    usual = float(np.median(gaps)) if N > 1 else last_s or 1 / visual.video_fps
    steady = N < 2 or bool(np.abs(gaps - usual).max() <= 0.4 * usual)
    span = float(times_s[-1] - times_s[0])
    seconds = span * N / (N - 1) if steady and N > 1 else span + (last_s or usual)
    least = visual.video_min_frames + visual.video_min_frames % 2
    n = min(max(seconds * visual.video_fps, least), visual.video_max_frames)
    if N == 1:
        return np.zeros(1, np.int64), 1 / seconds, seconds
    if not steady:
        n = _whole_pairs(n)
        # the frame that is on the screen at each time; 1 us for time stamps that are no exact fractions
        targets = np.linspace(times_s[0], times_s[-1], n) + 1e-6
        return np.searchsorted(times_s, targets, side="right") - 1, n / seconds, seconds
    n = _whole_pairs(min(n, N))  # a slow video has no more to say than its frames
    return np.rint(np.linspace(0, N - 1, n)).astype(np.int64), n / seconds, seconds


def _whole_pairs(n: float) -> int:
    # +0.001: a duration from time stamps in ms must not lose a pair to rounding
    return max(2, math.floor(n / 2 + 1e-3) * 2)


# --------------------------------------------------------------------------------------------------------------- files


def _from_container(
    opened: bytes | Path, visual: VisualConfig, want_audio: bool, factor: int, name: str
) -> Video:
    with open_container(opened, name, EXPECTED) as container:
        streams = [s for s in container.streams.video if not _is_cover(s)]
        if not streams:
            raise InputError(f"{name}: has no moving picture, expected {EXPECTED}")
        index = streams[0].index
        _check_pixels(streams[0].codec_context.width, streams[0].codec_context.height, name)
        times_pts, audio, start_s = _read_clock(container, index, opened, want_audio, name)
        time_base = container.streams[index].time_base
    times_s = (times_pts - times_pts[0]) * float(time_base)
    if times_s[-1] > MAX_SECONDS:
        raise _too_long(name, times_s[-1])
    chosen, fps, seconds = choose_frames(times_s, visual)
    with open_container(opened, name, EXPECTED) as container:
        frames = _decode_chosen(container, index, times_pts[chosen], visual, factor, name)
    if audio is not None:
        audio = _align(audio, start_s, seconds)
    return Video(frames, fps, seconds, audio)


def _check_pixels(width: int, height: int, name: str) -> None:
    if width * height > MAX_FRAME_PIXELS:
        raise InputError(f"{name}: has frames of {width} x {height} pixels, expected at most {MAX_FRAME_PIXELS / 1e6:.0f} million")  # fmt: skip


def _is_cover(stream: Any) -> bool:
    """A picture of an album cover is no video."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _read_clock(
    container: Any, index: int, opened: bytes | Path, want_audio: bool, name: str
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Sorted time stamps of the pictures, the decoded sound, and the seconds by which it starts after the first."""
    video = container.streams[index]
    sound = SoundTrack(container, SAMPLE_RATE, MAX_SECONDS, name) if want_audio and container.streams.audio else None  # fmt: skip
    reach = Reach(container, opened)
    pts: list[int] = []
    step = 0
    if video.average_rate and video.time_base:
        step = max(1, round(1 / (video.average_rate * video.time_base)))
    for packet in container.demux():
        reach.see(packet)
        if packet.stream.index == index and packet.size and not packet.is_discard:
            stamp = packet.pts if packet.pts is not None else packet.dts
            # raw streams and old avi have none: count
            pts.append(stamp if stamp is not None else (pts[-1] + step if pts else 0))
            if len(pts) > MAX_FRAMES:
                raise InputError(f"{name}: has over {MAX_FRAMES} frames, expected a shorter video")
        elif sound is not None:
            sound.see(packet)
    reach.check(name)
    if not pts:
        raise InputError(f"{name}: has no frames, expected {EXPECTED}")
    times = np.unique(np.array(pts, np.int64))
    audio = sound.finish() if sound is not None else None
    if audio is None or len(audio) <= MIN_SECONDS * SAMPLE_RATE:
        return times, None, 0.0
    start_s = (sound.start_s or 0.0) - float(times[0] * video.time_base)
    return times, audio, start_s


def _align(audio: np.ndarray, start_s: float, seconds: float) -> np.ndarray | None:
    """Sound that starts with the first frame: cut where it came before, silence where it comes later."""
    shift = round(start_s * SAMPLE_RATE)
    if shift > 0:
        audio = np.concatenate([np.zeros(min(shift, round(seconds * SAMPLE_RATE)), np.float32), audio])  # fmt: skip
    elif shift < 0:
        audio = audio[-shift:]
    return audio if len(audio) > MIN_SECONDS * SAMPLE_RATE else None


def _decode_chosen(
    container: Any, index: int, wanted_pts: np.ndarray, visual: VisualConfig, factor: int, name: str
) -> np.ndarray:
    """The frames at these time stamps (sorted, perhaps repeated), or where one does not decode the frame before it."""
    stream = container.streams[index]
    stream.thread_type = "AUTO"
    out = _Canvas(len(wanted_pts), visual, factor, name)
    before: Any = None
    for frame in _frames(container, stream):
        if frame.pts is not None:
            while not out.full and frame.pts > wanted_pts[out.filled]:
                out.add(_upright(before or frame))
            while not out.full and frame.pts == wanted_pts[out.filled]:
                out.add(_upright(frame))
        before = frame
        if out.full:
            break
    if before is None:
        raise InputError(f"{name}: has no frame that can be decoded, expected {EXPECTED}")
    while not out.full:
        out.add(_upright(before))
    return out.frames


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Frames in the order of time; packets that do not decode are left out, unless none does."""
    error: Exception | None = None
    decoded, clock = False, None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except (av.FFmpegError, EOFError) as failure:
            error = failure
            continue
        for frame in frames:
            decoded = True
            if frame.pts is None:
                frame.pts = packet.dts
            if clock is None or frame.pts is None or frame.pts > clock:
                clock = frame.pts
                yield frame
    if error is not None and not decoded:
        raise error


def _upright(frame: Any) -> Image.Image:
    picture = frame.to_image()
    turns = round(frame.rotation / 90) % 4  # degrees counter-clockwise, from the display matrix
    kinds = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}  # fmt: skip
    return picture.transpose(kinds[turns]) if turns else picture


class _Canvas:
    """The chosen frames at their final size, which the first one decides."""

    def __init__(self, count: int, visual: VisualConfig, factor: int, name: str):
        self.count, self.visual, self.factor, self.name = count, visual, factor, name
        self.filled = 0
        self.frames = np.zeros((0, 0, 0, 3), np.uint8)

    @property
    def full(self) -> bool:
        return self.filled == self.count

    def add(self, picture: Image.Image) -> None:
        if not self.filled:
            w, h = picture.size
            _check_pixels(w, h, self.name)
            h, w = video_size(self.count, h, w, self.visual, factor=self.factor, name=self.name)
            self.frames = np.empty((self.count, h, w, 3), np.uint8)
        h, w = self.frames.shape[1:3]
        self.frames[self.filled] = np.asarray(resize_image(picture, h, w))
        self.filled += 1


# ------------------------------------------------------------------------------------------------- animations, memory


def _from_animation(opened: bytes | Path, visual: VisualConfig, factor: int, name: str) -> Video:
    """Animated gif, webp, png or avif through Pillow; a still picture is a video of one frame."""
    with open_picture(opened, name) as picture:
        count = getattr(picture, "n_frames", 1)
        if count == 1:
            raise InputError(
                f"{name}: is a still picture, expected {EXPECTED}; give it as an image"
            )
        if count > MAX_FRAMES:
            raise InputError(f"{name}: has {count} frames, expected at most {MAX_FRAMES}")
        ends_s = [0.0]
        for i in range(count):
            picture.seek(i)
            picture.load()  # webp and avif know the duration only then
            ms = float(picture.info.get("duration") or 0)
            ends_s.append(ends_s[-1] + (ms / 1e3 if ms >= 20 else 0.1))  # as browsers show it
    if ends_s[-1] > MAX_SECONDS:
        raise _too_long(name, ends_s[-1])
    times_s, last_s = np.array(ends_s[:-1]), ends_s[-1] - ends_s[-2]
    chosen, fps, seconds = choose_frames(times_s, visual, last_s=last_s)
    out = _Canvas(len(chosen), visual, factor, name)
    with open_picture(opened, name) as picture:  # anew: Pillow rewinds animated png badly
        for i in chosen:
            picture.seek(int(i))
            out.add(to_rgb(picture.copy()))
    return Video(out.frames, fps, seconds, None)


def _too_long(name: str, seconds: float) -> InputError:
    return InputError(f"{name}: is {seconds:.0f} s long, expected at most {MAX_SECONDS:.0f} s; cut it")  # fmt: skip


def _from_frames(
    frames: Sequence[Any] | np.ndarray | torch.Tensor,
    fps: Any,
    visual: VisualConfig,
    factor: int,
    name: str,
) -> Video:
    """Frames in memory; without a rate they are taken as they are."""
    if is_tensor(frames):
        frames = frames.detach().cpu().numpy()
    if not len(frames):
        raise InputError(f"{name}: has no frames, expected {EXPECTED}")
    if isinstance(frames, np.ndarray) and (frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3):  # fmt: skip
        raise InputError(f"{name}: is {frames.dtype} of shape {frames.shape}, expected uint8 (T, H, W, 3)")  # fmt: skip
    if fps is None:
        if len(frames) > visual.video_max_frames:
            raise InputError(f"{name}: has {len(frames)} frames, expected at most {visual.video_max_frames}, or (frames, fps)")  # fmt: skip
        chosen, rate, seconds = np.arange(len(frames)), visual.video_fps, len(frames) / visual.video_fps  # fmt: skip
    else:
        fps = float(fps)
        if not 0 < fps < 1e5:
            raise InputError(f"{name}: has {fps} frames a second, expected a positive number")
        chosen, rate, seconds = choose_frames(np.arange(len(frames)) / fps, visual)
    out = _Canvas(len(chosen), visual, factor, name)
    for i in chosen:
        frame = frames[int(i)]
        if not isinstance(frame, Image.Image):
            frame = np.asarray(frame)
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
                raise InputError(f"{name}: frame {i} is {frame.dtype} of shape {frame.shape}, expected uint8 (H, W, 3)")  # fmt: skip
            frame = Image.fromarray(frame)
        out.add(to_rgb(frame))
    return Video(out.frames, rate, seconds, None)
