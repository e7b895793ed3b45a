"""The example files are what README says: a spoken question, a picture, a short video with sound, all small."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from thinktalk.config import VisualConfig
from thinktalk.media.audio import load_audio
from thinktalk.media.image import load_image
from thinktalk.media.video import load_video

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_question():
    pcm = load_audio(EXAMPLES / "question.wav")
    assert 2 < len(pcm) / 16_000 < 5
    assert 0.3 < np.abs(pcm).max() < 1


def test_picture():
    picture = load_image(EXAMPLES / "picture.png")
    assert picture.size == (640, 448)
    red, green, blue = picture.getpixel((320, 210))  # the ball
    assert red > 180 > 90 > max(green, blue)


def test_clip():
    video = load_video(EXAMPLES / "clip.mp4", visual=VisualConfig())
    assert 5 <= video.seconds <= 10
    assert len(video.frames) == 12
    assert video.audio is not None
    assert abs(len(video.audio) / 16_000 - video.seconds) < 0.1
    assert np.abs(video.audio).max() > 0.2


def test_all_of_them_are_small():
    files = [p for p in EXAMPLES.iterdir() if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 600_000  # 317 of them are samples of every world
