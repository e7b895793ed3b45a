"""Encode: pixels and samples -> the bytes of jpg and mp4 files, the same bytes for the same content (opus: ogg.py).

    jpeg(picture)             (H, W, 3) or PIL
    mp4(frames, fps, pcm)     (T, H, W, 3), H and W even, and its sound (S,) at 16 kHz if there is one

Muxers write dates, serial numbers and versions unless told to be exact, and a seed must give the same shard twice.
"""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
from PIL import Image

__all__ = ["RATE", "jpeg", "mp4"]

RATE = 16_000
"""Samples a second of all sound made here: what the Thinker hears."""
EXACT = {"fflags": "+bitexact"}
AAC_BITS = 40_000  # a second


def jpeg(picture: Image.Image | np.ndarray, *, quality: int = 90) -> bytes:
    """A JPEG whose colours keep their own resolution: small coloured things must not bleed."""
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def mp4(frames: np.ndarray, fps: int, pcm: np.ndarray | None = None) -> bytes:
    """H.264 of (T, H, W, 3) uint8 at a constant rate, with AAC of (S,) at RATE that begins with the first frame."""
    T, H, W, _ = frames.shape
    assert H % 2 == W % 2 == 0, f"expected even sizes, got {W} x {H}"
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=EXACT) as container:
        # one thread and no B-frames: the same bytes on every machine, and shown in the order they are stored
        fast = {"preset": "veryfast", "crf": "20", "bf": "0", "threads": "1"}
        video = container.add_stream("libx264", rate=fps, options=fast)
        video.width, video.height, video.pix_fmt = W, H, "yuv420p"
        track = None
        if pcm is not None:
            track = container.add_stream("aac", rate=RATE, layout="mono")
            track.bit_rate = AAC_BITS
        for t in range(T):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frames[t], format="rgb24")))
        container.mux(video.encode(None))
        if track is not None:
            assert pcm is not None
            samples = np.asarray(pcm, np.float32)[None]
            sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            # without a time stamp PyAV gives none to the encoder's delay either, and all sound comes 64 ms late
            sound.sample_rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(track.encode(sound))
            container.mux(track.encode(None))
    return file.getvalue()
